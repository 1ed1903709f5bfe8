"""Kinds: what the chip pipeline saves and reads again."""

import copy
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from photomask.chip import (
    IntegerProgram,
    NumpyEngine,
    TorchEngine,
    check_export,
    check_outputs,
)
from photomask.chip.forms.rtl.design import RtlDesign
from photomask.chip.forms.rtl.simulation import compare_outputs
from photomask.chip.mixed_precision import Allocation
from photomask.chip.reconstruction import reconstruct
from photomask.chip.training import load_weights, train

from . import networks, repairing
from .documents import dumped
from .networks import make
from .plain import marks, parse, tensors_of
from .specimen import AmbiguousError, Files, Kind, RefusedError, WrongError
from .words import decoded

MOST_ELEMENTS = 1 << 20
"""Elements of the edges of a program up to which it is run."""


def _held_program(program: IntegerProgram) -> Any:
    return {
        "target": dumped(program.target),
        "inputs": list(program.inputs),
        "outputs": list(program.outputs),
        "edges": [dumped(edge) for edge in program.edges.values()],
        "steps": [dumped(step) for step in program.steps],
        "provenance": program.provenance,
        "formats": {name: dumped(format) for name, format in program.formats.items()},
        "tensors": marks(program.tensors),
    }


def _said_program(files: Files) -> Any:
    try:
        document = parse(files["program.json"])
        tensors, _ = tensors_of(files["program.safetensors"])
        records = document.pop("tensors")
        found = {name: document[name] for name in ("target", "edges", "steps", "inputs", "outputs")}
        return found | {
            "provenance": document["provenance"],
            "formats": {name: record["format"] for name, record in records.items()},
            "tensors": marks({name: x.astype(np.int64) for name, x in tensors.items()}),
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise AmbiguousError(f"no program: {error!r}") from error


def use_program(program: IntegerProgram, files: Files) -> None:
    """Runs a program on both engines: equal integers, inside of the intervals that edges claim."""
    if sum(math.prod(edge.shape) for edge in program.edges.values()) > MOST_ELEMENTS:
        return
    draw = np.random.default_rng(0)
    inputs = {}
    for name in program.inputs:
        edge = program.edges[name]
        shape = (2, *edge.shape[1:])
        inputs[name] = draw.integers(edge.low, edge.high, shape, dtype=np.int64, endpoint=True)
    engine = TorchEngine(program)
    found = dict(engine.edges({name: torch.from_numpy(x) for name, x in inputs.items()}))
    for name, value in NumpyEngine(program).edges(inputs):
        edge = program.edges[name]
        if not np.array_equal(value, found[name].numpy()):
            raise WrongError(f"the engines differ at edge {name!r}")
        if value.size and not (edge.low <= value.min() and value.max() <= edge.high):
            raise WrongError(f"edge {name!r} leaves its interval")


def _read_export(folder: Path) -> Any:
    report = check_export(folder)
    if not report.passed:
        raise RefusedError(str(report))
    return report


def _said_export(files: Files) -> Any:
    return [_said_program(files), parse(files["manifest.json"])]


def _use_export(report: Any, files: Files) -> None:
    """Decodes every image without the package and holds it against program and oracle."""
    manifest = parse(files["manifest.json"])
    tensors, _ = tensors_of(files["program.safetensors"])
    for record in manifest["memory"]:
        if not np.array_equal(decoded(files, manifest, record), tensors[record["tensor"]]):
            raise WrongError(f"{record['path']} is not the program's tensor")
    golden = {
        (record["sample"], record["edge"]): decoded(files, manifest, record)
        for record in manifest["golden"]
    }
    program = _program_of(files)
    for sample in range(manifest["samples"]):
        inputs = {name: golden[sample, name] for name in manifest["inputs"]}
        for name, value in NumpyEngine(program).edges(inputs):
            if not np.array_equal(value, golden[sample, name]):
                raise WrongError(f"golden edge {name!r} is not what the oracle computes")


def _program_of(files: Files) -> IntegerProgram:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("program.json", "program.safetensors"):
            Path(folder, name).write_bytes(files[name])
        return IntegerProgram.load(folder)


def _read_outputs(folder: Path) -> Any:
    report = check_outputs(folder / "export", folder / "out")
    if not report.passed:
        raise RefusedError(str(report))
    return report


def _said_outputs(files: Files) -> Any:
    """Every integer that the simulator wrote, by edge; none is left out."""
    manifest = parse(files["export/manifest.json"])
    return {
        record["path"]: decoded(
            {record["path"]: files["out" + record["path"].removeprefix("golden")]}, manifest, record
        ).tolist()
        for record in manifest["golden"]
    }


def _read_rtl(folder: Path) -> Any:
    design = RtlDesign.load(folder / "export")
    report = compare_outputs(folder / "export", design, [folder / "out"], "simulator")
    if report.mismatches:
        raise RefusedError(str(report))
    return design


def _read_weights(folder: Path) -> Any:
    prepared = copy.deepcopy(networks.prepared("w4a8"))
    load_weights(prepared, folder)
    return prepared


def _said_tensors(files: Files) -> Any:
    parse(files["model.json"])
    return marks(tensors_of(files["model.safetensors"])[0])


def _held_tensors(prepared: Any) -> Any:
    return marks({name: tensor.numpy() for name, tensor in prepared.state_dict().items()})


def _use_weights(prepared: Any, files: Files) -> None:
    """Runs the model, unless the file says that a quantizer was never calibrated: 0 bits."""
    document = parse(files["model.json"])
    tensors, _ = tensors_of(files["model.safetensors"])
    if any(name.endswith("format_state") and x.flat[0] == 0 for name, x in tensors.items()):
        return
    for name, quantizer in prepared.named_modules():
        if name in document["bits"] and quantizer.bits != document["bits"][name]:
            raise WrongError(f"{name} has {quantizer.bits} bits")
    with torch.no_grad():
        prepared(networks.images()[:1])


def _read_training(folder: Path) -> Any:
    prepared = copy.deepcopy(networks.prepared("w4a8"))
    report = train(prepared, networks.data(), networks.TRAINING, checkpoint=folder, resume=True)
    return report, prepared


def _held_training(found: Any) -> Any:
    return {"epochs": dumped(found[0])["epochs"], "tensors": _held_tensors(found[1])}


def _said_training(files: Files) -> Any:
    """Returns the epochs, and the weights that a finished training ends with: their average.

    Left out are biases, which are clipped at the end to what fits into the accumulator, and the
    record of what was done to the model.
    """
    parse(files["model.json"])
    epochs = parse(files["training.json"])["epochs"]
    if len(epochs) < networks.TRAINING.epochs:
        return {"epochs": epochs}
    tensors, _ = tensors_of(files["model.safetensors"])
    more, _ = tensors_of(files["training.safetensors"])
    start = "average/"
    averages = {name.removeprefix(start): x for name, x in more.items() if name.startswith(start)}
    if not averages:
        raise AmbiguousError("the average of no weight is there")
    ends = {
        name: tensor
        for name, tensor in (tensors | averages).items()
        if not name.endswith("bias") and not name.startswith("standing.")
    }
    return {"epochs": epochs, "tensors": marks(ends)}


def _read_reconstruction(folder: Path) -> Any:
    prepared = copy.deepcopy(networks.prepared("w4a8"))
    report = reconstruct(
        prepared, networks.images(), settings=networks.RECONSTRUCTION, checkpoint=folder
    )
    return report, prepared


def _said_reconstruction(files: Files) -> Any:
    blocks = [tensors_of(files[name])[1]["block"] for name in sorted(files) if "block" in name]
    parse(files["run.json"])
    return [parse(block.encode())["report"] for block in blocks]


def _use_allocation(found: Allocation, files: Files) -> None:
    """Holds lengths and sums against the fields themselves, and prints the table."""
    tensors, costs = found.sensitivities.tensors, found.costs
    if not len(found.bits) == len(tensors) == len(costs.tensors):
        raise WrongError("not one width and one cost for each tensor")
    choice = []
    for tensor, bits, own in zip(tensors, found.bits, costs.tensors, strict=True):
        if not len(tensor.bits) == len(tensor.errors) == len(own) == len(set(tensor.bits)):
            raise WrongError(f"{tensor.site}: not one error and one cost for each width")
        if bits not in tensor.bits:
            raise WrongError(f"{tensor.site}: {bits} bits were no candidate")
        choice.append(tensor.bits.index(bits))
    cost = costs.fixed + sum(own[k] for own, k in zip(costs.tensors, choice, strict=True))
    cost += sum(pair.costs[choice[pair.first]][choice[pair.second]] for pair in costs.pairs)
    error = sum(tensor.errors[k] for tensor, k in zip(tensors, choice, strict=True))
    if found.cost != cost or not math.isclose(found.error, error, rel_tol=1e-9, abs_tol=0):
        raise WrongError("cost or error is not the sum of its parts")
    if cost > found.budget:
        raise WrongError("the cost is above the budget")
    str(found)


KINDS = (
    Kind("program", IntegerProgram.load, _held_program, _said_program, repairing.program,
         use_program, sealed=True, unhashed=("provenance",), weight=12),
    Kind("export", _read_export, lambda report: [{}, {}], lambda files: [{}, {}],
         repairing.export, _use_export, weight=4),
    Kind("simulator output", _read_outputs, lambda report: {}, lambda files: {}, weight=3),
    Kind("rtl", _read_rtl, dumped, lambda files: parse(files["export/design.json"]), weight=3),
    Kind("allocation", lambda p: Allocation.load(p / "allocation.json"), dumped,
         lambda files: parse(files["allocation.json"]), repairing.allocation, _use_allocation,
         sealed=True),
    Kind("weights", _read_weights, _held_tensors, _said_tensors, repairing.weights, _use_weights,
         sealed=True),
    Kind("training", _read_training, _held_training, _said_training, repairing.weights, sealed=True,
         weight=2),
    Kind("reconstruction", _read_reconstruction,
         lambda found: [dumped(block) for block in found[0].blocks], _said_reconstruction,
         repairing.reconstruction, sealed=True, weight=2),
)  # fmt: skip

__all__ = ["KINDS", "make"]
