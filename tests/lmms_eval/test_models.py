"""Models of lmms-eval with a plan: on a stand-in for it, and on lmms-eval where it is installed."""

import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

pytest.importorskip("transformers")

import torch
from tests.attention.tiny_models import tiny_inputs, tiny_model

from photomask.attention import HeadPlan, Pattern, convert, is_sparse
from photomask.errors import DocumentError, MissingDependencyError, PlanError, UsageError
from photomask.lmms_eval import manifests, models
from photomask.lmms_eval.registration import PREFIX, WRAPPERS

ROOT = Path(__file__).parents[2]
FAMILY = "qwen2_5_vl"


@dataclass(frozen=True)
class ModelManifest:
    """As lmms-eval 0.7.3 has it."""

    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


class Wrapper:
    """Loads, prepares and answers in the order in which the wrappers of lmms-eval 0.7.3 do."""

    is_simple = False
    loaded: Any = None
    prepared: ClassVar[list[Any]]

    def __init__(self, pretrained: str = "", batch_size: int = 1) -> None:
        self._model = self.loaded.eval()
        self._config = self.model.config
        self.pretrained = pretrained
        self._model = self.prepare(self.model)

    def prepare(self, model: Any) -> Any:
        """Stands for `Accelerator.prepare_model`, which returns the model that it was given."""
        type(self).prepared.append(model)
        return model

    @property
    def model(self) -> Any:
        return self._model

    def clean(self) -> None:
        for name in list(vars(self)):
            if isinstance(getattr(self, name), torch.nn.Module):
                delattr(self, name)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Wrapper]]:
    """A stand-in for lmms-eval, whose model `qwen2_5_vl` is the wrapper that is returned."""

    class Loaded(Wrapper):
        loaded = tiny_model(FAMILY)
        prepared: ClassVar[list[Any]] = []

    package, registry = ModuleType("lmms_eval.models"), ModuleType("lmms_eval.models.registry_v2")
    package.get_model = lambda name, force_simple: Loaded  # type: ignore[attr-defined]
    registry.ModelManifest = ModelManifest  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lmms_eval", ModuleType("lmms_eval"))
    monkeypatch.setitem(sys.modules, "lmms_eval.models", package)
    monkeypatch.setitem(sys.modules, "lmms_eval.models.registry_v2", registry)
    models._class_of.cache_clear()
    yield Loaded
    models._class_of.cache_clear()


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    HeadPlan.uniform(tiny_model(FAMILY), Pattern.INTRA_IMAGE).save(tmp_path / "plan.json")
    return tmp_path / "plan.json"


def test_the_manifests_name_a_class_for_every_kind_of_every_wrapper(harness: type[Wrapper]):
    found = {manifest.model_id: manifest for manifest in manifests()}
    assert list(found) == [PREFIX + name for name in WRAPPERS]
    assert found["photomask_qwen2_5_vl"] == ModelManifest(
        "photomask_qwen2_5_vl",
        "photomask.lmms_eval.models.qwen2_5_vl_simple",
        "photomask.lmms_eval.models.qwen2_5_vl_chat",
    )
    assert found["photomask_gemma3"].chat_class_path is None
    assert found["photomask_internvl_hf"].simple_class_path is None


def test_the_entry_point_of_the_package_is_the_function_of_the_manifests():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (place,) = project["entry-points"]["lmms_eval.models"].values()
    module, _, name = place.partition(":")
    assert getattr(importlib.import_module(module), name) is manifests


def test_listing_the_models_imports_no_pytorch():
    code = "import photomask.lmms_eval, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_lmms_eval_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    monkeypatch.setitem(sys.modules, "lmms_eval.models.registry_v2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'photomask\[lmms-eval\]'"):
        manifests()


