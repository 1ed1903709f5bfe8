"""Tells lmms-eval which models with a head plan there are, without importing any of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from photomask.dependencies import OptionalPackage

PREFIX = "photomask_"
"""How the names of the models with a plan begin. The name of lmms-eval's own model follows."""

WRAPPERS = {
    "gemma3": ("simple",),
    "internvl_hf": ("chat",),
    "llava_hf": ("simple", "chat"),
    "qwen2_5_vl": ("simple", "chat"),
    "qwen2_vl": ("simple",),
    "qwen3_vl": ("simple", "chat"),
}
"""The models of lmms-eval that hold a model of transformers of a supported family, and the kinds of
prompts that each takes: `simple` takes the pictures first and then the text, `chat` takes both in
their order."""


def manifests() -> list[Any]:
    """Returns the `ModelManifest`s of the models with a plan. It is the entry point of lmms-eval.

    Raises:
        MissingDependencyError: lmms-eval is not installed.
    """
    with OptionalPackage("lmms-eval", "'photomask[lmms-eval]'", "a model of lmms-eval"):
        registry = import_module("lmms_eval.models.registry_v2")
    found = []
    for name, kinds in WRAPPERS.items():
        paths = {f"{kind}_class_path": class_path(name, kind) for kind in kinds}
        found.append(registry.ModelManifest(model_id=PREFIX + name, **paths))
    return found


def class_path(name: str, kind: str) -> str:
    """Returns the place of the class that wraps a model of lmms-eval. It is made on demand."""
    return f"photomask.lmms_eval.models.{name}_{kind}"
