"""Kinds: documents, prompts, arrays, and what the attention pipeline saves."""

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from photomask.arrays import read_array, read_arrays
from photomask.attention import AttentionStatistics, HeadPlan, ModelIdentity, Pattern
from photomask.attention.patterns import SinkRule
from photomask.attention.statistics import PromptRecord
from photomask.chip import load_recipe, load_target, save_recipe
from photomask.chip.cost import load_accelerator
from photomask.chip.cost.accelerator import PRESETS as ACCELERATORS
from photomask.chip.recipe.saving import recipe_document
from photomask.chip.target import PRESETS as TARGETS
from photomask.prompts import read_prompts
from photomask.zoo.fashion_mnist import read_idx

from . import repairing
from .plain import marks, parse, tensors_of
from .specimen import AmbiguousError, Files, Kind, WrongError

PROMPTS = 3
LAYERS = 2
HEADS = 4
MODEL = ModelIdentity(
    model_type="qwen2_5_vl",
    layers=LAYERS,
    heads=HEADS,
    kv_heads=2,
    head_size=16,
    hidden_size=64,
    vocabulary=300,
    fingerprint="0" * 64,
)


def dumped(document: Any) -> Any:
    """Returns the fields of a document."""
    return document.model_dump(mode="json")


def _said_document(name: str):
    return lambda files: parse(files[name])


def _stated(value: Any) -> Any:
    """Leaves out the fields of a recipe that are null: they ask for what is usual."""
    if isinstance(value, dict):
        return {name: _stated(part) for name, part in value.items() if part is not None}
    return [_stated(part) for part in value] if isinstance(value, list) else value


def _said_prompts(files: Files) -> Any:
    lines = [line for line in _lines(files["prompts.jsonl"]) if line.strip()]
    return [parse(line.encode()) for line in lines]


def _lines(content: bytes) -> list[str]:
    return content.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _held_prompts(prompts: Any) -> Any:
    """Returns prompts as their lines; a path loses its folder, which the file does not name."""
    return [
        {
            "content": [
                {"text": part, "image": None} if isinstance(part, str)
                else {"text": None, "image": part.name}
                for part in prompt.content
            ],
            "task": prompt.task,
            "answer": prompt.answer,
        }
        for prompt in prompts
    ]  # fmt: skip


def _said_plan(files: Files) -> Any:
    document = parse(files["plan.json"])
    return {name: value for name, value in document.items() if name != "content_sha256"}


def _use_plan(plan: Any, files: Files) -> None:
    if len(str(plan).splitlines()) < LAYERS:
        raise WrongError("the plan does not print all layers")


def _said_statistics(files: Files) -> Any:
    tensors, metadata = tensors_of(files["statistics.safetensors"])
    (header,) = metadata.values()
    fields = parse(header.encode())
    return {"tensors": marks(tensors)} | {
        name: fields[name] for name in ("model", "sinks", "prompts", "skipped")
    }


def _held_statistics(found: Any) -> Any:
    return {
        "tensors": marks({name: tensor.numpy() for name, tensor in found.tensors().items()}),
        "model": dumped(found.model),
        "sinks": dumped(found.sinks),
        "prompts": [dumped(record) for record in found.prompts],
        "skipped": found.skipped,
    }


def _use_statistics(found: Any, files: Files) -> None:
    """Holds what follows from the measurement: shares are shares, patterns never add pairs."""
    if any(record.probed for record in found.prompts):
        str(found)
    AttentionStatistics.merge([found])
    for name in ("mass", "recall", "tail_recall"):
        if float(getattr(found, name).max()) > 1.001:
            raise WrongError(f"{name} is a share and above 1")
    if bool((found.pairs > found.pairs[..., Pattern.DENSE, None]).any()):
        raise WrongError("a sparse pattern has more pairs than the dense one")
    indices = [record.index for record in found.prompts]
    if sorted(set(indices)) != indices:
        raise WrongError("the prompts are not in the order of their indices")


def npy_array(content: bytes) -> np.ndarray:
    """Reads a `.npy` file with NumPy alone.

    Raises:
        AmbiguousError: it is no such file.
    """
    try:
        file = io.BytesIO(content)
        found = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise AmbiguousError(f"no array: {error}") from error
    if file.read(1):
        raise AmbiguousError("bytes behind the array")
    return found


def _array_marks(arrays: dict[str, np.ndarray]) -> Any:
    return {name: [x.dtype.str, list(x.shape), x.tobytes().hex()] for name, x in arrays.items()}


def npz_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Reads a `.npz` file with zipfile and NumPy alone.

    Raises:
        AmbiguousError: it is no such file, or holds a name twice.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            found = {name.removesuffix(".npy"): npy_array(archive.read(name)) for name in names}
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
        raise AmbiguousError(f"no archive: {error}") from error
    if len(found) != len(names):
        raise AmbiguousError("a name is there twice")
    return found


