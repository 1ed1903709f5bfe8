"""Trained weights and checkpoints: strict JSON and safetensors, written whole.

A folder of weights holds `model.json` (which model, prepared how) and `model.safetensors`. A
checkpoint holds besides `training.json` (settings, epochs done, what is frozen) and
`training.safetensors` (the optimizer's state and the average).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from photomask.chip.preparation import PreparedModel
from photomask.chip.training.report import EpochRecord
from photomask.chip.training.settings import TrainingSettings
from photomask.chip.training.widths import fresh_copy, quantizers_of
from photomask.documents import Document, read_text, written_whole
from photomask.errors import DocumentError, TrainingError

MODEL, TRAINING = "model", "training"
"""Names of the two pairs of files."""


class ModelDocument(Document):
    """Which prepared model weights are of.

    Attributes:
        recipe: the recipe, as it prints itself.
        nodes: one line for each node of the graph.
        owners: by edge, the node that gives it its scale, where that is another than at first.
        bits: by quantizer, its width, where that is another than the recipe's.
    """

    schema_version: Literal[1] = 1
    recipe: str
    nodes: tuple[str, ...]
    owners: dict[str, str]
    bits: dict[str, int]

    @classmethod
    def of(cls, prepared: PreparedModel) -> "ModelDocument":
        """Describes a prepared model."""
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
        )

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


def _node_lines(prepared: PreparedModel) -> list[str]:
    graph = prepared.graph
    lines = []
    for node in graph.nodes:
        shapes = {role: list(graph.constants[name].shape) for role, name in node.constants.items()}
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


class CheckpointDocument(Document):
    """Where a training stands.

    Attributes:
        settings: the schedule.
        data: the training data, in words.
        processes: how many train together.
        epochs: what is done.
        averaged_steps: of the moving average.
        frozen: parameters that a callback froze.
        callbacks: state of each, in order.
    """

    schema_version: Literal[1] = 1
    settings: TrainingSettings
    data: str
    processes: int
    epochs: tuple[EpochRecord, ...]
    averaged_steps: int
    frozen: tuple[str, ...]
    callbacks: tuple[dict[str, Any], ...]

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


def save_weights(prepared: PreparedModel, folder: Path) -> None:
    """Writes what `load_weights` reads: weights, scales, zero points and formats.

    Args:
        prepared: calibrated or trained.
        folder: to appear, or to be replaced where it holds weights already.

    Raises:
        ExportError: the folder is something else's, or the disk refused a file.
    """
    with written_whole(folder, is_weights) as place:
        write_model(prepared, place)


def load_weights(prepared: PreparedModel, folder: Path) -> None:
    """Reads weights, scales, zero points and formats into a model prepared the same way.

    Args:
        prepared: changed in place; needs no calibration.
        folder: that `save_weights` or a training wrote.

    Raises:
        DocumentError: a file is missing or damaged.
        TrainingError: the weights are of another model or another recipe; says what differs.
    """
    document = ModelDocument.parse(read_text(folder / f"{MODEL}.json"), f"{folder}/{MODEL}.json")
    document.check(prepared, folder)
    tensors = read_tensors(folder / f"{MODEL}.safetensors")
    expected = set(prepared.state_dict())
    if set(tensors) != expected:
        odd = sorted(set(tensors) ^ expected)
        raise TrainingError(f"{folder} holds other tensors than this model: {', '.join(odd[:4])}")
    quantizers = quantizers_of(prepared)
    for name, bits in document.bits.items():
        quantizers[name].bits = bits
    for edge, owner in document.owners.items():
        if prepared.scale_owner(edge) != owner:
            prepared.share_scale(edge, owner)
    try:
        prepared.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(f"{folder} does not fit this model: {error}") from error


def write_model(prepared: PreparedModel, place: Path) -> None:
    """Writes the pair of files of a model."""
    (place / f"{MODEL}.json").write_text(ModelDocument.of(prepared).render(), encoding="utf-8")
    write_tensors(prepared.state_dict(), place / f"{MODEL}.safetensors")


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors, none of which shares memory with another."""
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(own, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads tensors.

    Raises:
        DocumentError: the file is missing or damaged.
    """
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise DocumentError(f"cannot read {path}: {error}") from error


def is_weights(folder: Path) -> bool:
    """Tells whether a folder holds weights or a checkpoint and nothing else."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    allowed = {f"{name}.{kind}" for name in (MODEL, TRAINING) for kind in ("json", "safetensors")}
    return f"{MODEL}.json" in names and names <= allowed


def save_checkpoint(
    folder: Path,
    prepared: PreparedModel,
    document: CheckpointDocument,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
) -> None:
    """Writes a checkpoint in the place of an earlier one."""
    tensors = {f"average/{name}": tensor for name, tensor in average.items()}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if value is not None:
                tensors[f"optimizer/{index}/{key}"] = torch.as_tensor(value)
    with written_whole(folder, is_weights) as place:
        write_model(prepared, place)
        text = json.dumps(document.model_dump(mode="json"), indent=1) + "\n"
        (place / f"{TRAINING}.json").write_text(text, encoding="utf-8")
        write_tensors(tensors, place / f"{TRAINING}.safetensors")


def load_checkpoint(
    folder: Path,
    prepared: PreparedModel,
    asked: CheckpointDocument,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
) -> CheckpointDocument:
    """Reads a checkpoint into model, optimizer and average, and returns where it stands.

    Raises:
        DocumentError: a file is missing or damaged.
        TrainingError: it is another run's; says what differs.
    """
    path = folder / f"{TRAINING}.json"
    found = CheckpointDocument.parse(read_text(path), str(path))
    found.check(asked, folder)
    load_weights(prepared, folder)
    tensors = read_tensors(folder / f"{TRAINING}.safetensors")
    device = next(prepared.parameters()).device
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "average" and rest in average:
            average[rest] = tensor.to(device)
        elif kind == "optimizer":
            index, _, key = rest.partition("/")
            state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for name, parameter in prepared.named_parameters():
        parameter.requires_grad_(name not in found.frozen)
    return found


def frozen_parameters(prepared: PreparedModel) -> tuple[str, ...]:
    """Returns the names of the parameters that do not learn."""
    return tuple(name for name, p in prepared.named_parameters() if not p.requires_grad)
