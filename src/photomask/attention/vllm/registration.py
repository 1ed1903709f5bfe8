"""The entry point of the plug-in. vLLM calls it in every process, and sometimes more than once."""

from __future__ import annotations

import importlib
import logging

from photomask.attention.vllm.front_end import guard_requests
from photomask.attention.vllm.serving import BACKEND, OWN_NAME
from photomask.dependencies import OptionalPackage
from photomask.errors import UsageError

_LOG = logging.getLogger(__name__)

TESTED_VERSIONS = ("0.22.1", "0.33.0")
"""The versions of vLLM with which the plug-in works."""


def check_version(version: str) -> None:
    """Checks that the plug-in was tested with a version of vLLM.

    Raises:
        UsageError: it was not.
    """
    if version not in TESTED_VERSIONS:
        raise UsageError(
            f"vLLM {version} is installed, but head plans were tested with vLLM "
            f"{' and '.join(TESTED_VERSIONS)} only; install one of these, for example with "
            f"pip install 'vllm=={TESTED_VERSIONS[0]}'"
        )


def register() -> None:
    """Registers the attention back end with vLLM, and the check of requests.

    The back end is used only if `--attention-backend` chooses it. A version of vLLM that was not
    tested gets a back end that refuses to load, so that servers without a plan still start.

    Raises:
        MissingDependencyError: vLLM is not installed.
        BrokenDependencyError: vLLM is installed, but its import fails.
    """
    with OptionalPackage("vllm", "vllm", "serving a head plan"):
        vllm = importlib.import_module("vllm")
        registry = importlib.import_module("vllm.v1.attention.backends.registry")
    _log_like(logging.getLogger("vllm"))
    backends = registry.AttentionBackendEnum
    if backends.CUSTOM.is_overridden() and backends.CUSTOM.get_path() != BACKEND:
        _LOG.warning(
            "another plug-in has registered the attention back end CUSTOM (%s), so no head plan "
            "can be served by this name",
            backends.CUSTOM.get_path(),
        )
    else:
        registry.register_backend(backends.CUSTOM, BACKEND)
    if vllm.__version__ == TESTED_VERSIONS[1] and OWN_NAME not in backends.__members__:
        registry.register_backend(OWN_NAME, BACKEND)
    if vllm.__version__ in TESTED_VERSIONS:
        processor = importlib.import_module("vllm.v1.engine.input_processor")
        guard_requests(processor.InputProcessor)


def _log_like(other: logging.Logger) -> None:
    """Makes this package log as another logger does, unless the user has configured it."""
    own = logging.getLogger(__package__)
    if not own.handlers and other.handlers:
        own.handlers = [*other.handlers]
        own.setLevel(other.level)
        own.propagate = False
