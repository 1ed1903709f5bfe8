import itertools
import re
import shutil
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from photomask.errors import DataError, MissingDependencyError, UsageError
from photomask.zoo import fashion_mnist
from photomask.zoo.picture_questions import (
    KINDS,
    TASKS,
    calibration_prompts,
    chance,
    draw_question,
    held_out_prompts,
    load_vision_language,
)
from photomask.zoo.picture_questions.loading import FOLDER
from photomask.zoo.picture_questions.questions import QUESTIONS

TOKENS_PER_PICTURE = 49


def solve(text, labels):
    """Answers a question from the labels, without the code that made it."""
    shown = [KINDS[label] for label in labels]
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    kinds = [word for word in re.findall(r"[A-Za-z-]+", text) if word in KINDS]
    if text.startswith("What does"):
        return shown[numbers[0] - 1]
    if text.startswith("How many"):
        return str(shown.count(kinds[0]))
    if text.startswith("Do pictures"):
        return "yes" if len({shown[number - 1] for number in numbers}) == 1 else "no"
    if text.startswith("Which comes first"):
        return min(kinds, key=shown.index)
    alone = [kind for kind in set(shown) if shown.count(kind) == 1]
    wanted = kinds[0] if kinds else alone[0]
    assert wanted in alone
    if not kinds:
        assert len(set(shown)) == 2
    return str(shown.index(wanted) + 1)


def pixels(picture):
    return np.asarray(picture)[:, :, 0].tobytes()


def labels_by_pixels(images, labels):
    grey = images * fashion_mnist.STANDARD_DEVIATION + fashion_mnist.MEAN
    grey = (grey * 255).round().to(torch.uint8).numpy()
    return {image.tobytes(): int(label) for image, label in zip(grey, labels, strict=True)}


@pytest.fixture(scope="module")
def test_labels():
    return labels_by_pixels(*fashion_mnist.test_set())


@pytest.fixture(scope="module")
def loaded():
    return load_vision_language()


def inputs_of(processor, prompt):
    text = processor.apply_chat_template(prompt.messages(), add_generation_prompt=True)
    return processor(text=[text], images=prompt.images(), return_tensors="pt")


