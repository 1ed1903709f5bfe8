"""What calibration found, prompt by prompt and head by head; every plan follows from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from photomask.arrays import tensor_file
from photomask.attention.identity import ModelIdentity
from photomask.attention.measuring import MASSES, SPARSE
from photomask.attention.patterns import Pattern, SinkRule
from photomask.attention.probing import PROBED
from photomask.documents import Document, write_file
from photomask.errors import DataError, DocumentError
from photomask.report import Shown, Table

_METADATA = "photomask"
_LARGEST_SHARE = 1.001
"""Shares are sums of float32 numbers, which may come out above 1 by their rounding."""

_SHAPES = {
    "mass": ("prompts", "layers", "heads", len(MASSES)),
    "recall": ("prompts", "layers", "heads", len(SPARSE)),
    "tail_recall": ("prompts", "layers", "heads", len(SPARSE)),
    "error": ("prompts", "layers", "heads", len(SPARSE)),
    "norm": ("prompts", "layers", "heads"),
    "projected_error": ("prompts", "layers", "heads", len(SPARSE)),
    "projected_norm": ("prompts", "layers", "heads"),
    "layer_norm": ("prompts", "layers"),
    "change": ("prompts", "layers"),
    "pairs": ("prompts", "layers", len(Pattern)),
}

_Count = Annotated[int, Field(ge=0)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class PromptRecord(Document):
    """One measured prompt.

    Attributes:
        index: its place among all prompts that calibration was given, skipped ones counted.
        digest: SHA-256 of the model's inputs.
        task: of the prompt.
        images: of the prompt.
        tokens: of the prompt.
        rows: image rows that were measured.
        probed: whether each layer was also tried alone at its cheapest.
    """

    index: _Count
    digest: _Digest
    task: str
    images: _Count
    tokens: _Count
    rows: _Count
    probed: bool


class _Header(Document):
    """What stands beside the tensors in a file."""

    schema_version: Literal[1] = 1
    model: ModelIdentity
    sinks: SinkRule
    prompts: tuple[PromptRecord, ...]
    skipped: _Count
    content_sha256: str


@dataclass(frozen=True, eq=False)
class AttentionStatistics(Shown):
    """What calibration measured.

    The tensors are float32 on the CPU, but for `pairs`; P prompts in the order of their indices, L
    layers of the text tower, H heads. Last axes `[4]` follow `measuring.MASSES`: sinks, text, own
    image, other images; last axes `[3]` the sparse patterns: sink, intra-image, both. What each
    number means is told by `measuring.LayerMeasurement`.

    Attributes:
        model: that was measured.
        sinks: which tokens were sinks, and the diagonal block.
        prompts: that were measured.
        skipped: prompts that were not, because they have fewer than two images.
        mass: [P, L, H, 4] mean attention mass.
        recall: [P, L, H, 3] mean mass that a pattern keeps.
        tail_recall: [P, L, H, 3] mass that a pattern keeps on all but 5 % of the rows.
        error: [P, L, H, 3] squared error of the head's output.
        norm: [P, L, H] squared norm of it.
        projected_error: [P, L, H, 3] squared error of the head's part of the layer's output.
        projected_norm: [P, L, H] squared norm of it.
        layer_norm: [P, L] squared norm of the layer's output.
        change: [P, L] `probing.logit_change` of the first token of the answer with all heads of
            this layer alone at their cheapest; 0 for prompts that were not probed.
        pairs: int64 [P, L, 4], visible pairs of query and key of a head, by `Pattern`.

    Raises:
        DataError: no prompt, or a number that is not finite (names prompt, layer and head); prompts
            out of order, a share above 1, or a pattern of more pairs than there are.
    """

    model: ModelIdentity
    sinks: SinkRule
    prompts: tuple[PromptRecord, ...]
    skipped: int
    mass: Tensor
    recall: Tensor
    tail_recall: Tensor
    error: Tensor
    norm: Tensor
    projected_error: Tensor
    projected_norm: Tensor
    layer_norm: Tensor
    change: Tensor
    pairs: Tensor

    def __post_init__(self) -> None:
        """Holds shapes, dtypes and finite numbers."""
        if not self.prompts:
            raise DataError("statistics need at least one measured prompt")
        sizes = {
            "prompts": len(self.prompts),
            "layers": self.model.layers,
            "heads": self.model.heads,
        }
        for name, tensor in self.tensors().items():
            shape = [sizes.get(axis, axis) for axis in _SHAPES[name]]
            dtype = torch.int64 if name == "pairs" else torch.float32
            if list(tensor.shape) != shape or tensor.dtype != dtype:
                raise DataError(
                    f"statistics {name}: expected {dtype} {shape}, got {tensor.dtype} "
                    f"{list(tensor.shape)}"
                )
        wrong = [
            (place[0], place[1], _SHAPES[name][2:3] != ("heads",), place, name)
            for name, tensor in self.tensors().items()
            for place in (~tensor.isfinite() | (tensor < 0)).nonzero()[:1].tolist()
        ]
        if wrong:  # what overflows in a head is no number in its layer and the next: tell the first
            *_, has_no_head, place, name = min(wrong)
            raise DataError(self._describe_wrong(name, place, has_no_head))
        self._check_consistent()

    def _check_consistent(self) -> None:
        """Holds what every measurement keeps: order of prompts, shares, pairs of patterns."""
        indices = [record.index for record in self.prompts]
        if indices != sorted(set(indices)):
            raise DataError(f"statistics: the prompts {indices[:8]} are not in order, each once")
        for name in ("mass", "recall", "tail_recall"):
            if (most := float(self.tensors()[name].max())) > _LARGEST_SHARE:
                raise DataError(f"statistics {name}: found {most:.6g}, a share is at most 1")
        dense = self.pairs[..., Pattern.DENSE, None]
        if bool((self.pairs > dense).any()):
            raise DataError("statistics pairs: a sparse pattern has more pairs than the dense one")

    def _describe_wrong(self, name: str, place: list[int], has_no_head: bool) -> str:
        """Says where a number is that cannot be."""
        found = self.tensors()[name][tuple(place)].item()
        record = self.prompts[place[0]]
        head = "" if has_no_head else f", head {place[2]}"
        return (
            f"statistics {name}: prompt {record.index} ({record.task!r}), layer {place[1]}{head}: "
            f"found {found}, expected a finite number that is not negative; the model's attention "
            "overflows there, so load the model as bfloat16 or float32, or leave the prompt out"
        )

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors by name."""
        return {name: getattr(self, name) for name in _SHAPES}

    @classmethod
    def merge(cls, parts: Iterable[AttentionStatistics]) -> AttentionStatistics:
        """Joins statistics of different prompts, in the order of their indices.

        Raises:
            DataError: no part, parts of different models or sinks, or a prompt twice.
        """
        parts = list(parts)
        if not parts:
            raise DataError("there are no statistics to merge")
        first = parts[0]
        for part in parts:
            differences = first.model.differences(part.model)
            if differences:
                raise DataError(f"statistics of different models: {'; '.join(differences)}")
            if first.sinks != part.sinks:
                raise DataError(f"statistics of different sinks: {first.sinks}, {part.sinks}")
        records = [record for part in parts for record in part.prompts]
        order = sorted(range(len(records)), key=lambda place: records[place].index)
        indices = [records[place].index for place in order]
        if len(set(indices)) < len(indices):
            twice = next(a for a, b in pairwise(indices) if a == b)
            raise DataError(f"prompt {twice} is in the statistics twice")
        joined = {
            name: torch.cat([part.tensors()[name] for part in parts])[order] for name in _SHAPES
        }
        return cls(
            first.model,
            first.sinks,
            tuple(records[place] for place in order),
            sum(part.skipped for part in parts),
            **joined,
        )

    def check(self, model: Any) -> None:
        """Holds that a model is the one that was measured.

        Args:
            model: of transformers, or its `ModelIdentity`.

        Raises:
            PlanError: another architecture, other weights or another revision.
        """
        self.model.check(model, "the measurement", "Calibrate this model")

    def relabelled(self, index: int, task: str, probed: bool) -> AttentionStatistics:
        """Returns the statistics of one prompt as if it had come at another place."""
        record = self.prompts[0].model_copy(update={"index": index, "task": task, "probed": probed})
        change = self.change if probed else torch.zeros_like(self.change)
        return dataclasses.replace(self, prompts=(record,), change=change)

    def relative_error(self) -> Tensor:
        """Returns how much of a layer's output each head loses by each pattern, [L, H, 3].

        e = mean over prompts of  sum over rows of |W_h (o_pattern - o_dense)|²
                                  / sum over rows of |sum over heads of W_h o_dense|²

        Float64. Dividing by the layer's whole attention output makes heads of one layer add up and
        layers comparable: a head whose output the others outweigh counts little, and it does not
        matter in which units a layer writes. Every prompt counts alike, however long.
        """
        return self._relative_errors().mean(0)

    def sensitivity(self) -> Tensor:
        """Returns how much the answer changes for each unit of a layer's relative error, [L].

        s = sum over probed prompts of change / sum over probed prompts, heads of e[PROBED]

        Float64, 0 for a layer in which the probe loses nothing. Nothing of the last layer's image
        rows reaches an answer, so that it is 0 there; early layers weigh most.

        Raises:
            DataError: no prompt was probed.
        """
        probed = [place for place, record in enumerate(self.prompts) if record.probed]
        if not probed:
            raise DataError("no prompt of these statistics was probed; calibrate again")
        change = self.change[probed].double().sum(0)
        error = self._relative_errors()[probed][..., SPARSE.index(PROBED)].sum((0, 2))
        return torch.where(error > 0, change / error.where(error > 0, 1.0), 0.0)

    def lost_output(self) -> Tensor:
        """Predicts how much of the answer each head loses by each pattern: s * e, [L, H, 3]."""
        return self.sensitivity()[:, None, None] * self.relative_error()

    def _relative_errors(self) -> Tensor:
        """Of every prompt, float64 [P, L, H, 3]."""
        norm = self.layer_norm.double()[:, :, None, None]
        return self.projected_error.double() / norm.where(norm > 0, torch.inf)

    def content_hash(self) -> str:
        """Returns the SHA-256 of everything that was measured."""
        body = self._header("").model_dump(mode="json", exclude={"content_sha256"})
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
        for tensor in self.tensors().values():
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _header(self, content_sha256: str) -> _Header:
        return _Header(
            model=self.model,
            sinks=self.sinks,
            prompts=self.prompts,
            skipped=self.skipped,
            content_sha256=content_sha256,
        )

    def save(self, path: Path) -> None:
        """Writes one safetensors file.

        Raises:
            ExportError: the disk refused it.
        """
        from safetensors.torch import save

        metadata = {_METADATA: self._header(self.content_hash()).model_dump_json()}
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors().items()}
        write_file(path, save(tensors, metadata))

    @classmethod
    def load(cls, path: Path) -> AttentionStatistics:
        """Reads what `save` wrote.

        Raises:
            DocumentError: the file is absent, truncated, altered or of another schema.
        """
        with tensor_file(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if set(metadata) != {_METADATA} or set(tensors) != set(_SHAPES):
            raise DocumentError(
                f"{path}: holds {sorted(tensors)}, which are no attention statistics; expected "
                f"{sorted(_SHAPES)}"
            )
        header = _Header.parse(metadata[_METADATA], str(path))
        try:
            found = cls(header.model, header.sinks, header.prompts, header.skipped, **tensors)
        except DataError as error:
            raise DocumentError(f"{path}: {error}") from error
        if found.content_hash() != header.content_sha256:
            raise DocumentError(
                f"{path}: field content_sha256: the statistics were altered after they were "
                "saved; calibrate again"
            )
        return found

    def shown(self) -> Table:
        """Returns a row for each pattern, and what all heads together look at."""
        images = [record.images for record in self.prompts]
        tokens = [record.tokens for record in self.prompts]
        pairs = self.pairs.sum((0, 1)).tolist()
        loss = self.lost_output().sum((0, 1)).sqrt().tolist()
        patterns = [("all heads", "mass kept", "95 % of rows", "output lost", "pairs")]
        for place, pattern in enumerate(SPARSE):
            patterns.append(
                (
                    pattern.label,
                    f"{self.recall[..., place].mean():.3f}",
                    f"{self.tail_recall[..., place].mean():.3f}",
                    f"{loss[place]:.3f}",
                    f"{pairs[pattern] / pairs[Pattern.DENSE]:.3f}",
                )
            )
        weights = " ".join(f"{weight:.2g}" for weight in self.sensitivity().tolist())
        mass = zip(MASSES, self.mass.mean((0, 1, 2)).tolist(), strict=True)
        title = (
            f"statistics of {self.model.model_type}, {self.model.layers} layers x "
            f"{self.model.heads} heads, weights {self.model.fingerprint[:12]}"
        )
        notes = [
            f"{len(self.prompts)} prompts of {min(images)} to {max(images)} images and "
            f"{min(tokens)} to {max(tokens)} tokens, {self.skipped} skipped",
            "image rows look at " + ", ".join(f"{name} {share:.3f}" for name, share in mass),
            f"the answer's sensitivity, by layer: {weights}",
        ]
        return Table(title, patterns, notes)
