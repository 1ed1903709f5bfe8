"""Models of transformers: read within bounds, every weight from the checkpoint."""

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
"""Names of weights that an error lists."""
DOCUMENTS = (".jinja", ".json", ".model", ".txt")
TENSORS = (".bin", ".safetensors")

__all__ = ["check_model_folder", "load_pretrained"]


class _Index(Document):
    """Which file holds which tensor; transformers writes more beside it."""

    model_config = ConfigDict(extra="ignore")
    weight_map: dict[str, str]


def check_model_folder(source: str | Path) -> None:
    """Holds that the files of a model are plain ones in its folder, before transformers opens them.

    Args:
        source: a folder that `save_pretrained` wrote; an id of the hub is not looked at.

    Raises:
        DocumentError: a file is a device, a pipe or too large; or an index is no valid one, or
            names a file that is not in the folder.
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
                f"{path} names the file {name!r}: expected a file of tensors in the same folder"
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
                        f"{path.parent}: both {holders[tensor]} and {name} hold {tensor!r}"
                    )


def load_pretrained(
    model_class: Any, source: str | Path, *, exact: bool = False, **options: Any
) -> Any:
    """Loads a model; transformers alone would draw random numbers for weights that are missing.

    Args:
        model_class: of transformers, such as `AutoModelForImageTextToText`.
        source: a folder that `save_pretrained` wrote, or an id of the hub.
        exact: whether weights that the model does not have are refused too.
        **options: of `from_pretrained`.

    Raises:
        DocumentError: the folder holds something that is not to be opened.
        DataError: the checkpoint lacks a weight of the model, or has others and must not.
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
