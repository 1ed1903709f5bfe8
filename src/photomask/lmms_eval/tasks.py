"""Makes a task of lmms-eval of a file of prompts.

A task is a folder with two documents. `NAME.yaml` names the functions of this module, and
`prompts.jsonl` holds one row for each prompt, with the absolute paths of its pictures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomask.documents import quoted_yaml, write_file, written_whole
from photomask.errors import DataError, UsageError
from photomask.prompts import Prompt, open_image

if TYPE_CHECKING:
    from PIL.Image import Image

TASK_OUTPUT = "lmms-eval task"
"""The kind of output, in the record of the folder."""

LEAST_NEW_TOKENS = 16
"""The number of tokens that are generated at least."""

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

_ROWS = "prompts.jsonl"
_HERE = "photomask.lmms_eval.tasks"
_TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: generate_until
doc_to_messages: !function {here}.messages_of
doc_to_visual: !function {here}.pictures_of
doc_to_text: !function {here}.text_of
doc_to_target: answer
process_results: !function {here}.score
generation_kwargs:
  max_new_tokens: {tokens}
  temperature: 0
  do_sample: false
metric_list:
"""
_METRIC = """\
  - metric: {metric}
    aggregation: mean
    higher_is_better: true
"""


def check_task_name(name: str) -> str:
    """Returns the name of a task if lmms-eval can take it.

    Raises:
        UsageError: the name has other characters than letters, digits, `_` and `-`.
    """
    if not TASK_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name of a task: expected up to 64 letters, digits, _ and -, and a "
            "letter or digit first"
        )
    return name


def write_task(folder: Path, name: str, prompts: Sequence[Prompt]) -> None:
    """Writes a folder that lmms-eval takes as `--include_path`.

    Pictures in memory are written into the folder. Pictures in files stay where they are.

    Args:
        folder: the folder to create. A folder that holds anything but an earlier task that
            Photomask wrote is refused.
        name: the name of the task.
        prompts: the prompts. Each one needs an answer, because lmms-eval compares the answers.

    Raises:
        UsageError: the name cannot be the name of a task.
        DataError: there is no prompt, a prompt has no answer, or the name of a prompt's task has a
            comma, at which lmms-eval cuts the names of its metrics.
        ExportError: the folder holds something else, or a file cannot be written.
    """
    check_task_name(name)
    answers = _answers(prompts)
    tokens = max(LEAST_NEW_TOKENS, *(len(answer.encode()) for answer in answers))
    metrics = ["accuracy", *dict.fromkeys(_metric(prompt.task) for prompt in prompts)]
    rows = Path(folder).resolve() / _ROWS
    task = _TASK.format(
        name=quoted_yaml(name), rows=quoted_yaml(str(rows)), here=_HERE, tokens=tokens
    )
    task += "".join(_METRIC.format(metric=quoted_yaml(metric)) for metric in metrics)
    with written_whole(folder, TASK_OUTPUT) as work:
        lines = [_row(prompt, number, work, rows.parent) for number, prompt in enumerate(prompts)]
        write_file(work / _ROWS, "".join(lines).encode())
        write_file(work / f"{name}.yaml", task.encode())


def _answers(prompts: Sequence[Prompt]) -> list[str]:
    """Returns the answers, after it has checked the prompts.

    Raises:
        DataError: there is no prompt, a prompt has no answer, or the name of its task has a comma.
    """
    if not prompts:
        raise DataError("a task needs at least one prompt")
    answers = []
    for number, prompt in enumerate(prompts):
        if not (prompt.answer or "").strip():
            raise DataError(
                f"prompt {number} has no answer, which lmms-eval compares with the model's; give "
                "every prompt an answer, or leave it out"
            )
        if "," in prompt.task:
            raise DataError(
                f"prompt {number} is of the task {prompt.task!r}; lmms-eval cuts names at a comma, "
                "so name the task without one"
            )
        answers.append(prompt.answer or "")
    return answers


def _metric(task: str) -> str:
    """Returns the name of the accuracy on one task of the prompts."""
    return f"accuracy of {task}"


def _row(prompt: Prompt, number: int, work: Path, place: Path) -> str:
    """Returns the line of one prompt, and writes those of its pictures that are in memory.

    Args:
        prompt: the prompt.
        number: its place among the prompts.
        work: the folder that is being written.
        place: where that folder will be.
    """
    content = []
    for part in prompt.content:
        if isinstance(part, str):
            content.append({"text": part, "image": None})
        elif isinstance(part, Path):
            content.append({"text": None, "image": str(part.resolve())})
        else:
            name = f"{number:05d}-{len(content):02d}.png"
            part.save(work / name, format="PNG")
            content.append({"text": None, "image": str(place / name)})
    row = {"content": content, "task": prompt.task, "answer": prompt.answer}
    return json.dumps(row, ensure_ascii=False) + "\n"


def messages_of(doc: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the prompt of a row as the messages of lmms-eval, in the order of its parts."""
    content = [
        {"type": "text", "text": part["text"]}
        if part["text"] is not None
        else {"type": "image", "url": open_image(Path(part["image"]))}
        for part in doc["content"]
    ]
    return [{"role": "user", "content": content}]


def pictures_of(doc: dict[str, Any]) -> list[Image]:
    """Returns the pictures of a row in order, for models that take all pictures first."""
    return [open_image(Path(part["image"])) for part in doc["content"] if part["image"] is not None]


def text_of(doc: dict[str, Any]) -> str:
    """Returns the text of a row, with `<image 1>` in the place of its first picture.

    Models of lmms-eval with `interleave_visuals=True` put the pictures back in their places.
    """
    words, pictures = [], 0
    for part in doc["content"]:
        if part["text"] is None:
            pictures += 1
        words.append(f"<image {pictures}>" if part["text"] is None else part["text"])
    return "".join(words)


def score(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Returns 1 for a right response and 0 for any other, over all prompts and for its own task.

    A response is right if it starts with the answer, and if the answer does not end within a word
    or a number.
    """
    answer, response = doc["answer"].strip(), results[0].strip()
    rest = response.removeprefix(answer)
    inside = answer[-1:].isalnum() and rest[:1].isalnum()
    right = float(response.startswith(answer) and not inside)
    return {"accuracy": right, _metric(doc["task"]): right}
