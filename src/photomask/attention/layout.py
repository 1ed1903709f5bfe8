"""The layout of a prompt: which token belongs to which image."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from photomask.errors import LayoutError


class TokenKind(enum.IntEnum):
    """The kind of a token. START and END are the delimiters directly before and behind an image."""

    PADDING = 0
    TEXT = 1
    START = 2
    IMAGE = 3
    END = 4


@dataclass(frozen=True)
class PromptLayout:
    """The layout of a batch of prompts, as tensors on one device.

    `PromptLayout.of`, `of_spans` and `stack` make it, and so does
    `photomask.attention.layout_of` from token ids. Positions are places in the sequence, including
    padding.

    Attributes:
        kind: int8 [B, L], the `TokenKind` of each token.
        image: int32 [B, L], the number of the image that a token or delimiter belongs to, counted
            from 0 in each prompt; -1 for text and padding.
        first: int32 [B, L], the position of the first token of a token's image; 0 outside images.
            It is negative if a `tail` has cut off that first token.
        stop: int32 [B, L], the position behind the last token of a token's image; 0 outside images.
        ordinal: int32 [B, L], the number of earlier tokens that are not padding.
    """

    kind: Tensor
    image: Tensor
    first: Tensor
    stop: Tensor
    ordinal: Tensor

    @classmethod
    def of(cls, kind: Tensor, image: Tensor) -> PromptLayout:
        """Makes a layout from kinds and image numbers, and checks it.

        Args:
            kind: int8 [B, L], the `TokenKind` of each token.
            image: int32 [B, L], numbers that grow from 0 in each prompt; -1 for text and padding.

        Raises:
            LayoutError: the shapes differ, kinds and image numbers disagree, the tokens of an image
                are not contiguous, an image number has no token, a delimiter does not touch its
                image, or padding separates two tokens.
        """
        if kind.ndim != 2 or kind.shape != image.shape:
            raise LayoutError(
                f"kind and image must both have the shape [batch, tokens], got {list(kind.shape)} "
                f"and {list(image.shape)}"
            )
        kind, image = kind.to(torch.int8), image.to(torch.int32)
        inside = kind == TokenKind.IMAGE
        positions = torch.arange(kind.shape[1], device=kind.device, dtype=torch.int32)
        images = int(image.max()) + 1 if image.numel() else 0
        first, stop = _ends(image, inside, positions, max(images, 1))
        real = (kind != TokenKind.PADDING).to(torch.int32)
        ordinal = (real.cumsum(1) - real).to(torch.int32)
        layout = cls(kind, image, first, stop, ordinal)
        _check(layout, images)
        return layout

    @classmethod
    def of_spans(
        cls,
        tokens: int,
        images: Sequence[tuple[int, int]],
        *,
        delimited: bool,
        device: torch.device | str = "cpu",
    ) -> PromptLayout:
        """Makes the layout of one prompt from the places of its images.

        Args:
            tokens: the number of tokens of the prompt.
            images: the position of the first token of each image and the position behind its last
                one, without its delimiters, in the order of the prompt.
            delimited: whether the tokens directly before and behind each image are its delimiters.
                If not, the prompt has no delimiters.
            device: the device of the layout.

        Raises:
            LayoutError: a span is empty, leaves the prompt, or touches the span or the delimiters
                before it.
        """
        kind = torch.full((1, tokens), int(TokenKind.TEXT), dtype=torch.int8, device=device)
        image = torch.full((1, tokens), -1, dtype=torch.int32, device=device)
        around, free = int(delimited), 0
        for number, (first, stop) in enumerate(images):
            if not free + around <= first < stop <= tokens - around:
                raise LayoutError(
                    f"image {number} was given the tokens from {first} to {stop}, but it must lie "
                    f"between {free + around} and {tokens - around} and hold at least one token"
                )
            kind[:, first - around : first] = int(TokenKind.START)
            kind[:, first:stop] = int(TokenKind.IMAGE)
            kind[:, stop : stop + around] = int(TokenKind.END)
            image[:, first - around : stop + around] = number
            free = stop + around
        return cls.of(kind, image)

    @classmethod
    def stack(cls, layouts: Sequence[PromptLayout], *, left: bool = True) -> PromptLayout:
        """Makes one batch of several layouts of whole prompts, padded to the longest.

        Args:
            layouts: the layouts, on one device.
            left: whether the padding stands before the tokens, as generation needs it, or behind.

        Raises:
            LayoutError: there are no layouts, one is a `tail`, or padding would separate tokens.
        """
        if not layouts:
            raise LayoutError("a batch needs at least one layout, got none")
        tokens = max(layout.tokens for layout in layouts)
        kinds, images = [], []
        for layout in layouts:
            layout._check_whole("stack")
            missing = tokens - layout.tokens
            sides = (missing, 0) if left else (0, missing)
            kinds.append(pad(layout.kind, sides, value=int(TokenKind.PADDING)))
            images.append(pad(layout.image, sides, value=-1))
        return cls.of(torch.cat(kinds), torch.cat(images))

    @property
    def batch(self) -> int:
        """The number of prompts."""
        return self.kind.shape[0]

    @property
    def tokens(self) -> int:
        """The number of tokens of every prompt, including padding."""
        return self.kind.shape[1]

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.kind.device

    @property
    def positions(self) -> Tensor:
        """The positions 0 … L-1, int32 [L]."""
        return torch.arange(self.tokens, device=self.device, dtype=torch.int32)

    @property
    def offset(self) -> Tensor:
        """The place of each token inside its image, int32 [B, L]; a huge number outside images."""
        inside = self.kind == TokenKind.IMAGE
        outside = torch.iinfo(torch.int32).max
        return torch.where(inside, self.positions - self.first, outside)

    @property
    def image_counts(self) -> list[int]:
        """The number of images of each prompt. Reading it waits for the device."""
        if not self.tokens:
            return [0] * self.batch
        return (self.image.amax(1) + 1).tolist()

    def tail(self, start: int) -> PromptLayout:
        """Returns the layout of the tokens from `start` on. Positions count from there.

        The tokens keep their kinds, images and ordinals. If leading tokens are cut off, no other
        tokens become leading ones.
        """
        if start == 0:
            return self
        inside = self.kind[:, start:] == TokenKind.IMAGE
        return PromptLayout(
            kind=self.kind[:, start:],
            image=self.image[:, start:],
            first=torch.where(inside, self.first[:, start:] - start, 0),
            stop=torch.where(inside, self.stop[:, start:] - start, 0),
            ordinal=self.ordinal[:, start:],
        )

    def keep(self, kept: Tensor) -> PromptLayout:
        """Returns the layout after tokens were removed, as token pruning does.

        Images shrink to their remaining tokens. An image of which none remains is no image any
        more: its delimiters become text, and later images count one less. Positions, and the
        tokens that lead a prompt, are counted among the remaining tokens.

        Args:
            kept: bool [B, L], true for the tokens that remain. Every prompt keeps the same number.

        Raises:
            LayoutError: `kept` has another shape or dtype, the prompts keep different numbers of
                tokens, padding would separate tokens, or this layout is a `tail`.
        """
        self._check_whole("keep")
        if kept.shape != self.kind.shape or kept.dtype != torch.bool:
            raise LayoutError(
                f"the kept tokens must be bool {list(self.kind.shape)}, [batch, tokens], got "
                f"{kept.dtype} {list(kept.shape)}"
            )
        kept = kept.to(self.device)
        counts = kept.sum(1).tolist()
        if len(set(counts)) > 1:
            raise LayoutError(
                f"the prompts keep {counts} tokens, but a batch has one length; keep padding, or "
                "call keep for each prompt and join the results by PromptLayout.stack"
            )
        kind, image = (values[kept].view(self.batch, -1) for values in (self.kind, self.image))
        return PromptLayout.of(*_renumbered(kind, image))

    def _check_whole(self, action: str) -> None:
        """Raises LayoutError unless the layout begins where its prompts begin."""
        if bool(self.ordinal[:, :1].any()) or bool((self.first < 0).any()):
            raise LayoutError(
                f"{action} needs the layout of whole prompts, but the first tokens of this one "
                "were cut off by tail"
            )

    def describe(self, row: int) -> str:
        """Returns one prompt as text, such as `4 padding, 31 text, 49 image 0, 2 text`."""
        return ", ".join(_runs(self.kind[row].tolist(), self.image[row].tolist()))


def _renumbered(kind: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Counts the images that have tokens from 0 in each prompt, and makes all others text.

    Args:
        kind: int8 [B, L], the kinds.
        image: int32 [B, L], image numbers with gaps.
    """
    owned = image >= 0
    most = int(image.max()) + 1 if image.numel() else 0
    bucket = torch.where(owned, image, most).to(torch.int64)
    inside = (kind == TokenKind.IMAGE).to(torch.int32)
    sizes = inside.new_zeros(len(image), most + 1).scatter_add(1, bucket, inside)
    alive = (sizes > 0).to(torch.int32)
    number = (alive.cumsum(1) - 1).to(torch.int32)
    lost = owned & (alive.gather(1, bucket) == 0)
    kind = torch.where(lost, int(TokenKind.TEXT), kind)
    return kind, torch.where(owned & ~lost, number.gather(1, bucket), -1)


