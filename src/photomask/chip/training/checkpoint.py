"""Saves and loads trained weights and checkpoints as strict JSON and safetensors.

A folder of weights holds `model.json`, which describes the prepared model, and `model.safetensors`.
A checkpoint also holds `training.json` (settings, finished epochs, frozen parameters) and
`training.safetensors` (the optimizer's state and the average). Each JSON file holds its own hash
and that of the tensor file beside it. A folder appears only once all of its files are written.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from photomask.arrays import tensor_file
from photomask.chip.graph.module_keys import module_key
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.standing import Effect, changes
from photomask.chip.training.documents import WIDEST, CheckpointDocument, ModelDocument
from photomask.chip.training.trainee import Trainee
from photomask.chip.training.widths import quantizers_of
from photomask.documents import is_file, read_text, sha256_of, written_whole
from photomask.errors import DocumentError, TrainingError

MODEL, TRAINING = "model", "training"
"""The names of the two pairs of files."""

OUTPUT = "trained weights"
STATES = {"momentum_buffer", "step", "exp_avg", "exp_avg_sq"}
"""The tensors that the optimizers of `optimization` keep for a parameter."""
STANDING = "standing.record"
"""A tensor that files of earlier versions do not hold."""
MASKS = "masks."
"""The names of the masks of pruned weights begin with this."""


def save_weights(prepared: PreparedModel, folder: Path) -> None:
    """Writes weights, scales, zero points and formats for `load_weights`.

    Args:
        prepared: the calibrated or trained model.
        folder: the folder to write. It may exist only if it holds weights, which are replaced.

    Raises:
        ExportError: the folder holds other files, or a file cannot be written.
    """
    with written_whole(folder, OUTPUT, files_of_earlier) as place:
        write_model(prepared, place)


@changes(Effect.LOADS)
def load_weights(prepared: PreparedModel, folder: Path) -> None:
    """Reads weights, scales, zero points and formats into a model that was prepared the same way.

    Args:
        prepared: the model, which needs no calibration. It is changed in place, and only if all
            files are valid.
        folder: the folder that `save_weights` or a training wrote.

    Raises:
        DocumentError: a file is missing, damaged or altered.
        TrainingError: the weights belong to another model or recipe; the message says what differs.
    """
    put_model(prepared, *read_model(prepared, folder), folder)


def read_model(prepared: PreparedModel, folder: Path) -> tuple[ModelDocument, dict[str, Tensor]]:
    """Returns the checked content of a model's pair of files."""
    path = folder / f"{MODEL}.json"
    document = ModelDocument.parse(read_text(path), str(path))
    document.check(prepared, folder)
    tensors = read_tensors(folder / f"{MODEL}.safetensors", document.tensors_sha256)
    expected = prepared.state_dict()
    masks = {name for name in tensors if name.startswith(MASKS)} - set(expected)
    if (set(tensors) | {STANDING}) - masks != set(expected):
        odd = sorted(((set(tensors) | {STANDING}) - masks) ^ set(expected))
        raise TrainingError(
            f"the tensors of {folder} are not those of this model; they differ in "
            f"{', '.join(odd[:4])}. Load them into a model that was prepared the same way"
        )
    for name in masks:
        _check_mask(name, tensors, folder)
    for name, tensor in tensors.items():
        if name not in masks:
            _check_tensor(name, tensor, prepared, expected, folder)
    return document, tensors


