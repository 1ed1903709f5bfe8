"""Imports optional packages, and tells absent packages from broken ones."""

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
"""The names of the modules of packages whose modules have other names than the packages."""


class OptionalPackage:
    """Surrounds the imports of an optional package.

    ```python
    with OptionalPackage("jinja2", "report", "the HTML report"):
        import jinja2
    ```

    The block may contain only imports, because every error in it counts as an error of the import.
    """

    def __init__(self, package: str, install: str, purpose: str):
        """Names the package, in the terms of `MissingDependencyError`.

        Args:
            package: the name of the distribution.
            install: an extra of Photomask (`report`), or the arguments of `pip install`.
            purpose: the thing that needs the package. It is the subject of the message.
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
        """Replaces an error of an import by an error that says what to do.

        Raises:
            MissingDependencyError: the package is not installed.
            BrokenDependencyError: the package is installed, but its import fails. The message
                contains the error of the import.
        """
        if not isinstance(error, Exception) or isinstance(error, PhotomaskError):
            return
        module = _module_of(self._package)
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == module:
            raise MissingDependencyError(self._package, self._install, self._purpose) from error
        raise BrokenDependencyError(self._package, self._purpose, error) from error


def require_package(package: str, install: str, purpose: str) -> None:
    """Checks that an optional package is installed, without importing it.

    Functions call it first, so that long work does not start in vain.

    Args:
        package: the name of the distribution.
        install: an extra of Photomask (`report`), or the arguments of `pip install`.
        purpose: the thing that needs the package. It is the subject of the message.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    if importlib.util.find_spec(_module_of(package)) is None:
        raise MissingDependencyError(package, install, purpose)


def _module_of(package: str) -> str:
    """Returns the name of the module of a package."""
    return _MODULES.get(package, package.replace("-", "_"))
