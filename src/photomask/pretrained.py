"""Loads models of transformers safely, and checks that all weights come from the checkpoint."""

import os
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from photomask.arrays import tensor_file
from photomask.documents import (
    DOCUMENT_BYTES,
    TENSOR_BYTES,
    Document,
    check_regular,
    is_folder,
    read_text,
)
from photomask.errors import DataError, DocumentError

SHOWN = 3
"""The number of weights that an error names."""
DOCUMENTS = (".jinja", ".json", ".model", ".txt")
TENSORS = (".bin", ".safetensors")

__all__ = ["check_model_folder", "load_pretrained"]


class _Index(Document):
    """The file for each tensor in an index. Other fields of the index are ignored."""

    model_config = ConfigDict(extra="ignore")
    weight_map: dict[str, str]


def check_model_folder(source: str | Path) -> None:
    """Checks the files of a model before transformers opens them.

    They must be regular files in the folder of the model.

    Args:
        source: a folder that `save_pretrained` wrote. An id of the hub is not checked.

    Raises:
        DocumentError: a file is a device, a pipe or too large, an index is not valid or names a
            file that is not in the folder, or two files hold the same tensor.
    """
    if not is_folder(source):
        return
    folder = Path(source)
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DocumentError(f"cannot read the folder {folder}: {error}") from error
    for path in paths:
        if path.suffix in DOCUMENTS:
            check_regular(path, DOCUMENT_BYTES)
        elif path.suffix in TENSORS:
            check_regular(path, TENSOR_BYTES)
    for path in paths:
        if path.name.endswith(".index.json"):
            _check_index(path)


def _check_index(path: Path) -> None:
    index = _Index.parse(read_text(path), str(path))
    for name in sorted(set(index.weight_map.values())):
        if os.path.basename(name) != name or not name.endswith(TENSORS):
            raise DocumentError(
                f"{path} names the file {name!r}, but a file of tensors in the same folder was "
                "expected"
            )
        check_regular(path.parent / name, TENSOR_BYTES)
    holders: dict[str, str] = {}
    for name in sorted(set(index.weight_map.values())):
        if not name.endswith(".safetensors"):
            continue
        with tensor_file(path.parent / name, "np") as file:
            for tensor in file.keys():  # noqa: SIM118
                if holders.setdefault(tensor, name) != name:
                    raise DocumentError(
                        f"{path.parent}: both {holders[tensor]} and {name} hold the tensor "
                        f"{tensor!r}; expected it in one of them"
                    )


def load_pretrained(
    model_class: Any, source: str | Path, *, exact: bool = False, **options: Any
) -> Any:
    """Loads a model, and refuses a checkpoint without all of its weights.

    transformers alone would draw random numbers for missing weights.

    Args:
        model_class: a class of transformers, such as `AutoModelForImageTextToText`.
        source: a folder that `save_pretrained` wrote, or an id of the hub.
        exact: whether weights that the model does not have are refused too.
        **options: the options of `from_pretrained`.

    Raises:
        DocumentError: `check_model_folder` refuses the folder.
        DataError: the checkpoint lacks a weight of the model, or it has other weights and `exact`
            is true.
    """
    check_model_folder(source)
    model, report = model_class.from_pretrained(source, output_loading_info=True, **options)
    for kind, what in (("missing_keys", "lacks"), ("unexpected_keys", "has, beside the model's,")):
        names = sorted(report[kind])
        if names and (exact or kind == "missing_keys"):
            raise DataError(
                f"the checkpoint {source} {what} {len(names)} weights: {', '.join(names[:SHOWN])}"
                f"{', …' if len(names) > SHOWN else ''}. Compare its tensor files with "
                "config.json, or fetch them again"
            )
    return model
