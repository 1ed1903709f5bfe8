r"""Measures a vision-language model of `train_vlm.py` and writes its model card.

    python scripts/vlm_card.py src/photomask/zoo/weights/picture_questions \
        --history out/picture_questions/training.json --accuracy out/accuracy.json

Every held-out prompt goes through the processor's chat template and greedy `generate`, in float32
on the CPU; an answer is right if the generated text is the answer and nothing else.
"""

import argparse
import json
import multiprocessing
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from photomask.prompts import Prompt
from photomask.zoo.picture_questions import (
    TASKS,
    chance,
    held_out_prompts,
    load_vision_language,
)

GROUPS = {"2 to 4 pictures": (2, 3, 4), "8 pictures": (8,), "16 pictures": (16,)}
SEED = 0

CARD = """# Picture questions

| | |
|---|---|
| architecture | Qwen2.5-VL (`Qwen2_5_VLForConditionalGeneration` of transformers) |
| task | questions over 2 to 16 Fashion-MNIST pictures, answered with one word or number |
| language model | {layers} layers, width {width}, {heads} query heads on {groups} key-value heads \
of {head_width}, gated layers of {gated}, mRoPE sections {sections}, {words} words |
| vision tower | {depth} layers, width {vision_width}, {vision_heads} heads, patches of \
{patch}x{patch} pixels merged {merge}x{merge}: {tokens} tokens a picture |
| parameters | {parameters:,} |
| file | {size:,} bytes, bfloat16 |
| licence | Apache-2.0 (the data: MIT, Zalando SE) |
| trained | {trained} |
| measured | {date}, Python {python}, PyTorch {torch}, transformers {transformers}, tokenizers \
{tokenizers} |

## Accuracy

Percentage of right answers to held-out prompts (seed {seed}; by column {counts} a task), over
pictures of the test set, in float32, by greedy `generate` with the processor's chat template; in
brackets what guessing among the possible answers would reach. `odd` needs 3 pictures.

{table}

| task | question |
|---|---|
{questions}

## Training

The vision tower first learned to classify single pictures of the 60,000 training images (shifted,
flipped, partly erased) under a linear classifier, which was then dropped. Then the language model
learned from random sets of pictures with {slots} questions each, where a question sees the pictures
and itself only; in the last part of each run the vision tower learned along at a tenth of the
rate. The weights are the exponential moving average after the last step. No test picture was
trained on. The test pictures were scored once after each run and chose no checkpoint; that another
run followed the first was decided on its scores.

    python scripts/make_fashion_mnist.py --idx out/idx
{commands}

Another GPU, or another version, gives other weights of about the same accuracy.

## Limits

It knows ten kinds of clothes, pictures like those of Fashion-MNIST, the {questions_count} questions
above in exactly these words, and numbers up to 16; any other word is unknown to it. It answers one
question in one user turn, and no videos. It is made for trying out and testing sparse attention,
and for nothing else. `photomask.zoo.load_vision_language` loads it and its processor;
transformers' `AutoProcessor`, as for every Qwen2.5-VL, also wants torchvision.
"""