@torch.no_grad()
def test_the_model_is_converted_before_accelerate_prepares_it(harness: type[Wrapper], plan: Path):
    wrapped = models.qwen2_5_vl_chat(plan=str(plan), pretrained="folder", batch_size=1)
    (prepared,) = harness.prepared
    assert is_sparse(prepared)
    assert wrapped.model is prepared
    assert wrapped.pretrained == "folder"
    assert not is_sparse(harness.loaded)
    inputs = tiny_inputs(FAMILY, [[2, "image", "image", 3]])
    expected = convert(harness.loaded, HeadPlan.load(plan))(**inputs).logits
    assert torch.equal(wrapped.model(**inputs).logits, expected)
    assert not torch.equal(expected, harness.loaded(**inputs).logits)


def test_a_folder_with_a_plan_is_taken_too(harness: type[Wrapper], plan: Path, tmp_path: Path):
    HeadPlan.load(plan).save_pretrained(tmp_path / "shared")
    assert is_sparse(models.qwen2_5_vl_chat(plan=str(tmp_path / "shared")).model)


def test_memory_is_freed_as_lmms_eval_frees_it(harness: type[Wrapper], plan: Path):
    wrapped = models.qwen2_5_vl_chat(plan=str(plan))
    wrapped.clean()
    assert not [value for value in vars(wrapped).values() if isinstance(value, torch.nn.Module)]


def test_without_a_plan_nothing_is_loaded_and_the_error_names_the_dense_model(
    harness: type[Wrapper],
):
    with pytest.raises(UsageError, match=r"needs a plan: .* the dense model is .*qwen2_5_vl$"):
        models.qwen2_5_vl_chat(pretrained="folder")
    assert harness.prepared == []


def test_a_plan_of_another_model_is_refused(harness: type[Wrapper], tmp_path: Path):
    HeadPlan.uniform(tiny_model("qwen2_vl"), Pattern.SINK).save(tmp_path / "other.json")
    with pytest.raises(PlanError, match="belongs to another model"):
        models.qwen2_5_vl_chat(plan=str(tmp_path / "other.json"))
    with pytest.raises(UsageError, match="no plan"):
        models.qwen2_5_vl_chat(plan="gone.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DocumentError):
        models.qwen2_5_vl_chat(plan=str(tmp_path / "broken.json"))
    assert harness.prepared == []


def test_a_model_that_accelerate_replaces_is_refused(
    harness: type[Wrapper], plan: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(harness, "prepare", lambda self, model: torch.nn.Sequential(model))
    with pytest.raises(UsageError, match="FSDP or DeepSpeed"):
        models.qwen2_5_vl_chat(plan=str(plan))


def test_a_kind_that_this_version_of_lmms_eval_lacks_is_refused(harness: type[Wrapper]):
    with pytest.raises(UsageError, match="no simple model 'qwen2_5_vl'"):
        _ = models.qwen2_5_vl_simple


@pytest.mark.parametrize("name", ["gemma3_chat", "qwen2_5_vl", "qwen9_vl_chat", "_chat"])
def test_there_is_no_class_of_another_name(name: str):
    assert not hasattr(models, name)


def test_lmms_eval_registers_and_resolves_every_model():
    registry_module = pytest.importorskip("lmms_eval.models.registry_v2")
    registry = registry_module.ModelRegistryV2()
    for manifest in manifests():
        registry.register_manifest(manifest)
    assert registry.list_canonical_model_ids() == sorted(PREFIX + name for name in WRAPPERS)
    for name, kinds in WRAPPERS.items():
        for kind in kinds:
            found = registry.resolve(PREFIX + name, force_simple=kind == "simple")
            assert (found.model_type, found.class_name) == (kind, f"{name}_{kind}")


def test_lmms_eval_has_every_wrapper_and_gives_it_a_plan():
    pytest.importorskip("lmms_eval.models")
    pytest.importorskip("qwen_vl_utils")
    pytest.importorskip("decord")
    pytest.importorskip("av")
    for name, kinds in WRAPPERS.items():
        for kind in kinds:
            found = getattr(models, f"{name}_{kind}")
            assert issubclass(found, models.WithPlan)
            assert found.is_simple is (kind == "simple")
