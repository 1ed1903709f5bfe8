"""The entry point registers the back end, as often as it is called, for tested versions only."""

from __future__ import annotations

import importlib
import logging
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from tests.attention.vllm import stand_in

from photomask.attention.vllm.registration import TESTED_VERSIONS, check_version, register
from photomask.attention.vllm.serving import BACKEND
from photomask.errors import MissingDependencyError, UsageError

CUSTOM = stand_in.AttentionBackendEnum.CUSTOM


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in, "REGISTERED", {})

    class Unguarded(stand_in.InputProcessor):
        pass

    monkeypatch.setattr(stand_in, "InputProcessor", Unguarded)


@pytest.mark.parametrize("version", TESTED_VERSIONS)
def test_registering_twice_is_registering_once(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    stand_in.install(monkeypatch, version)
    register()
    guarded = stand_in.InputProcessor.process_inputs
    register()
    assert stand_in.REGISTERED[CUSTOM] == BACKEND
    assert stand_in.InputProcessor.process_inputs is guarded
    assert ("PHOTOMASK" in stand_in.REGISTERED) == (version == "0.33.0")


def test_a_version_that_was_not_tested_starts_but_refuses_the_back_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in.install(monkeypatch, "0.25.0")
    process = stand_in.InputProcessor.process_inputs
    register()
    assert stand_in.InputProcessor.process_inputs is process
    with pytest.raises(UsageError, match=r"vLLM 0\.25\.0 is installed, but head plans were tested"):
        importlib.import_module(BACKEND.rpartition(".")[0])


def test_a_back_end_of_another_plugin_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.install(monkeypatch, "0.22.1")
    stand_in.REGISTERED[CUSTOM] = "other.Backend"
    with caplog.at_level(logging.WARNING, "photomask"):
        register()
    assert stand_in.REGISTERED[CUSTOM] == "other.Backend"
    assert "other.Backend" in caplog.text


def test_without_vllm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stand_in.sys.modules, "vllm", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'photomask\[vllm\]'"):
        register()


@pytest.mark.parametrize("version", ["0.22.0", "0.22.2", "0.34.0", "0.22.1+cpu"])
def test_only_tested_versions_pass(version: str) -> None:
    with pytest.raises(UsageError, match=r"pip install 'vllm==0\.22\.1'"):
        check_version(version)


def test_the_package_declares_the_entry_point() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    declared = tomllib.loads(text)["project"]["entry-points"]["vllm.general_plugins"]
    found = metadata.EntryPoint("photomask", declared["photomask"], "vllm.general_plugins")
    assert found.load() is register