def _ends(image: Tensor, inside: Tensor, positions: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """Returns the first position and the stop of the image of every token, 0 outside images."""
    batch, tokens = image.shape
    bucket = torch.where(inside & (image >= 0), image, images).to(torch.int64)
    places = positions.expand(batch, tokens)
    starts = torch.full((batch, images + 1), tokens, dtype=torch.int32, device=image.device)
    starts = starts.scatter_reduce(1, bucket, places, "amin")
    stops = torch.zeros_like(starts).scatter_reduce(1, bucket, places + 1, "amax")
    first = torch.where(inside, starts.gather(1, bucket), 0)
    stop = torch.where(inside, stops.gather(1, bucket), 0)
    return first, stop


def _check(layout: PromptLayout, images: int) -> None:
    """Raises LayoutError unless images are contiguous runs that their delimiters touch."""
    kind, image = layout.kind, layout.image
    inside = kind == TokenKind.IMAGE
    counts = torch.zeros(layout.batch, images + 1, dtype=torch.int32, device=layout.device)
    bucket = torch.where(inside & (image >= 0), image, images).to(torch.int64)
    counts = counts.scatter_add(1, bucket, inside.to(torch.int32))
    length = counts.gather(1, bucket)
    torn = (inside & (layout.stop - layout.first != length)).any(1)
    numbers = torch.arange(images, device=layout.device)
    known = numbers < (image.amax(1, keepdim=True) + 1 if layout.tokens else 0)
    empty = (known & (counts[:, :images] == 0)).any(1)
    owned = image >= 0
    start, end = kind == TokenKind.START, kind == TokenKind.END
    mislabelled = ((inside | start | end) != owned).any(1)
    following, preceding = image.roll(-1, 1), image.roll(1, 1)
    following[:, -1:], preceding[:, :1] = (
        -1,
        -1,
    )  # nothing comes behind the last or before the first
    loose = (start & ((following != image) | ~inside.roll(-1, 1))).any(1)
    loose |= (end & ((preceding != image) | ~inside.roll(1, 1))).any(1)
    real = kind != TokenKind.PADDING
    follows_padding = torch.cat([~torch.zeros_like(real[:, :1]), ~real[:, :-1]], 1)
    holes = (real & follows_padding).sum(1) > 1
    for problem, found in (
        ("image numbers and token kinds disagree", mislabelled),
        ("the tokens of an image are not contiguous", torn),
        ("an image number has no token", empty),
        ("a delimiter does not touch the tokens of its image", loose),
        ("padding stands between two tokens", holes),
    ):
        rows = found.nonzero()[:, 0].tolist()
        if rows:
            raise LayoutError(f"prompt {rows[0]}: {problem}: {layout.describe(rows[0])}")


def _runs(kinds: Sequence[int], images: Sequence[int]) -> list[str]:
    """Returns a text for each run of tokens of the same kind and image."""
    names = {kind: kind.name.lower() for kind in TokenKind}
    runs: list[str] = []
    start = 0
    for place in range(1, len(kinds) + 1):
        changed = place == len(kinds) or (kinds[place], images[place]) != (
            kinds[start],
            images[start],
        )
        if changed:
            length, kind = place - start, TokenKind(kinds[start])
            number = f" {images[start]}" if images[start] >= 0 else ""
            runs.append(f"{length} {names[kind]}{number}")
            start = place
    return runs
