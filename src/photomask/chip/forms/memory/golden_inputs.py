"""Reads the inputs of an export's golden vectors back, so that they can be exported again."""

from pathlib import Path

import numpy as np

from photomask.chip.forms.memory.comparison import decode_whole
from photomask.chip.forms.memory.manifest import Manifest
from photomask.errors import DocumentError


def golden_inputs(folder: str | Path) -> dict[str, np.ndarray]:
    """Returns the inputs of every golden sample of an export.

    Args:
        folder: the folder that `export` wrote.

    Returns:
        int64 codes by input name, each of shape [samples, …].

    Raises:
        DocumentError: the manifest or an input's file is missing, truncated or altered.
    """
    folder = Path(folder)
    manifest = Manifest.load(folder)
    found: dict[str, list[np.ndarray]] = {name: [] for name in manifest.inputs}
    for record in manifest.golden:
        values = found.get(record.edge)
        if values is None or len(values) > record.sample:
            continue  # the edge is not an input, or the sample was already read in another encoding
        path = folder / record.path
        try:
            image = decode_whole(path, manifest, record)
        except DocumentError as error:
            raise DocumentError(f"{path}: {error}; export the program again") from error
        values.append(record.order.restore(image, record.shape))
    return {name: np.concatenate(values) for name, values in found.items()}
