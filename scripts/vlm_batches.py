"""Batches of questions, drawn on the training device.

A batch holds sequences of one layout: the pictures of a prompt, then many questions about them,
each of which sees the pictures and itself, at the positions that it would have alone. So every
question is trained exactly as it is asked, and the pictures are read only once.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from photomask.zoo.picture_questions import questions
from vlm_model import MERGE_SIZE, PATCH_SIZE, PICTURE_SIZE, TOKENS_PER_PICTURE

SLOTS = (
    ("name",) * 4 + ("find",) * 4 + ("count",) * 3 + ("compare",) * 4 + ("odd",) + ("order",) * 4
)
"""The questions about every set of pictures."""

IGNORED = -100
"""Stands for the answer of a question that makes no sense for its pictures."""


@dataclass(frozen=True)
class Layout:
    """Where what stands in the sequences of a batch.

    Attributes:
        tokens: [L], with placeholders where sequences differ.
        positions: [3, L], of the rotary embedding: time, height, width.
        prefix: how many tokens the questions share.
        seen: [L - prefix, L], what a token of a question sees.
        images: [pictures * 49], where the tokens of the pictures are.
        first: for each slot, where its first word or number is; 0 for none.
        second: likewise.
        answers: for each slot, where its answer is.
    """

    tokens: Tensor
    positions: Tensor
    prefix: int
    seen: Tensor
    images: Tensor
    first: Tensor
    second: Tensor
    answers: Tensor

    @cached_property
    def bias(self) -> Tensor:
        """Returns what is added to the attention scores of the questions."""
        zero = torch.zeros(self.seen.shape, device=self.seen.device)
        return zero.masked_fill(~self.seen, float("-inf"))


def make_layout(tokenizer: Any, pictures: int, slots: tuple[str, ...]) -> Layout:
    """Lays out the pictures and one question a slot."""
    encode = tokenizer.encode
    tokens, places = encode("<|im_start|>user\n"), []
    grid = PICTURE_SIZE // PATCH_SIZE // MERGE_SIZE
    positions = [(index,) * 3 for index in range(len(tokens))]
    images: list[int] = []
    for number in range(1, pictures + 1):
        head = encode(f"Picture {number}:<|vision_start|>")
        start = positions[-1][0] + 1
        positions += [(start + index,) * 3 for index in range(len(head))]
        start += len(head)
        images += range(len(tokens) + len(head), len(tokens) + len(head) + TOKENS_PER_PICTURE)
        positions += [(start, start + i, start + j) for i in range(grid) for j in range(grid)]
        positions += [(start + grid,) * 3]
        tokens += head + encode("<|image_pad|>") * TOKENS_PER_PICTURE + encode("<|vision_end|>")
    prefix, start = len(tokens), positions[-1][0] + 1
    ends = []
    for task in slots:
        base = len(tokens)
        words = {"first": 0, "second": 0}
        for word, piece in _pieces(questions.QUESTIONS[task]):
            if word:
                words[word] = len(tokens)
            tokens += encode(piece)
        tokens += encode("<|im_end|>\n<|im_start|>assistant\n")
        places.append((words["first"], words["second"], len(tokens)))
        tokens += encode("no")
        positions += [(start + index,) * 3 for index in range(len(tokens) - base)]
        ends.append((base, len(tokens)))
    filling = -len(tokens) % 8
    ends += [(len(tokens) + index, len(tokens) + index + 1) for index in range(filling)]
    tokens += [tokenizer.pad_token_id] * filling
    positions += [(0, 0, 0)] * filling
    seen = torch.zeros(len(tokens) - prefix, len(tokens), dtype=torch.bool)
    seen[:, :prefix] = True
    for begin, end in ends:
        square = torch.ones(end - begin, end - begin, dtype=torch.bool).tril()
        seen[begin - prefix : end - prefix, begin:end] = square
    first, second, answers = torch.tensor(places).T
    return Layout(
        torch.tensor(tokens), torch.tensor(positions).T, prefix, seen, torch.tensor(images),
        first, second, answers,
    )  # fmt: skip


def _pieces(text: str) -> list[tuple[str, str]]:
    """Cuts a question at its placeholders: name of the placeholder or nothing, and its text."""
    pieces = []
    for index, part in enumerate(text.replace("}", "{").split("{")):
        pieces.append((part, "1") if index % 2 else ("", part))
    return pieces


def to_device(layout: Layout, device: torch.device) -> Layout:
    """Moves the tensors of a layout."""
    moved = {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in vars(layout).items()
    }
    return Layout(**moved)


class Vocabulary:
    """The tokens of the answers as tensors: numbers, kinds, no and yes."""

    def __init__(self, tokenizer: Any, device: torch.device):
        def tokens(words: list[str]) -> Tensor:
            return torch.tensor(tokenizer.convert_tokens_to_ids(words), device=device)

        self.numbers = tokens([str(n) for n in range(questions.MOST_PICTURES + 1)])
        self.kinds = tokens(list(questions.KINDS))
        self.no_yes = tokens(["no", "yes"])
        self.end = int(tokenizer.eos_token_id)


def draw_labels(count: int, pictures: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Draws sets of labels of several kinds, so that every task finds its questions.

    Returns:
        Labels [count, pictures]; the label that was counted out, or -1; which sets have an odd one.
    """
    kinds = len(questions.KINDS)
    labels = torch.randint(kinds, (count, pictures), device=device)
    rank = torch.rand(count, pictures, device=device).argsort(1).argsort(1)
    target = torch.randint(kinds, (count, 1), device=device)
    number = torch.randint(
        min(pictures, questions.MOST_COUNTED), (count, 1), device=device
    )  # one less
    others = (target + torch.randint(1, kinds, labels.shape, device=device)) % kinds
    counted = torch.where(rank <= number, target, others)
    odd = torch.where(rank == 0, others[:, :1], target)
    pair = torch.where(rank == 0, (labels * (rank == 1)).sum(1, keepdim=True), labels)
    mode = torch.rand(count, 1, device=device)
    odd_share = 0.2 if pictures > 2 else 0.0
    pair_share = 0.2 if pictures > 5 else 0.4
    is_odd = mode < odd_share
    is_counted = (mode >= 0.6) & ~is_odd
    is_pair = (mode < odd_share + pair_share) & ~is_odd & ~is_counted
    labels = torch.where(is_odd, odd, torch.where(is_counted, counted, labels))
    labels = torch.where(is_pair, pair, labels)
    return labels, torch.where(is_counted, target, -1)[:, 0], is_odd[:, 0]