def _check_mask(name: str, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Refuses a mask that fits no weight of the file."""
    mask, weight = tensors[name], tensors.get(f"weights.{name.removeprefix(MASKS)}")
    if weight is None or mask.dtype != torch.bool or mask.shape != weight.shape:
        raise DocumentError(
            f"{folder}: {name} is {_form(mask)}, but a mask is bool in the shape of its weight; "
            "the file was not written by save_weights or train"
        )


def _check_tensor(
    name: str,
    tensor: Tensor,
    prepared: PreparedModel,
    expected: Mapping[str, Tensor],
    folder: Path,
) -> None:
    """Refuses a tensor of another dtype or shape, and values that are no scale or no format.

    The tensors of a quantizer have a row for each channel only after calibration. For a weight, the
    model therefore decides only the first axis of their shape; for an activation it decides none.
    """
    wanted = expected[name]
    kind, _, rest = name.partition(".")
    key, _, field = rest.rpartition(".")
    shape = wanted.shape
    if kind == "weight_quantizers" and tensor.dim() and field != "format_state":
        (layer,) = (n for n in prepared.graph.nodes if module_key(n.name) == key)
        channels = prepared.graph.constants_of(layer)["weight"].shape[:1]
        shape = (*channels, *tensor.shape[1:])
    elif kind == "activation_quantizers" and field != "format_state":
        shape = tensor.shape
    if tensor.dtype != wanted.dtype or tensor.shape != shape:
        raise TrainingError(
            f"{folder} does not fit this model: {name} is {_form(tensor)}, expected "
            f"{_form(wanted)}; load it into a model that was prepared the same way"
        )
    if field == "scale" and not bool((tensor > 0).all()):
        raise DocumentError(
            f"{folder}: {name} holds {float(tensor.min())}, but scales are positive; the file was "
            "not written by save_weights or train"
        )
    if field == "format_state":
        bits, signed = tensor.tolist()
        if not (0 <= bits <= WIDEST and signed in (0, 1)):
            raise DocumentError(
                f"{folder}: {name} holds {[bits, signed]}, which is no format (bits, signed); the "
                "file was not written by save_weights or train"
            )


def put_model(
    prepared: PreparedModel, document: ModelDocument, tensors: dict[str, Tensor], folder: Path
) -> None:
    """Puts the content of the files into a model."""
    quantizers = quantizers_of(prepared)
    for name, bits in document.bits.items():
        quantizers[name].bits = bits
    for edge, owner in document.owners.items():
        if prepared.scale_owner(edge) != owner:
            prepared.share_scale(edge, owner)
    for name, tensor in tensors.items():
        if name.startswith(MASKS):
            prepared.masks.put(name.removeprefix(MASKS), tensor, prepared.device)
    try:
        prepared.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(f"{folder} does not fit this model: {error}") from error


def write_model(prepared: PreparedModel, place: Path) -> ModelDocument:
    """Writes a model's pair of files, and returns the document."""
    document = ModelDocument.of(
        prepared, write_tensors(prepared.state_dict(), place / f"{MODEL}.safetensors")
    )
    (place / f"{MODEL}.json").write_text(document.render(), encoding="utf-8")
    return document


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Writes tensors, as copies that share no memory, and returns the SHA-256 of the file."""
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(own, path)
    return sha256_of(path)


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Returns the tensors of a file.

    Args:
        path: the path of the file.
        sha256: the SHA-256 that the file must have.

    Raises:
        DocumentError: the file is missing, damaged or altered, or a number is not finite.
    """
    found = sha256_of(path)
    if found != sha256:
        raise DocumentError(
            f"{path} is altered or damaged: its SHA-256 is {found[:12]}…, but the document beside "
            f"it says {sha256[:12]!r}; restore the file or train again"
        )
    with tensor_file(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise DocumentError(f"{path}: {name} holds NaN or infinity")
    return tensors


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def is_weights(folder: Path) -> bool:
    """Tells whether a folder holds weights or a checkpoint, whole or not."""
    return is_file(folder / f"{MODEL}.json")


def files_of_earlier(folder: Path) -> tuple[str, ...]:
    """Returns the names of the files of a folder that an earlier version wrote, else none.

    Such a folder has no record of its files. It holds documents of schema 1 and nothing else.
    """
    names = {path.name for path in folder.iterdir()}
    allowed = {f"{name}.{kind}" for name in (MODEL, TRAINING) for kind in ("json", "safetensors")}
    if f"{MODEL}.json" not in names or not names <= allowed:
        return ()
    try:
        head = json.loads(read_text(folder / f"{MODEL}.json"))
    except (DocumentError, ValueError, RecursionError):
        return ()
    fields = {"schema_version", "recipe", "nodes", "owners", "bits"}
    is_earlier = isinstance(head, dict) and set(head) == fields and head["schema_version"] == 1
    return tuple(sorted(names)) if is_earlier else ()


def save_checkpoint(
    folder: Path,
    trainee: Trainee,
    document: CheckpointDocument,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
) -> None:
    """Writes a checkpoint, which replaces an earlier one in the same folder."""
    tensors = {f"average/{name}": tensor for name, tensor in average.items()}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if value is not None:
                tensors[f"optimizer/{index}/{key}"] = torch.as_tensor(value)
    with written_whole(folder, OUTPUT, files_of_earlier) as place:
        model = trainee.write(place)
        hashes = {
            "tensors_sha256": write_tensors(tensors, place / f"{TRAINING}.safetensors"),
            "model_sha256": model.content_sha256,
        }
        text = document.model_copy(update=hashes).sealed().render()
        (place / f"{TRAINING}.json").write_text(text, encoding="utf-8")


def load_checkpoint(
    folder: Path,
    trainee: Trainee,
    asked: CheckpointDocument,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
) -> CheckpointDocument:
    """Reads a checkpoint into the model, the optimizer and the average, and returns its document.

    Nothing is changed unless all files are valid.

    Raises:
        DocumentError: a file is missing, damaged or altered, or the files disagree.
        TrainingError: the checkpoint belongs to another run; the message says what differs.
    """
    path, module = folder / f"{TRAINING}.json", trainee.module
    found = CheckpointDocument.parse(read_text(path), str(path))
    found.check(asked, folder)
    document, weights = trainee.read(folder)
    if document.content_sha256 != found.model_sha256:
        raise DocumentError(
            f"{path} does not belong to {folder / MODEL}.json; restore both from one checkpoint"
        )
    tensors = read_tensors(folder / f"{TRAINING}.safetensors", found.tensors_sha256)
    if unknown := sorted({*found.frozen} - {name for name, _ in module.named_parameters()}):
        raise DocumentError(f"{path}: the model has no parameter {unknown[0]!r}")
    averages, state = _sorted_out(tensors, folder)
    kept = average if found.settings.average_decay else {}
    _check_averages(averages, {name: weights[name] for name in kept}, folder)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    trained = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    _check_optimizer(state, [weights[name] for name in trained], folder)
    device = next(module.parameters()).device
    trainee.put(document, weights, folder)
    for name, tensor in averages.items():
        average[name] = tensor.to(device)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in found.frozen)
    return found


def _sorted_out(
    tensors: Mapping[str, Tensor], folder: Path
) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """Splits the tensors of a training into averages and the optimizer's state by parameter."""
    averages: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        index, _, key = rest.partition("/")
        if kind == "average":
            averages[rest] = tensor
        elif kind == "optimizer" and index.isascii() and index.isdigit() and len(index) < 9:
            state.setdefault(int(index), {})[key] = tensor
        else:
            raise DocumentError(
                f"{folder}: the tensor {name!r} is no part of a checkpoint; restore the folder"
            )
    return averages, state


def _check_averages(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], folder: Path
) -> None:
    forms = {name: _form(tensor) for name, tensor in found.items()}
    for name, tensor in expected.items():
        if forms.pop(name, None) != _form(tensor):
            raise DocumentError(
                f"{folder}: the average of {name!r} must be {_form(tensor)}, but is missing or has "
                "another dtype or shape; restore the folder"
            )
    if forms:
        raise DocumentError(
            f"{folder} holds an average of {min(forms)!r}, which is no tensor of the model; "
            "restore the folder"
        )


def _check_optimizer(
    state: Mapping[int, Mapping[str, Tensor]], parameters: list[Tensor], folder: Path
) -> None:
    """Refuses a state whose parts differ, or whose tensors do not fit the parameters."""
    parts = {tuple(sorted(values)) for values in state.values()}
    if len(parts) > 1 or not {key for keys in parts for key in keys} <= STATES:
        raise DocumentError(
            f"{folder}: the optimizer's state has the parts {sorted(parts)}; expected the same "
            f"parts for all parameters, from {sorted(STATES)}"
        )
    for index, values in state.items():
        if index >= len(parameters):
            raise DocumentError(
                f"{folder} holds the optimizer's state of parameter {index}, but the optimizer has "
                f"{len(parameters)} parameters"
            )
        for key, tensor in values.items():
            wanted = [] if key == "step" else list(parameters[index].shape)
            if list(tensor.shape) != wanted:
                raise DocumentError(
                    f"{folder}: {key} of parameter {index} has shape {list(tensor.shape)}, "
                    f"expected {wanted}"
                )


def frozen_parameters(module: nn.Module) -> tuple[str, ...]:
    """Returns the names of the parameters that are frozen."""
    return tuple(name for name, p in module.named_parameters() if not p.requires_grad)