def answer(loaded, prompt):
    model, processor = loaded
    inputs = inputs_of(processor, prompt)
    generated = model.generate(**inputs, max_new_tokens=3)[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(generated, skip_special_tokens=True)[0]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("pictures", [3, 4, 8, 16])
def test_answers_are_right_by_construction(task, pictures):
    for seed in range(60):
        question = draw_question(task, pictures, Random(seed))
        assert len(question.labels) == pictures
        assert solve(question.text, question.labels) == question.answer


@pytest.mark.parametrize("task", ["count", "compare", "find", "odd", "order"])
def test_answers_are_balanced(task):
    drawn = [draw_question(task, 4, Random(seed)) for seed in range(1000)]
    if task == "order":
        answers = [question.text.index(question.answer) < 24 for question in drawn]
    else:
        answers = [question.answer for question in drawn]
    shares = [answers.count(value) / len(answers) for value in set(answers)]
    assert len(shares) == round(1 / chance(task, 4))
    assert max(shares) < 1.25 * min(shares)


def test_held_out_prompts_show_test_pictures_that_fit_their_answers(test_labels):
    prompts = held_out_prompts(5)
    assert [prompt.task for prompt in prompts] == list(TASKS) * 5
    for prompt in prompts:
        shown = [pixels(image) for image in prompt.images()]
        assert len(set(shown)) == len(shown)
        labels = [test_labels[key] for key in shown]
        assert solve(prompt.content[-1], labels) == prompt.answer
        assert prompt.content[0] == "Picture 1:"
        assert prompt.content[-3] == f"Picture {len(labels)}:"


def test_calibration_prompts_show_training_pictures_only(test_labels):
    training = labels_by_pixels(*fashion_mnist.calibration_set())
    for prompt in calibration_prompts(12):
        shown = [pixels(image) for image in prompt.images()]
        assert solve(prompt.content[-1], [training[key] for key in shown]) == prompt.answer
        assert not set(shown) & set(test_labels)


def test_prompts_are_deterministic_and_fewer_are_a_prefix():
    def described(prompts):
        return [
            (p.task, p.answer, p.content[-1], [pixels(image) for image in p.images()])
            for p in prompts
        ]

    many = described(held_out_prompts(3, seed=4))
    assert described(held_out_prompts(2, seed=4)) == many[: 2 * len(TASKS)]
    assert described(held_out_prompts(3, seed=5)) != many
    assert described(calibration_prompts(9))[:4] == described(calibration_prompts(4))
    numbers = {len(prompt.images()) for prompt in held_out_prompts(40)}
    assert numbers == set(range(2, 17))
    assert all(len(prompt.images()) == 7 for prompt in held_out_prompts(1, pictures=7))
    assert "odd" not in {prompt.task for prompt in held_out_prompts(1, pictures=2)}


@pytest.mark.parametrize(
    "call",
    [
        lambda: held_out_prompts(0),
        lambda: held_out_prompts(1, pictures=17),
        lambda: calibration_prompts(0),
        lambda: chance("sing", 4),
        lambda: draw_question("sing", 4, Random(0)),
        lambda: draw_question("odd", 2, Random(0)),
    ],
)
def test_what_cannot_be_asked_is_refused(call):
    with pytest.raises(UsageError):
        call()


def test_every_word_is_known_and_every_answer_is_one_token(loaded):
    tokenizer = loaded[1].tokenizer
    unknown = tokenizer.unk_token_id
    for prompt in held_out_prompts(10, seed=1):
        assert len(tokenizer.encode(prompt.answer)) == 1
        for part in (prompt.answer, *prompt.content):
            if isinstance(part, str):
                assert unknown not in tokenizer.encode(part)
    assert tokenizer.encode("unheard-of") == [unknown]


def test_every_delimiter_is_where_it_should_be(loaded):
    processor = loaded[1]
    prompt = held_out_prompts(1, pictures=3)[0]
    inputs = inputs_of(processor, prompt)
    tokens = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    assert tokens[:3] == ["<|im_start|>", "user", "\n"]
    assert tokens[-5:] == ["<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"]
    place = 3
    for number in ("1", "2", "3"):
        assert tokens[place : place + 4] == ["Picture", number, ":", "<|vision_start|>"]
        place += 4
        assert tokens[place : place + TOKENS_PER_PICTURE] == ["<|image_pad|>"] * TOKENS_PER_PICTURE
        place += TOKENS_PER_PICTURE
        assert tokens[place] == "<|vision_end|>"
        place += 1
    assert tokens[place:-5] == re.findall(r"\w+|\?", prompt.content[-1])
    assert inputs["image_grid_thw"].tolist() == [[1, 14, 14]] * 3
    assert inputs["mm_token_type_ids"].sum() == 3 * TOKENS_PER_PICTURE
    config = loaded[0].config
    names = ("image", "video", "vision_start", "vision_end")
    found = [getattr(config, f"{name}_token_id") for name in names]
    expected = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    assert found == processor.tokenizer.convert_tokens_to_ids(expected)


def test_the_processor_sees_the_pixels_that_the_networks_of_the_zoo_see(loaded):
    prompt = held_out_prompts(1, pictures=2)[0]
    patches = inputs_of(loaded[1], prompt)["pixel_values"].view(2, 7, 7, 2, 2, 3, 2, 2, 2)
    images = patches[:, :, :, :, :, 0, 0].permute(0, 1, 3, 5, 2, 4, 6).reshape(2, 1, 28, 28)
    grey = np.stack([np.asarray(image)[:, :, 0] for image in prompt.images()])
    torch.testing.assert_close(images, fashion_mnist.normalise(grey))


def test_the_model_is_small_and_as_the_card_says(loaded):
    model = loaded[0]
    card = (FOLDER / "card.md").read_text(encoding="utf-8")
    assert model.dtype == torch.float32
    assert not model.training
    assert f"| parameters | {sum(p.numel() for p in model.parameters()):,} |" in card
    assert f"| file | {(FOLDER / 'model.safetensors').stat().st_size:,} bytes" in card
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 7.5e6
    for task in TASKS:
        cells = re.findall(rf"^\| {task} \|(.*)\|$", card, re.MULTILINE)[0].split("|")
        shares = [tuple(map(float, re.findall(r"[\d.]+", cell))) for cell in cells]
        assert len(shares) == 3
        assert all(measured > 1.4 * guessed for measured, guessed in shares)
        assert f"| {task} | {QUESTIONS[task]} |" in card


def test_it_names_single_pictures(loaded):
    prompts = [p for p in held_out_prompts(20, pictures=2) if p.task == "name"]
    right = [answer(loaded, prompt) == prompt.answer for prompt in prompts]
    assert sum(right) >= 18


def test_it_answers_every_task(loaded):
    prompts = list(itertools.chain(held_out_prompts(1, pictures=4), held_out_prompts(1, 9)))
    right = [answer(loaded, prompt) == prompt.answer for prompt in prompts]
    assert sum(right) >= 10


def test_a_missing_or_damaged_checkpoint_is_reported(tmp_path):
    with pytest.raises(DataError, match="no model"):
        load_vision_language(tmp_path)
    folder = Path(shutil.copytree(FOLDER, tmp_path / "copy"))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DataError, match="damaged"):
        load_vision_language(folder)


def test_without_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match="photomask\\[attention\\]"):
        load_vision_language()