@dataclass(frozen=True)
class Asked:
    """One slot of a batch: words or numbers of the question, and answers or `IGNORED`."""

    first: Tensor
    second: Tensor
    answer: Tensor


class Asker:
    """Draws the questions about sets of labels."""

    def __init__(self, labels: Tensor, target: Tensor, odd: Tensor, vocabulary: Vocabulary):
        self.labels = labels
        self.target = target
        self.is_odd = odd
        self.vocabulary = vocabulary
        self.counts = torch.nn.functional.one_hot(labels, len(questions.KINDS)).sum(1)
        self.rows = torch.arange(len(labels), device=labels.device)

    def ask(self, slot: int, task: str) -> Asked:
        """Asks one question about every set; slots of one task differ in what they draw."""
        first, second, answer, valid = getattr(self, f"_{task}")(slot)
        return Asked(first, second, torch.where(valid, answer, IGNORED))

    def _any_picture(self) -> Tensor:
        return torch.randint(self.labels.shape[1], self.rows.shape, device=self.labels.device)

    def _place(self, kind: Tensor) -> Tensor:
        return (self.labels == kind[:, None]).int().argmax(1)

    def _name(self, slot: int) -> tuple[Tensor, ...]:
        where = self._any_picture()
        answer = self.vocabulary.kinds[self.labels[self.rows, where]]
        number = self.vocabulary.numbers[where + 1]
        return number, number, answer, torch.ones_like(self.is_odd)

    def _find(self, slot: int) -> tuple[Tensor, ...]:
        kind = _pick(self.counts == 1)
        word, valid = self.vocabulary.kinds[kind], (self.counts == 1).any(1)
        return word, word, self.vocabulary.numbers[self._place(kind) + 1], valid

    def _count(self, slot: int) -> tuple[Tensor, ...]:
        kind = _pick(self.counts)
        valid = ~self.is_odd
        if slot == SLOTS.index("count"):
            kind, valid = self.target.clamp(min=0), self.target >= 0
        number = self.counts[self.rows, kind]
        valid = valid & (number <= questions.MOST_COUNTED)
        word = self.vocabulary.kinds[kind]
        answer = self.vocabulary.numbers[number.clamp(max=questions.MOST_COUNTED)]
        return word, word, answer, valid

    def _compare(self, slot: int) -> tuple[Tensor, ...]:
        equal = self.labels[:, :, None] == self.labels[:, None, :]
        equal &= ~torch.eye(self.labels.shape[1], dtype=torch.bool, device=equal.device)
        differs = self.labels[:, :, None] != self.labels[:, None, :]
        same = torch.rand(self.rows.shape, device=equal.device) < 0.5
        partners = torch.where(same[:, None, None], equal, differs)
        one = _pick(partners.any(2))
        other = _pick(partners[self.rows, one])
        numbers = self.vocabulary.numbers
        answer = self.vocabulary.no_yes[same.long()]
        return numbers[one + 1], numbers[other + 1], answer, partners.any(2).any(1)

    def _odd(self, slot: int) -> tuple[Tensor, ...]:
        place = self._place((self.counts == 1).int().argmax(1))
        number = self.vocabulary.numbers[place + 1]
        return number, number, number, self.is_odd

    def _order(self, slot: int) -> tuple[Tensor, ...]:
        alone = self.counts == 1
        one, other = torch.multinomial(alone + 1e-9, 2).T
        kinds = self.vocabulary.kinds
        answer = kinds[torch.where(self._place(one) < self._place(other), one, other)]
        return kinds[one], kinds[other], answer, alone.sum(1) >= 2


