"""Tasks for lmms-eval: prompts come back as they were, and answers are scored as a person would."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL")
pytest.importorskip("yaml")

import yaml
from PIL import Image

from photomask.errors import DataError, ExportError, UsageError
from photomask.lmms_eval import tasks, write_task
from photomask.prompts import Prompt

RED = Image.new("RGB", (3, 2), (255, 0, 0))
BLUE = Image.new("RGB", (2, 3), (0, 0, 255))


class FunctionLoader(yaml.SafeLoader):
    """Reads `!function a.b.c` as the function of this package, as lmms-eval does."""


def function_of(loader: Any, node: Any) -> Any:
    module, _, name = loader.construct_scalar(node).rpartition(".")
    assert module == tasks.__name__
    return getattr(tasks, name)


FunctionLoader.add_constructor("!function", function_of)


def read_task(folder: Path, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the configuration of a task and its rows."""
    text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    task = yaml.load(text, FunctionLoader)
    rows = Path(task["dataset_kwargs"]["data_files"][task["test_split"]])
    return task, [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def prompts(tmp_path: Path) -> list[Prompt]:
    BLUE.save(tmp_path / "blue.png")
    return [
        Prompt(("One:", RED, "Two:", tmp_path / "blue.png", "Same?"), "no", "compare"),
        Prompt((RED, "Which colour? ✓"), "red", 'a "b" \U0001f600'),
    ]


def test_prompts_come_back_as_messages_in_the_order_of_their_parts(
    prompts: list[Prompt], tmp_path: Path
):
    write_task(tmp_path / "folder", "mine", prompts)
    task, rows = read_task(tmp_path / "folder", "mine")
    assert (task["task"], task["dataset_path"]) == ("mine", "json")
    assert task["doc_to_target"] == "answer"
    assert [row["answer"] for row in rows] == ["no", "red"]
    for prompt, row in zip(prompts, rows, strict=True):
        (message,) = task["doc_to_messages"](row)
        assert message["role"] == "user"
        found = [part.get("text", part.get("url")) for part in message["content"]]
        texts = [part if isinstance(part, str) else None for part in prompt.content]
        assert [part if isinstance(part, str) else None for part in found] == texts
        pictures = [part.tobytes() for part in found if not isinstance(part, str)]
        assert pictures == [picture.tobytes() for picture in prompt.images()]
        assert [one.tobytes() for one in task["doc_to_visual"](row)] == pictures


def test_the_text_says_where_each_picture_belongs(prompts: list[Prompt], tmp_path: Path):
    write_task(tmp_path / "folder", "mine", prompts)
    task, rows = read_task(tmp_path / "folder", "mine")
    assert task["doc_to_text"](rows[0]) == "One:<image 1>Two:<image 2>Same?"


def test_every_score_is_a_metric_of_the_task(prompts: list[Prompt], tmp_path: Path):
    write_task(tmp_path / "folder", "mine", prompts)
    task, rows = read_task(tmp_path / "folder", "mine")
    scores = [task["process_results"](row, [row["answer"]]) for row in rows]
    metrics = [metric["metric"] for metric in task["metric_list"]]
    assert metrics == ["accuracy", "accuracy of compare", 'accuracy of a "b" \U0001f600']
    assert [list(score) for score in scores] == [metrics[:2], metrics[::2]]
    assert all(metric["aggregation"] == "mean" for metric in task["metric_list"])


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("3", "3", 1),
        ("3", " 3.", 1),
        ("3", "3 pictures", 1),
        ("3", "13", 0),
        ("3", "31", 0),
        ("cat", "cats", 0),
        ("cat", "cat, surely", 1),
        ("cat", "Cat", 0),
        ("(a)", "(a)b", 1),
        ("yes", "", 0),
    ],
)
def test_a_response_is_right_if_it_starts_with_the_answer_as_a_whole_word(
    answer: str, response: str, right: int
):
    found = tasks.score({"answer": answer, "task": "t"}, [response])
    assert found == {"accuracy": right, "accuracy of t": right}


def test_there_are_enough_tokens_for_the_longest_answer(tmp_path: Path):
    for number, (answer, tokens) in enumerate((("no", 16), ("é" * 30, 60))):
        write_task(tmp_path / str(number), "mine", [Prompt(("What?",), answer)])
        task, _ = read_task(tmp_path / str(number), "mine")
        assert task["generation_kwargs"] == {
            "max_new_tokens": tokens,
            "temperature": 0,
            "do_sample": False,
        }


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "at least one prompt"),
        (Prompt(("What?",)), "prompt 0 has no answer"),
        (Prompt(("What?",), "  "), "prompt 0 has no answer"),
        (Prompt(("What?",), "x", "a,b"), "cuts names at a comma"),
    ],
)
def test_prompts_that_cannot_be_scored_are_refused(
    prompt: Prompt | None, message: str, tmp_path: Path
):
    with pytest.raises(DataError, match=message):
        write_task(tmp_path / "folder", "mine", [] if prompt is None else [prompt])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a b", "../a", "a:b", "-a", "é", "a" * 65, "a\n"])
def test_a_name_that_is_no_name_of_a_task_is_refused(name: str, tmp_path: Path):
    with pytest.raises(UsageError, match="is no name of a task"):
        write_task(tmp_path / "folder", name, [Prompt(("What?",), "x")])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_user_stays_and_an_earlier_task_is_replaced(tmp_path: Path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ExportError, match="not an earlier output"):
        write_task(tmp_path, "mine", [Prompt(("What?",), "x")])
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    write_task(tmp_path / "folder", "first", [Prompt(("What?",), "x")])
    write_task(tmp_path / "folder", "second", [Prompt(("Who?",), "y")])
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == [".photomask.json", "prompts.jsonl", "second.yaml"]


def test_a_picture_that_is_gone_is_named(prompts: list[Prompt], tmp_path: Path):
    write_task(tmp_path / "folder", "mine", prompts)
    _, rows = read_task(tmp_path / "folder", "mine")
    (tmp_path / "blue.png").unlink()
    with pytest.raises(DataError, match=r"blue\.png"):
        tasks.messages_of(rows[0])
