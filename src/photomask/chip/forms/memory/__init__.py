"""The memory form: a program as memory images, golden vectors and a manifest, with their checks."""

from photomask.chip.forms.memory.bit_stream import (
    StreamPacking,
    check_stream,
    pack_stream,
    unpack_stream,
)
from photomask.chip.forms.memory.check_report import CheckReport, EdgeResult, Mismatch
from photomask.chip.forms.memory.compressed import CompressedWeight, StreamImage
from photomask.chip.forms.memory.export import MemoryForm
from photomask.chip.forms.memory.export_check import check_export
from photomask.chip.forms.memory.golden_inputs import golden_inputs
from photomask.chip.forms.memory.image import Encoding
from photomask.chip.forms.memory.manifest import Manifest
from photomask.chip.forms.memory.output_check import check_outputs
from photomask.chip.forms.memory.storages import (
    STORAGES,
    BitmapStorage,
    BlockStorage,
    NofMStorage,
    RunLengthStorage,
    Storage,
)
from photomask.chip.forms.memory.tile_images import WeightBlock, check_tile_images, tile_images

__all__ = [
    "STORAGES",
    "BitmapStorage",
    "BlockStorage",
    "CheckReport",
    "CompressedWeight",
    "EdgeResult",
    "Encoding",
    "Manifest",
    "MemoryForm",
    "Mismatch",
    "NofMStorage",
    "RunLengthStorage",
    "Storage",
    "StreamImage",
    "StreamPacking",
    "WeightBlock",
    "check_export",
    "check_outputs",
    "check_stream",
    "check_tile_images",
    "golden_inputs",
    "pack_stream",
    "tile_images",
    "unpack_stream",
]
