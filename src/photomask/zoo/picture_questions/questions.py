"""Questions about several Fashion-MNIST pictures, with answers that are right by construction.

A prompt shows numbered pictures and asks one question of one of six tasks. The answer is one word
or one number, and a single token of the shipped model's tokenizer.

Every prompt has its own random generator, which is seeded with the seed, the task and the index of
the prompt. The same arguments therefore give the same prompts on every machine, and a smaller set
of prompts is a prefix of a larger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from photomask.dependencies import OptionalPackage
from photomask.errors import UsageError
from photomask.prompts import Prompt
from photomask.zoo import fashion_mnist

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TASKS = ("name", "find", "count", "compare", "odd", "order")
"""The tasks, in order: What does picture i show? Which picture shows X? How many pictures show X?
Do pictures i and j show the same kind? Which picture differs from all others? Which of X and Y
comes first?"""

KINDS = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)
"""The word for each label in questions and answers."""

QUESTIONS = {
    "name": "What does picture {first} show?",
    "find": "Which picture shows a {first}?",
    "count": "How many pictures show a {first}?",
    "compare": "Do pictures {first} and {second} show the same kind?",
    "odd": "Which picture is the odd one?",
    "order": "Which comes first, a {first} or a {second}?",
}
"""The text of each task's question."""

LEAST_PICTURES = 2
"""The fewest pictures of a prompt. The task `odd` needs one more."""

MOST_PICTURES = 16
"""The most pictures of a prompt."""

MOST_COUNTED = 6
"""The largest answer to a question of the task `count`."""


@dataclass(frozen=True)
class Question:
    """A question about pictures, of which only the labels are chosen so far.

    Attributes:
        task: the task, one of `TASKS`.
        labels: the label of each picture, in order.
        text: the text of the question.
        answer: the right answer.
    """

    task: str
    labels: tuple[int, ...]
    text: str
    answer: str


def held_out_prompts(
    count_per_task: int, pictures: int | None = None, seed: int = 0
) -> list[Prompt]:
    """Returns prompts about pictures of the test set, which the model has not seen in training.

    Args:
        count_per_task: the number of prompts of each task.
        pictures: the number of pictures of every prompt, 2..16; None for random numbers. With 2
            there are no prompts of the task `odd`.
        seed: the seed. Another seed gives other prompts.

    Returns:
        The prompts, in which the tasks take turns.

    Raises:
        UsageError: a number is out of range.
        MissingDependencyError: Pillow is not installed.
    """
    _check_pictures(pictures)
    if count_per_task < 1:
        raise UsageError(
            f"held_out_prompts({count_per_task}): ask for at least one prompt for each task"
        )
    tasks = [task for task in TASKS if pictures is None or pictures >= _least_pictures(task)]
    turns = [(task, index) for index in range(count_per_task) for task in tasks]
    return [_prompt(_test_pictures(), task, pictures, seed, index) for task, index in turns]