def _said_idx(files: Files) -> Any:
    try:
        content = gzip.decompress(files["images.gz"])
        dimensions = content[3]
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        pixels = np.frombuffer(content[4 + 4 * dimensions :], np.uint8).reshape(shape)
    except Exception as error:
        raise AmbiguousError(f"no idx file: {error}") from error
    return _array_marks({"": pixels})


KINDS = (
    Kind("target", lambda p: load_target(p / "target.json"), dumped, _said_document("target.json"),
         weight=2),
    Kind("accelerator", lambda p: load_accelerator(p / "accelerator.json"), dumped,
         _said_document("accelerator.json"), weight=2),
    Kind("recipe", lambda p: load_recipe(p / "recipe.json"),
         lambda recipe: dumped(recipe_document(recipe)),
         lambda files: _stated(parse(files["recipe.json"])), weight=2),
    Kind("prompts", lambda p: read_prompts(p / "prompts.jsonl"), _held_prompts, _said_prompts,
         fixed=("a.png",), weight=2),
    Kind("head plan", lambda p: HeadPlan.load(p / "plan.json"), dumped,
         _said_plan,
         repairing.head_plan, _use_plan, sealed=True, unhashed=("provenance",)),
    Kind("statistics", lambda p: AttentionStatistics.load(p / "statistics.safetensors"),
         _held_statistics, _said_statistics, repairing.statistics, _use_statistics, sealed=True),
    Kind("npy", lambda p: {"": read_array(p / "array.npy")}, _array_marks,
         lambda files: _array_marks({"": npy_array(files["array.npy"])}), weight=2),
    Kind("npz", lambda p: read_arrays(p / "arrays.npz"), _array_marks,
         lambda files: _array_marks(npz_arrays(files["arrays.npz"])), weight=2),
    Kind("idx", lambda p: {"": read_idx(p / "images.gz")}, _array_marks, _said_idx, weight=2),
)  # fmt: skip
"""In the order of the table in the documentation."""


def make(folder: Path) -> None:
    """Writes a good specimen of each kind into a folder of its name."""
    for kind in KINDS:
        (folder / kind.name).mkdir()
    target, accelerator = TARGETS["asic"], ACCELERATORS["reference"]
    (folder / "target/target.json").write_text(target.render(), encoding="utf-8")
    (folder / "accelerator/accelerator.json").write_text(accelerator.render(), encoding="utf-8")
    save_recipe(load_recipe("w4a8"), folder / "recipe/recipe.json")
    (folder / "prompts/a.png").write_bytes(b"a picture is not opened before it is needed")
    (folder / "prompts/prompts.jsonl").write_text(
        '{"content": [{"image": "a.png"}, {"text": "What is it?"}], "answer": "a cat"}\n'
        '{"content": [{"text": "é?"}, {"image": "a.png"}], "task": "count"}\n\n',
        encoding="utf-8",
    )
    pattern = tuple(Pattern)
    plan = HeadPlan.uniform(MODEL, Pattern.DENSE, SinkRule(leading=2))
    plan.with_patterns([pattern[:HEADS]] * LAYERS).save(folder / "head plan/plan.json")
    _statistics().save(folder / "statistics/statistics.safetensors")
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.save(folder / "npy/array.npy", array)
    np.savez_compressed(folder / "npz/arrays.npz", pixels=array, labels=np.arange(5))
    header = struct.pack(">HBB3I", 0, 8, 3, 2, 4, 4)
    (folder / "idx/images.gz").write_bytes(gzip.compress(header + bytes(range(32)), mtime=0))


def _statistics() -> AttentionStatistics:
    random = torch.Generator().manual_seed(0)
    shape = (PROMPTS, LAYERS, HEADS)
    kept = torch.rand(*shape, 3, generator=random).sort(-1).values
    mass = torch.rand(*shape, 4, generator=random)
    error = torch.rand(*shape, 3, generator=random)
    pairs = torch.randint(100, 1000, (PROMPTS, LAYERS, 4), generator=random).cumsum(-1)
    records = tuple(
        PromptRecord(
            index=2 * number,
            digest=f"{number:064x}",
            task="count",
            images=2,
            tokens=100,
            rows=50,
            probed=number == 0,
        )
        for number in range(PROMPTS)
    )
    norm = torch.rand(shape, generator=random) + 1
    change = torch.zeros(shape[:2])
    change[0] = 0.25
    return AttentionStatistics(
        model=MODEL,
        sinks=SinkRule(leading=2),
        prompts=records,
        skipped=1,
        mass=mass / mass.sum(-1, keepdim=True),
        recall=kept,
        tail_recall=kept / 2,
        error=error,
        norm=norm,
        projected_error=error / 2,
        projected_norm=norm / 2,
        layer_norm=norm.sum(-1),
        change=change,
        pairs=pairs.sort(-1).values,
    )