def answer(model: Any, processor: Any, prompt: Prompt) -> str:
    """Returns what the model generates for a prompt."""
    text = processor.apply_chat_template(prompt.messages(), add_generation_prompt=True)
    inputs = processor(text=[text], images=prompt.images(), return_tensors="pt")
    generated = model.generate(**inputs, max_new_tokens=3)[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(generated, skip_special_tokens=True)[0]


def _count_right(part: tuple[Path, int, int, int]) -> dict[str, int]:
    """Counts right answers by task; a part is folder, pictures, prompts a task, and remainder."""
    folder, pictures, count, remainder = part
    torch.set_num_threads(1)
    model, processor = load_vision_language(folder)
    right = dict.fromkeys(TASKS, 0)
    for prompt in held_out_prompts(count, pictures, seed=SEED)[remainder::WORKERS]:
        right[prompt.task] += answer(model, processor, prompt) == prompt.answer
    return right


WORKERS = 2


def measure(folder: Path, numbers: tuple[int, ...], count: int) -> dict[str, list[float]]:
    """Returns for each task the percentage of right answers, that of guesses, and of how many."""
    right, guessed = dict.fromkeys(TASKS, 0), dict.fromkeys(TASKS, 0.0)
    asked, each = dict.fromkeys(TASKS, 0), -(-count // len(numbers))
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        for pictures in numbers:
            parts = [(folder, pictures, each, rest) for rest in range(WORKERS)]
            for counted in pool.map(_count_right, parts):
                for task in TASKS:
                    right[task] += counted[task]
            for task in TASKS:
                present = pictures > 2 or task != "odd"
                asked[task] += each * present
                guessed[task] += each * present * chance(task, pictures)
    return {
        task: [100 * right[task] / asked[task], 100 * guessed[task] / asked[task], asked[task]]
        for task in TASKS
    }


def write_card(folder: Path, accuracy: dict, runs: list[dict]) -> str:
    """Fills the card in."""
    from photomask.zoo.picture_questions.questions import QUESTIONS
    from vlm_batches import SLOTS
    from vlm_model import TOKENS_PER_PICTURE

    model, _ = load_vision_language(folder)
    text, vision = model.config.text_config, model.config.vision_config
    lines = ["| task | " + " | ".join(GROUPS) + " |", "|---" * (len(GROUPS) + 1) + "|"]
    for task in TASKS:
        cells = [accuracy[group][task] for group in GROUPS]
        lines.append(f"| {task} | " + " | ".join(f"{a:.1f} ({b:.1f})" for a, b, _ in cells) + " |")
    return CARD.format(
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        heads=text.num_attention_heads,
        groups=text.num_key_value_heads,
        head_width=text.hidden_size // text.num_attention_heads,
        gated=text.intermediate_size,
        sections=text.rope_parameters["mrope_section"],
        words=text.vocab_size,
        depth=vision.depth,
        vision_width=vision.hidden_size,
        vision_heads=vision.num_heads,
        patch=vision.patch_size,
        merge=vision.spatial_merge_size,
        tokens=TOKENS_PER_PICTURE,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        size=(folder / "model.safetensors").stat().st_size,
        trained="; ".join(f"{run['date']}, {run['seconds']} s on {run['device']}" for run in runs),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        tokenizers=tokenizers.__version__,
        counts=", ".join(str(int(tasks[TASKS[0]][2])) for tasks in accuracy.values()),
        seed=SEED,
        table="\n".join(lines),
        questions="\n".join(f"| {task} | {line} |" for task, line in QUESTIONS.items()),
        slots=len(SLOTS),
        commands="\n".join(f"    python scripts/train_vlm.py {run['arguments']}" for run in runs),
        questions_count="six",
    )


def main() -> None:
    """Parses the arguments, measures where that is not yet done, and writes `card.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--history", type=Path, required=True, help="training.json of the run")
    parser.add_argument("--accuracy", type=Path, required=True, help="measured where missing")
    parser.add_argument("--count", type=int, default=200, help="prompts a task and group")
    options = parser.parse_args()
    accuracy: dict[str, dict[str, list[float]]] = {}
    if options.accuracy.is_file():
        accuracy = json.loads(options.accuracy.read_text(encoding="utf-8"))
    for group, numbers in GROUPS.items():
        if group not in accuracy:
            accuracy[group] = measure(options.folder, numbers, options.count)
            text = json.dumps(accuracy, indent=2)
            options.accuracy.write_text(text + "\n", encoding="utf-8")
            print(group, accuracy[group], flush=True)
    runs = json.loads(options.history.read_text(encoding="utf-8"))
    card = write_card(options.folder, accuracy, runs)
    (options.folder / "card.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
