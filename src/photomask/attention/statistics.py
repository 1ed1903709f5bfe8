"""The measurements of a calibration, prompt by prompt and head by head.

Every plan is decided from them.
"""

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
"""The largest value that passes as a share. Rounding can lift a sum of float32 numbers above 1."""

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
        index: the place of the prompt among all prompts of the calibration, including skipped ones.
        digest: the SHA-256 of the model's inputs.
        task: the task of the prompt.
        images: the number of images of the prompt.
        tokens: the number of tokens of the prompt.
        rows: the number of image rows that were measured.
        probed: whether the prompt was also run once for each layer with only that layer sparse.
    """

    index: _Count
    digest: _Digest
    task: str
    images: _Count
    tokens: _Count
    rows: _Count
    probed: bool


class _Header(Document):
    """The metadata that a file holds beside the tensors."""

    schema_version: Literal[1] = 1
    model: ModelIdentity
    sinks: SinkRule
    prompts: tuple[PromptRecord, ...]
    skipped: _Count
    content_sha256: str


@dataclass(frozen=True, eq=False)
class AttentionStatistics(Shown):
    """The measurements of a calibration.

    All tensors except `pairs` are float32, and all are on the CPU. P is the number of prompts, in
    the order of their indices. L is the number of layers of the text tower, and H the number of
    heads. A last axis `[4]` of a measurement follows `measuring.MASSES`: sinks, text, own image,
    other images. A last axis `[3]` holds the sparse patterns: sink, intra-image, both.
    `measuring.LayerMeasurement` defines the numbers.

    Attributes:
        model: the identity of the model that was measured.
        sinks: the rule that says which tokens were sinks and how long a diagonal block was.
        prompts: the prompts that were measured.
        skipped: the number of prompts that were skipped, because they have fewer than two images.
        mass: [P, L, H, 4] the mean attention mass.
        recall: [P, L, H, 3] the mean mass that a pattern keeps.
        tail_recall: [P, L, H, 3] the mass that a pattern keeps on all but 5 % of the rows.
        error: [P, L, H, 3] the squared error of the head's output.
        norm: [P, L, H] the squared norm of the head's output.
        projected_error: [P, L, H, 3] the squared error of the head's part of the layer's output.
        projected_norm: [P, L, H] the squared norm of the head's part of the layer's output.
        layer_norm: [P, L] the squared norm of the layer's output.
        change: [P, L] the `probing.logit_change` of the first token of the answer when all heads of
            this layer have their cheapest pattern and all other layers are dense; 0 for prompts
            that were not probed.
        pairs: int64 [P, L, 4], the visible pairs of query and key of a head, by `Pattern`.

    Raises:
        DataError: there is no prompt, a number is negative or not finite (the error names prompt,
            layer and head), the prompts are out of order, a share is above 1, or a sparse pattern
            has more pairs than the dense one.
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
        """Checks that shapes and dtypes are right and that all numbers are finite."""
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
        # An overflow in a head makes NaN in its layer and in all later layers: name the first.
        if wrong:
            *_, has_no_head, place, name = min(wrong)
            raise DataError(self._describe_wrong(name, place, has_no_head))
        self._check_consistent()

    def _check_consistent(self) -> None:
        """Checks the order of the prompts, the shares, and the pairs of the patterns."""
        indices = [record.index for record in self.prompts]
        if indices != sorted(set(indices)):
            raise DataError(
                f"statistics: the prompt indices {indices[:8]} are not in order, or one is there "
                "twice"
            )
        for name in ("mass", "recall", "tail_recall"):
            if (most := float(self.tensors()[name].max())) > _LARGEST_SHARE:
                raise DataError(f"statistics {name}: found {most:.6g}, but a share is at most 1")
        dense = self.pairs[..., Pattern.DENSE, None]
        if bool((self.pairs > dense).any()):
            raise DataError("statistics pairs: a sparse pattern has more pairs than the dense one")

    def _describe_wrong(self, name: str, place: list[int], has_no_head: bool) -> str:
        """Returns a sentence that names the place of an impossible number."""
        found = self.tensors()[name][tuple(place)].item()
        record = self.prompts[place[0]]
        head = "" if has_no_head else f", head {place[2]}"
        return (
            f"statistics {name}: prompt {record.index} ({record.task!r}), layer {place[1]}{head}: "
            f"found {found}, expected a finite number that is not negative; the model's attention "
            "overflows there, so load the model as bfloat16 or float32, or leave the prompt out"
        )

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors by their names."""
        return {name: getattr(self, name) for name in _SHAPES}

    @classmethod
    def merge(cls, parts: Iterable[AttentionStatistics]) -> AttentionStatistics:
        """Returns the joined statistics of different prompts, in the order of their indices.

        Raises:
            DataError: there are no parts, the parts have different models or sinks, or a prompt is
                in them twice.
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
        """Checks that a model is the one that was measured.

        Args:
            model: a model of transformers, or its `ModelIdentity`.

        Raises:
            PlanError: the model has another architecture, other weights or another revision.
        """
        self.model.check(model, "the measurement", "Calibrate this model")

    def relabelled(self, index: int, task: str, probed: bool) -> AttentionStatistics:
        """Returns the statistics of one prompt with another index, task and probing."""
        record = self.prompts[0].model_copy(update={"index": index, "task": task, "probed": probed})
        change = self.change if probed else torch.zeros_like(self.change)
        return dataclasses.replace(self, prompts=(record,), change=change)

    def relative_error(self) -> Tensor:
        """Returns the share of a layer's output that each head loses with each pattern.

        e = mean over prompts of  sum over rows of |W_h (o_pattern - o_dense)|²
                                  / sum over rows of |sum over heads of W_h o_dense|²

        The error is divided by the attention output of the whole layer. The errors of the heads of
        a layer can therefore be added, and layers can be compared, whatever the magnitude of their
        outputs. A head counts little if the other heads of its layer outweigh it. Every prompt
        counts alike, however long it is.

        Returns:
            float64 [L, H, 3].
        """
        return self._relative_errors().mean(0)

    def sensitivity(self) -> Tensor:
        """Returns how much the answer changes for each unit of a layer's relative error.

        s = sum over probed prompts of change / sum over probed prompts, heads of e[PROBED]

        The image rows of the last layer do not reach the answer, so the last layer has the
        sensitivity 0. Early layers usually have the highest.

        Returns:
            float64 [L], 0 for a layer in which the probe loses nothing.

        Raises:
            DataError: no prompt was probed.
        """
        probed = [place for place, record in enumerate(self.prompts) if record.probed]
        if not probed:
            raise DataError(
                "no prompt of these statistics was probed, so nothing says how much a layer "
                "matters; calibrate again"
            )
        change = self.change[probed].double().sum(0)
        error = self._relative_errors()[probed][..., SPARSE.index(PROBED)].sum((0, 2))
        return torch.where(error > 0, change / error.where(error > 0, 1.0), 0.0)

    def lost_output(self) -> Tensor:
        """Predicts how much the answer changes with each pattern of each head: s * e.

        Returns:
            float64 [L, H, 3].
        """
        return self.sensitivity()[:, None, None] * self.relative_error()

    def _relative_errors(self) -> Tensor:
        """Returns the relative errors of every prompt, float64 [P, L, H, 3]."""
        norm = self.layer_norm.double()[:, :, None, None]
        return self.projected_error.double() / norm.where(norm > 0, torch.inf)

    def content_hash(self) -> str:
        """Returns the SHA-256 of all measurements."""
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
        """Writes the statistics to one safetensors file.

        Raises:
            ExportError: the file cannot be written.
        """
        from safetensors.torch import save

        metadata = {_METADATA: self._header(self.content_hash()).model_dump_json()}
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors().items()}
        write_file(path, save(tensors, metadata))

    @classmethod
    def load(cls, path: Path) -> AttentionStatistics:
        """Reads statistics that `save` wrote.

        Raises:
            DocumentError: the file is absent, truncated, altered or of another schema.
        """
        with tensor_file(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if set(metadata) != {_METADATA} or set(tensors) != set(_SHAPES):
            raise DocumentError(
                f"{path}: the tensors {sorted(tensors)} are not attention statistics; expected "
                f"{sorted(_SHAPES)} and their metadata; give a file that "
                "AttentionStatistics.save wrote"
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
        """Returns a table with a row for each pattern and the mean figures of all heads."""
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