def _pick(weights: Tensor) -> Tensor:
    """Draws one column of each row, in proportion to its weight."""
    return torch.multinomial(weights + 1e-9, 1)[:, 0]


def draw_batch(
    layout: Layout, count: int, pictures: int, vocabulary: Vocabulary
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws sequences of one layout.

    Returns:
        Tokens [count, L], labels of the pictures [count, pictures], answers [count, slots].
    """
    labels, target, odd = draw_labels(count, pictures, layout.tokens.device)
    asker = Asker(labels, target, odd, vocabulary)
    tokens = layout.tokens.repeat(count, 1)
    answers = []
    first = layout.first.tolist()
    second = layout.second.tolist()
    places = layout.answers.tolist()
    for slot, task in enumerate(SLOTS):
        asked = asker.ask(slot, task)
        if first[slot]:
            tokens[:, first[slot]] = asked.first
        if second[slot]:
            tokens[:, second[slot]] = asked.second
        tokens[:, places[slot]] = asked.answer.clamp(min=0)
        answers.append(asked.answer)
    return tokens, labels, torch.stack(answers, 1)


class PicturesByLabel:
    """Images on the device, drawn by label."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.images = images[labels.argsort(stable=True)]
        self.counts = torch.bincount(labels, minlength=len(questions.KINDS))
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, labels: Tensor) -> Tensor:
        """Draws an image [1, 28, 28] for every label; labels [...] give [labels.numel(), ...]."""
        flat = labels.flatten()
        share = torch.rand(flat.shape, device=flat.device, dtype=torch.float64)
        return self.images[self.starts[flat] + (share * self.counts[flat]).long()]
