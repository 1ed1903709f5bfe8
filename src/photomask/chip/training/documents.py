"""Defines the JSON documents of trained weights and of checkpoints."""

from pathlib import Path
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from photomask.chip.prepared_model import PreparedModel
from photomask.chip.pruning import PruningSchedule
from photomask.chip.training.report import EpochRecord
from photomask.chip.training.settings import Schedule, TrainingSettings
from photomask.chip.training.widths import fresh_copy, quantizers_of
from photomask.documents import SealedDocument
from photomask.errors import DocumentError, TrainingError

WIDEST = 32
"""The most bits that a saved quantizer may have."""


class ModelDocument(SealedDocument):
    """Describes the prepared model that saved weights belong to.

    Attributes:
        recipe: the recipe as printed.
        nodes: a line for each node of the graph.
        owners: by edge, the node that gives the edge its scale, where `prepare` gave it another.
        bits: by quantizer, the width, where it differs from that of the recipe.
        tensors_sha256: the SHA-256 of the tensor file beside the document.
    """

    schema_version: Literal[2] = 2
    recipe: str
    nodes: tuple[str, ...]
    owners: dict[str, str]
    bits: dict[str, int]
    tensors_sha256: str

    @classmethod
    def of(cls, prepared: PreparedModel, tensors_sha256: str) -> "ModelDocument":
        """Returns the document of a prepared model whose tensor file is written already."""
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
            TrainingError: the recipe or the graph differs; the message names the first difference.
            DocumentError: the document names a quantizer or an edge that the model does not have.
        """
        for what, saved, found in (
            ("recipe", self.recipe.splitlines(), str(prepared.recipe).splitlines()),
            ("graph", list(self.nodes), _node_lines(prepared)),
        ):
            if saved != found:
                raise TrainingError(
                    f"{where} belongs to another {what}: {first_change(saved, found)}. Prepare the "
                    "model as it was prepared then"
                )
        unknown = {*self.bits} - {*quantizers_of(prepared)}
        nodes = {node.name for node in prepared.graph.nodes}
        unknown |= {*self.owners, *self.owners.values()} - nodes
        if unknown:
            raise DocumentError(
                f"{where} names {sorted(unknown)[0]!r}, which is no quantizer or edge of the model"
            )
        if wrong := [name for name, bits in self.bits.items() if not 1 <= bits <= WIDEST]:
            raise DocumentError(
                f"{where} gives {wrong[0]!r} {self.bits[wrong[0]]} bits; expected 1 to {WIDEST}"
            )


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
    """Returns a description of the first difference between two lists of lines."""
    for old, new in zip(saved, found, strict=False):
        if old != new:
            return f"it has {old.strip()!r}, but here it is {new.strip()!r}"
    return f"it has {len(saved)} lines, but here there are {len(found)}"


class CheckpointDocument(SealedDocument):
    """Describes the progress of a training.

    Attributes:
        settings: the settings of the training.
        data: a description of the training data.
        processes: the number of processes that train together.
        epochs: the records of the finished epochs.
        averaged_steps: the number of steps in the moving average.
        frozen: the names of the frozen parameters.
        callbacks: the state of each callback, in order.
        pruner: the pruner as printed, or empty.
        tensors_sha256: the SHA-256 of the tensor file beside the document.
        model_sha256: the content hash of `model.json`.
    """

    schema_version: Literal[2] = 2
    settings: Schedule | TrainingSettings
    data: str
    processes: int
    epochs: tuple[EpochRecord, ...]
    averaged_steps: int
    frozen: tuple[str, ...]
    callbacks: tuple[dict[str, Any], ...]
    pruner: str = ""
    tensors_sha256: str = ""
    model_sha256: str = ""

    @model_serializer(mode="wrap")
    def _as_before_pruning(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out what a training without a pruner has not, as version 0.2 wrote it."""
        body = dump(self)
        if self.pruner:
            return body
        if isinstance(self.settings, TrainingSettings):
            if self.settings.pruning != PruningSchedule():
                return body
            del body["settings"]["pruning"]
        del body["pruner"]
        return body

    def check(self, other: "CheckpointDocument", where: Path) -> None:
        """Refuses a checkpoint of another training.

        Raises:
            TrainingError: settings, data, processes or the pruner differ; the message names all
                differences.
            DocumentError: the document contradicts itself.
        """
        if type(self.settings) is not type(other.settings):
            raise TrainingError(
                f"{where} is the checkpoint of another kind of training: it has "
                f"{type(self.settings).__name__}, but here are {type(other.settings).__name__}; "
                "choose another folder"
            )
        saved, asked = (
            each.settings.model_dump()
            | {"data": each.data, "processes": each.processes, "pruner": each.pruner}
            for each in (self, other)
        )
        changes = [
            f"{name} is {saved[name]!r} there and {asked[name]!r} here"
            for name in saved
            if saved[name] != asked[name]
        ]
        if len(self.callbacks) != len(other.callbacks):
            changes.append(f"{len(self.callbacks)} callbacks there, {len(other.callbacks)} here")
        if changes:
            raise TrainingError(
                f"{where} is the checkpoint of another run: {'; '.join(changes)}. Resume with what "
                "that run had, or choose another folder"
            )
        done = [record.epoch for record in self.epochs]
        if done != list(range(len(done))) or len(done) > self.settings.epochs:
            raise DocumentError(
                f"{where} says that the epochs {done} are finished; expected consecutive epochs "
                f"from 0, at most {self.settings.epochs}"
            )
        if self.averaged_steps < 0:
            raise DocumentError(
                f"{where} says that {self.averaged_steps} steps were averaged; expected 0 or more"
            )
