"""Imports of optional packages: absent and broken ones are told apart."""

from __future__ import annotations

import importlib.util
from types import TracebackType

from photomask.errors import BrokenDependencyError, MissingDependencyError, PhotomaskError

_MODULES = {
    "ai-edge-model-explorer": "model_explorer",
    "pillow": "PIL",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
}
"""What a package is imported as, where that is not its name."""


class OptionalPackage:
    """Surrounds the imports of an optional package.

    ```python
    with OptionalPackage("jinja2", "report", "the HTML report"):
        import jinja2
    ```

    Nothing but imports may stand inside, since every error counts as one of the import.
    """

    def __init__(self, package: str, install: str, purpose: str):
        """Says what is imported, as `MissingDependencyError` takes it.

        Args:
            package: the distribution's name.
            install: an extra of Photomask (`report`), or the arguments of `pip install`.
            purpose: what needs it.
        """
        self._package = package
        self._install = install
        self._purpose = purpose

    def __enter__(self) -> None:
        """Begins the imports."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Turns what an import raised into an error that says what to do.

        Raises:
            MissingDependencyError: the package is not installed.
            BrokenDependencyError: it is installed, and its import fails; has its own message.
        """
        if not isinstance(error, Exception) or isinstance(error, PhotomaskError):
            return
        module = _module_of(self._package)
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == module:
            raise MissingDependencyError(self._package, self._install, self._purpose) from error
        raise BrokenDependencyError(self._package, self._purpose, error) from error


def require_package(package: str, install: str, purpose: str) -> None:
    """Looks for an optional package without importing it, so that long work need not start.

    Args:
        package: the distribution's name.
        install: an extra of Photomask (`report`), or the arguments of `pip install`.
        purpose: what needs it.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    if importlib.util.find_spec(_module_of(package)) is None:
        raise MissingDependencyError(package, install, purpose)


def _module_of(package: str) -> str:
    """Returns what a package is imported as."""
    return _MODULES.get(package, package.replace("-", "_"))
