"""The storages of weights that leave out zeros: N:M, bitmap, run lengths, and occupied blocks.

`smallest` chooses one for a weight.
"""

from photomask.chip.forms.memory.storages.base import Storage, Streams
from photomask.chip.forms.memory.storages.bitmap import BitmapStorage
from photomask.chip.forms.memory.storages.choice import (
    STORAGES,
    dense_bits,
    smallest,
    stored_bits,
)
from photomask.chip.forms.memory.storages.n_of_m import NofMStorage
from photomask.chip.forms.memory.storages.occupied_blocks import BlockStorage
from photomask.chip.forms.memory.storages.run_length import RunLengthStorage

__all__ = [
    "STORAGES",
    "BitmapStorage",
    "BlockStorage",
    "NofMStorage",
    "RunLengthStorage",
    "Storage",
    "Streams",
    "dense_bits",
    "smallest",
    "stored_bits",
]