def calibration_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """Returns prompts about the 1,024 shipped training pictures, each with a random number of them.

    Args:
        count: the number of prompts. The tasks take turns.
        seed: the seed. Another seed gives other prompts.

    Raises:
        UsageError: `count` is below 1.
        MissingDependencyError: Pillow is not installed.
    """
    if count < 1:
        raise UsageError(f"calibration_prompts({count}): ask for at least one prompt")
    pictures = _training_pictures()
    turns = [(TASKS[index % len(TASKS)], index // len(TASKS)) for index in range(count)]
    return [_prompt(pictures, task, None, seed, index) for task, index in turns]


def chance(task: str, pictures: int) -> float:
    """Returns the share of answers that a random guess among the possible answers gets right.

    Args:
        task: the task, one of `TASKS`.
        pictures: the number of pictures of the prompt.

    Raises:
        UsageError: there is no such task.
    """
    possible = {
        "name": len(KINDS),
        "find": pictures,
        "count": min(pictures, MOST_COUNTED),
        "compare": 2,
        "odd": pictures,
        "order": 2,
    }
    if task not in possible:
        raise UsageError(f"there is no task {task!r}; the tasks are: {', '.join(TASKS)}")
    return 1 / possible[task]


def draw_question(task: str, pictures: int, generator: Random) -> Question:
    """Returns a random question, with the labels of its pictures.

    The answers are balanced: counts and positions are drawn uniformly, and so are yes and no.

    Args:
        task: the task, one of `TASKS`.
        pictures: the number of pictures, 2..16, and at least 3 for the task `odd`.
        generator: the source of the random choices.

    Raises:
        UsageError: there is no such task, or the number of pictures is out of range.
    """
    if task not in TASKS:
        raise UsageError(f"there is no task {task!r}; the tasks are: {', '.join(TASKS)}")
    _check_pictures(pictures)
    if pictures < _least_pictures(task):
        raise UsageError(
            f"the odd one among {pictures} pictures is not defined; ask for at least 3 pictures"
        )
    first, second = generator.sample(range(len(KINDS)), 2)
    one, other = generator.sample(range(pictures), 2)
    labels = [generator.randrange(len(KINDS)) for _ in range(pictures)]
    words = {"first": KINDS[first], "second": KINDS[second]}
    if task == "name":
        words["first"], answer = str(one + 1), KINDS[labels[one]]
    elif task == "find":
        labels = _labels_without(pictures, {first}, generator)
        labels[one], answer = first, str(one + 1)
    elif task == "count":
        counted = generator.randint(1, min(pictures, MOST_COUNTED))
        labels = _labels_without(pictures, {first}, generator)
        for position in generator.sample(range(pictures), counted):
            labels[position] = first
        answer = str(counted)
    elif task == "compare":
        same = generator.random() < 0.5
        labels[one], labels[other] = first, first if same else second
        words = {"first": str(one + 1), "second": str(other + 1)}
        answer = "yes" if same else "no"
    elif task == "odd":
        labels = [first] * pictures
        labels[one], answer = second, str(one + 1)
    else:
        labels = _labels_without(pictures, {first, second}, generator)
        labels[one], labels[other] = first, second
        answer = KINDS[first] if one < other else KINDS[second]
    return Question(task, tuple(labels), QUESTIONS[task].format(**words), answer)


def build_prompt(question: Question, pictures: Sequence[Image]) -> Prompt:
    """Returns the prompt of a question, with a number before each picture."""
    content: list[str | Image] = []
    for number, picture in enumerate(pictures, start=1):
        content += [f"Picture {number}:", picture]
    return Prompt((*content, question.text), question.answer, question.task)


def _labels_without(pictures: int, excluded: set[int], generator: Random) -> list[int]:
    allowed = [label for label in range(len(KINDS)) if label not in excluded]
    return [generator.choice(allowed) for _ in range(pictures)]


def _least_pictures(task: str) -> int:
    return LEAST_PICTURES + (task == "odd")


def _check_pictures(pictures: int | None) -> None:
    if pictures is not None and not LEAST_PICTURES <= pictures <= MOST_PICTURES:
        raise UsageError(
            f"a prompt has {LEAST_PICTURES} to {MOST_PICTURES} pictures, but {pictures} were asked "
            "for"
        )


class _Pictures:
    """The pictures of one data set, by label."""

    def __init__(self, images: Tensor, labels: Tensor):
        scaled = images[:, 0] * fashion_mnist.STANDARD_DEVIATION + fashion_mnist.MEAN
        self.pixels = (scaled * 255).round().byte().numpy()
        self.of_label = [np.flatnonzero(labels.numpy() == label) for label in range(len(KINDS))]

    def choose(self, labels: Sequence[int], generator: Random) -> list[Image]:
        """Returns a random picture for every label, and no picture twice."""
        chosen: list[int] = []
        for label in labels:
            while (index := int(generator.choice(self.of_label[label]))) in chosen:
                pass
            chosen.append(index)
        return [self._image(index) for index in chosen]

    def _image(self, index: int) -> Image:
        with OptionalPackage("pillow", "zoo", "picture_questions"):
            from PIL import Image
        return Image.fromarray(self.pixels[index]).convert("RGB")


@lru_cache(maxsize=1)
def _test_pictures() -> _Pictures:
    return _Pictures(*fashion_mnist.test_set())


@lru_cache(maxsize=1)
def _training_pictures() -> _Pictures:
    return _Pictures(*fashion_mnist.calibration_set())


def _prompt(source: _Pictures, task: str, pictures: int | None, seed: int, index: int) -> Prompt:
    generator = Random(f"{seed}/{task}/{index}")
    number = pictures or generator.randint(_least_pictures(task), MOST_PICTURES)
    question = draw_question(task, number, generator)
    return build_prompt(question, source.choose(question.labels, generator))
