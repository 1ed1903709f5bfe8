"""Computes every hash anew, as documented for each format, so that damage reaches deeper checks.

Where damage left no document, the files stay as they are: nothing reads past that anyway.
"""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from .plain import parse, rebuilt, sha256, tensors_of
from .specimen import AmbiguousError, Files

STATISTICS = (
    "mass", "recall", "tail_recall", "error", "norm", "projected_error", "projected_norm",
    "layer_norm", "change", "pairs",
)  # fmt: skip
"""The tensors of attention statistics in the order in which they are hashed."""
HOPELESS = (AmbiguousError, KeyError, TypeError, ValueError, AttributeError, RecursionError)
"""What is raised where damage left nothing that could hold a hash."""


def compact(body: Any) -> str:
    """Hashes JSON without spaces, keys sorted."""
    return sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def spaced(body: Any) -> str:
    """Hashes JSON with its usual spaces, keys sorted."""
    return sha256(json.dumps(body, sort_keys=True).encode())


def rendered(document: Any) -> bytes:
    """Returns JSON as every document of the package is written."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _without(document: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in fields}


def repaired(repair: Callable[[dict[str, bytes]], None]) -> Callable[[Files], Files]:
    """Makes a repair that gives up, file by file, where the bytes are no document."""

    def safely(files: Files) -> Files:
        found = dict(files)
        with contextlib.suppress(*HOPELESS):
            repair(found)
        return found

    return safely


def seal(files: dict[str, bytes], name: str) -> str:
    """Repairs a document whose hash is of itself with that field empty; returns the hash."""
    document = parse(files[name])
    document["content_sha256"] = compact(document | {"content_sha256": ""})
    files[name] = rendered(document)
    return document["content_sha256"]


@repaired
def allocation(files: dict[str, bytes]) -> None:
    """Of `allocation.json`."""
    document = parse(files["allocation.json"])
    document["content_sha256"] = spaced(_without(document, "content_sha256"))
    files["allocation.json"] = rendered(document)


@repaired
def head_plan(files: dict[str, bytes]) -> None:
    """Of `plan.json`."""
    document = parse(files["plan.json"])
    document["content_sha256"] = spaced(_without(document, "content_sha256", "provenance"))
    files["plan.json"] = rendered(document)


@repaired
def statistics(files: dict[str, bytes]) -> None:
    """Of `statistics.safetensors`."""
    content = files["statistics.safetensors"]
    tensors, metadata = tensors_of(content)
    (name,) = metadata
    header = parse(metadata[name].encode())
    body = json.dumps(_without(header, "content_sha256"), sort_keys=True).encode()
    body += b"".join(tensors[part].tobytes() for part in STATISTICS)
    header["content_sha256"] = sha256(body)
    files["statistics.safetensors"] = rebuilt(content, metadata | {name: json.dumps(header)})


def program_of(files: dict[str, bytes]) -> str:
    """Repairs `program.json` beside its tensors; returns its hash."""
    document = parse(files["program.json"])
    tensors, _ = tensors_of(files["program.safetensors"])
    for name, tensor in tensors.items():
        if name in document["tensors"]:
            elements = np.ascontiguousarray(tensor, "<i8").tobytes()
            document["tensors"][name]["sha256"] = sha256(elements)
    document["content_sha256"] = spaced(_without(document, "content_sha256", "provenance"))
    files["program.json"] = rendered(document)
    return document["content_sha256"]


@repaired
def program(files: dict[str, bytes]) -> None:
    """Of a saved program."""
    program_of(files)


@repaired
def export(files: dict[str, bytes]) -> None:
    """Of an export: its program, every file's size and hash, and the manifest's own hash."""
    for step in (_program_in_export, _files_in_export):
        with contextlib.suppress(*HOPELESS):
            step(files)


def _program_in_export(files: dict[str, bytes]) -> None:
    found = program_of(files)
    manifest = parse(files["manifest.json"])
    manifest["program_sha256"] = found
    files["manifest.json"] = rendered(manifest)


def _files_in_export(files: dict[str, bytes]) -> None:
    manifest = parse(files["manifest.json"])
    for part in ("documents", "memory", "golden"):
        for record in manifest[part]:
            if record.get("path") in files:
                content = files[record["path"]]
                record["bytes"], record["sha256"] = len(content), sha256(content)
    files["manifest.json"] = rendered(manifest)
    seal(files, "manifest.json")


@repaired
def weights(files: dict[str, bytes]) -> None:
    """Of a folder of weights, and of a checkpoint of a training."""
    document = parse(files["model.json"])
    document["tensors_sha256"] = sha256(files["model.safetensors"])
    files["model.json"] = rendered(document)
    model = seal(files, "model.json")
    if "training.json" in files:
        document = parse(files["training.json"])
        document["tensors_sha256"] = sha256(files["training.safetensors"])
        document["model_sha256"] = model
        files["training.json"] = rendered(document)
        seal(files, "training.json")


@repaired
def reconstruction(files: dict[str, bytes]) -> None:
    """Of the blocks of a reconstruction and of its run."""
    run = seal(files, "run.json")
    for name in files:
        if not name.startswith("block-"):
            continue
        tensors, metadata = tensors_of(files[name])
        document = parse(metadata["block"].encode())
        names = sorted(tensors)
        content = b"".join(
            f"{tensors[key].dtype} {tensors[key].shape}".encode() + tensors[key].tobytes()
            for key in names
        )
        document["tensors_sha256"] = sha256((json.dumps(names) + sha256(content)).encode())
        document["run_sha256"] = run
        document["content_sha256"] = compact(document | {"content_sha256": ""})
        text = rendered(document).decode()
        files[name] = rebuilt(files[name], metadata | {"block": text})
