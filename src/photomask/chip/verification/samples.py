"""The samples on which program and float model differ most."""

import base64
import struct
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from photomask.chip.verification.documents import SampleReport
from photomask.chip.verification.outputs import is_classes
from photomask.report import NoiseMeter

WORST_SAMPLES = 8
LARGEST_PICTURE = 64
"""Pixels along an axis; of larger inputs a report shows no picture."""


class WorstSamples:
    """Collects the samples that differ most in one output, batch by batch.

    Samples that the two put in different classes come first, then those of the lowest signal over
    noise.

    Args:
        count: how many to keep.
    """

    def __init__(self, count: int = WORST_SAMPLES):
        self.count = count
        self.found: list[SampleReport] = []
        self._seen = 0

    def add(self, value: Tensor, real: Tensor, labels: Tensor | None) -> None:
        """Counts a batch.

        Args:
            value: the float model's output, samples at axis 0.
            real: what the program's integers stand for.
            labels: the right classes, or None.
        """
        classes = (value.argmax(1), real.argmax(1)) if is_classes(tuple(value.shape)) else None
        flat, other = value.double().flatten(1), real.double().flatten(1)
        signal, noise = flat.square().sum(1).tolist(), (other - flat).square().sum(1).tolist()
        for place in range(len(value)):
            self.found.append(
                SampleReport(
                    index=self._seen + place,
                    sqnr_db=NoiseMeter(signal[place], noise[place]).sqnr_db,
                    label=None if labels is None else int(labels[place]),
                    float_class=None if classes is None else int(classes[0][place]),
                    integer_class=None if classes is None else int(classes[1][place]),
                    picture=None,
                )
            )
        self._seen += len(value)
        self.found.sort(key=lambda sample: (sample.same_class, sample.sqnr_db))
        del self.found[self.count :]

    def reports(self, inputs: Sequence[Tensor]) -> tuple[SampleReport, ...]:
        """Returns the samples, worst first, with a picture where the input is a small one.

        Args:
            inputs: all samples, one tensor for each input.
        """
        pictures = inputs[0] if len(inputs) == 1 and _are_small(inputs[0]) else None
        if pictures is None:
            return tuple(self.found)
        return tuple(
            sample.model_copy(update={"picture": _png(pictures[sample.index])})
            for sample in self.found
        )


def _are_small(x: Tensor) -> bool:
    """Tells whether inputs look like pictures that a report can hold."""
    if x.ndim != 4 or not x.is_floating_point():
        return False
    return x.shape[1] in (1, 3) and max(x.shape[2:]) <= LARGEST_PICTURE


def _png(x: Tensor) -> str:
    """Returns a picture as a PNG file in base64; its smallest value is black, its largest white.

    Args:
        x: [1 or 3, height, width].
    """
    low, high = (float(end) for end in x.aminmax())
    shades = ((x - low) / ((high - low) or 1.0) * 255).round().to(torch.uint8)
    channels, height, width = shades.shape
    rows = shades.permute(1, 2, 0).reshape(height, -1).cpu().numpy()
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    colour = 0 if channels == 1 else 2
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return base64.b64encode(
        b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in parts)
    ).decode()


def _chunk(kind: bytes, body: bytes) -> bytes:
    """Returns a chunk of a PNG file: length, kind, body, checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
