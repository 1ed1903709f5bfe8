"""What a folder of trained weights and a checkpoint say about themselves."""

from pathlib import Path
from typing import Any, Literal

from photomask.chip.preparation import PreparedModel
from photomask.chip.training.report import EpochRecord
from photomask.chip.training.settings import TrainingSettings
from photomask.chip.training.widths import fresh_copy, quantizers_of
from photomask.documents import SealedDocument
from photomask.errors import DocumentError, TrainingError

WIDEST = 32
"""Bits that a quantizer has at most."""


class ModelDocument(SealedDocument):
    """Which prepared model weights are of.

    Attributes:
        recipe: the recipe, as it prints itself.
        nodes: one line for each node of the graph.
        owners: by edge, the node that gives it its scale, where that is another than at first.
        bits: by quantizer, its width, where that is another than the recipe's.
        tensors_sha256: of the file of tensors beside it.
    """

    schema_version: Literal[2] = 2
    recipe: str
    nodes: tuple[str, ...]
    owners: dict[str, str]
    bits: dict[str, int]
    tensors_sha256: str

    @classmethod
    def of(cls, prepared: PreparedModel, tensors_sha256: str) -> "ModelDocument":
        """Describes a prepared model whose tensors are written already."""
        fresh = fresh_copy(prepared)
        usual = quantizers_of(fresh)
        return cls(
            recipe=str(prepared.recipe),
            nodes=tuple(_node_lines(prepared)),
            owners={
                node.name: prepared.scale_owner(node.name)
                for node in prepared.graph.nodes
                if prepared.scale_owner(node.name) != fresh.scale_owner(node.name)
            },
            bits={
                name: quantizer.bits
                for name, quantizer in quantizers_of(prepared).items()
                if quantizer.bits != usual[name].bits
            },
            tensors_sha256=tensors_sha256,
        ).sealed()

    def check(self, prepared: PreparedModel, where: Path) -> None:
        """Refuses a model that was prepared in another way.

        Raises:
            TrainingError: names the first difference.
        """
        for what, saved, found in (
            ("recipe", self.recipe.splitlines(), str(prepared.recipe).splitlines()),
            ("graph", list(self.nodes), _node_lines(prepared)),
        ):
            if saved != found:
                raise TrainingError(f"{where} is of another {what}: {first_change(saved, found)}")
        unknown = {*self.bits} - {*quantizers_of(prepared)}
        nodes = {node.name for node in prepared.graph.nodes}
        unknown |= {*self.owners, *self.owners.values()} - nodes
        if unknown:
            raise DocumentError(f"{where}: the model has no {sorted(unknown)[0]!r}")
        if wrong := [name for name, bits in self.bits.items() if not 1 <= bits <= WIDEST]:
            raise DocumentError(f"{where}: {wrong[0]!r} cannot have {self.bits[wrong[0]]} bits")


def _node_lines(prepared: PreparedModel) -> list[str]:
    graph = prepared.graph
    lines = []
    for node in graph.nodes:
        shapes = {role: list(x.shape) for role, x in graph.constants_of(node).items()}
        inputs = ", ".join(node.inputs)
        lines.append(
            f"{node.name}: {node.operation.kind}({inputs}) {list(node.shape)} {shapes or ''}"
            + (f" {node.clamp}" if node.clamp else "")
        )
    return lines


def first_change(saved: list[str], found: list[str]) -> str:
    """Says where two lists of lines differ first."""
    for old, new in zip(saved, found, strict=False):
        if old != new:
            return f"it has {old.strip()!r}, here is {new.strip()!r}"
    return f"it has {len(saved)} lines, here are {len(found)}"


class CheckpointDocument(SealedDocument):
    """Where a training stands.

    Attributes:
        settings: the schedule.
        data: the training data, in words.
        processes: how many train together.
        epochs: what is done.
        averaged_steps: of the moving average.
        frozen: parameters that a callback froze.
        callbacks: state of each, in order.
        tensors_sha256: of the file of tensors beside it.
        model_sha256: the content hash of `model.json`.
    """

    schema_version: Literal[2] = 2
    settings: TrainingSettings
    data: str
    processes: int
    epochs: tuple[EpochRecord, ...]
    averaged_steps: int
    frozen: tuple[str, ...]
    callbacks: tuple[dict[str, Any], ...]
    tensors_sha256: str = ""
    model_sha256: str = ""

    def check(self, other: "CheckpointDocument", where: Path) -> None:
        """Refuses to go on with another training.

        Raises:
            TrainingError: names every setting that differs.
        """
        saved = self.settings.model_dump() | {"data": self.data, "processes": self.processes}
        asked = other.settings.model_dump() | {"data": other.data, "processes": other.processes}
        changes = [
            f"{name} is {saved[name]!r} there and {asked[name]!r} here"
            for name in saved
            if saved[name] != asked[name]
        ]
        if len(self.callbacks) != len(other.callbacks):
            changes.append(f"{len(self.callbacks)} callbacks there, {len(other.callbacks)} here")
        if changes:
            raise TrainingError(f"{where} is the checkpoint of another run: {'; '.join(changes)}")
        done = [record.epoch for record in self.epochs]
        if done != list(range(len(done))) or len(done) > self.settings.epochs:
            raise DocumentError(f"{where} says that it is done with the epochs {done}")
        if self.averaged_steps < 0:
            raise DocumentError(f"{where} has averaged {self.averaged_steps} steps")
