"""What the checks of ONNX files share: reading a file back, and counting what differs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from photomask.chip.forms.form import FormCheck, Sample
from photomask.chip.forms.onnx_builder import LARGEST_MODEL, PROGRAM_HASH, onnx_package
from photomask.chip.program import IntegerProgram, NumpyEngine
from photomask.documents import read_bytes
from photomask.errors import DataError, DocumentError

if TYPE_CHECKING:
    import onnx


def read_onnx(path: Path, program: IntegerProgram) -> "onnx.ModelProto":
    """Reads a file that `save_onnx` wrote.

    Args:
        path: of the file.
        program: that it must be a form of.

    Raises:
        DocumentError: it is missing, no ONNX model, or says that it is of another program.
        MissingDependencyError: the package onnx is not installed.
    """
    load = onnx_package().load_model_from_string
    content = read_bytes(path, LARGEST_MODEL)
    try:
        model = load(content)
    except Exception as error:  # protobuf's own, whose class depends on how it was built
        raise DocumentError(f"cannot read {path}: it is no ONNX model: {error}") from error
    told = {entry.key: entry.value for entry in model.metadata_props}.get(PROGRAM_HASH)
    if told != program.content_hash():
        raise DocumentError(
            f"{path} is of the program {told or 'of an unknown tool'}, not of "
            f"{program.content_hash()}; export it again"
        )
    return model


def oracle_edges(
    program: IntegerProgram, samples: Sequence[Sample]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields the position of each sample and every edge, as the oracle computes it.

    Raises:
        DataError: there are no samples, or they do not fit the program.
    """
    if not samples:
        raise DataError("a model is checked on samples; pass at least one")
    engine = NumpyEngine(program)
    for position, sample in enumerate(samples):
        yield position, dict(engine.edges(sample))


class Tally:
    """Counts integers, and those that differ by more than a bound.

    Attributes:
        integers: how many were compared.
        mismatches: how many differ by more than their bound.
        problems: the first mismatch, and what else is wrong.
    """

    def __init__(self):
        self.integers = 0
        self.mismatches = 0
        self.problems: list[str] = []

    def add(
        self, edge: str, sample: int, found: np.ndarray, expected: np.ndarray, bound: int = 0
    ) -> int:
        """Compares one edge of one sample.

        Args:
            edge: how messages call it.
            sample: its position.
            found: integers.
            expected: the oracle's integers.
            bound: how far each may lie from the oracle's.

        Returns:
            How many differ at all.
        """
        self.integers += expected.size
        if found.shape != expected.shape:
            self._mismatch(
                expected.size,
                f"{edge!r}, sample {sample}: shape {found.shape}, not {expected.shape}",
            )
            return expected.size
        distance = np.abs(found - expected)
        if (wrong := distance > bound).any():
            at = tuple(int(index) for index in np.argwhere(wrong)[0])
            self._mismatch(
                int(np.count_nonzero(wrong)),
                f"{edge!r}, sample {sample}, element {list(at)}: {found[at]}, the oracle has "
                f"{expected[at]}",
            )
        return int(np.count_nonzero(distance))

    def _mismatch(self, count: int, description: str) -> None:
        if not self.mismatches:
            self.problems.append(description)
        self.mismatches += count

    def result(self) -> FormCheck:
        """Returns what came of it."""
        return FormCheck(self.integers, self.mismatches, tuple(self.problems))
