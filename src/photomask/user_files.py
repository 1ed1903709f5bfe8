"""Runs functions in the user's own files, which are given as `path/to/file.py:function`."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from photomask.documents import is_file
from photomask.errors import PhotomaskError, UsageError


def evaluate(source: str, kept: type | None = None) -> Any:
    """Returns the attribute `path/to/file.py:attribute`, or the result of its call if callable.

    Args:
        source: the file and the name of the attribute. The file can import modules beside it.
        kept: a class. Objects of it are returned as they are, although they are callable.

    Raises:
        UsageError: there is no such file or attribute, or running it failed. In this case, the
            original error is the `__cause__`.
    """
    path_text, _, attribute = source.rpartition(":")
    path = Path(path_text)
    if not is_file(path):
        raise UsageError(
            f"there is no file {path_text!r} (in {source!r}, which is read as file:function)"
        )
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        module = _import(path.resolve())
        if not attribute or not hasattr(module, attribute):
            raise UsageError(
                f"{path} has no attribute {attribute!r}; it has: {', '.join(_public(module))}"
            )
        value = getattr(module, attribute)
        is_kept = kept is not None and isinstance(value, kept)
        return value() if callable(value) and not is_kept else value
    except PhotomaskError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"running {source} failed: {type(error).__name__}: {error}") from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _import(path: Path) -> Any:
    """Imports a file under a unique module name, so that `inspect` can find its source."""
    name = f"photomask_user_{path.stem}"
    if name in sys.modules and sys.modules[name].__file__ != str(path):
        name += "_" + hashlib.sha256(str(path).encode()).hexdigest()[:8]
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _public(module: Any) -> list[str]:
    """Returns the public names that the file itself defines."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ] or ["nothing of its own"]


def kind_of(value: Any) -> str:
    """Returns the class of a value with its module, for messages."""
    return f"{type(value).__module__}.{type(value).__qualname__}"
