"""Reads ONNX files back and counts the integers that differ, for the checks of all ONNX forms."""

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
        path: the path of the file.
        program: the program that the file must have been made from.

    Raises:
        DocumentError: the file is missing, is not an ONNX model, or was made from another program.
        MissingDependencyError: the package onnx is not installed.
    """
    load = onnx_package().load_model_from_string
    content = read_bytes(path, LARGEST_MODEL)
    try:
        model = load(content)
    except Exception as error:  # the class of protobuf's error depends on how protobuf was built
        raise DocumentError(f"cannot read {path}: it is not an ONNX model: {error}") from error
    told = {entry.key: entry.value for entry in model.metadata_props}.get(PROGRAM_HASH)
    if told != program.content_hash():
        raise DocumentError(
            f"{path} was made from {f'the program {told}' if told else 'no known program'}, "
            f"expected the program {program.content_hash()}; export it again"
        )
    return model


def oracle_edges(
    program: IntegerProgram, samples: Sequence[Sample]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields each sample's index and the integers of all its edges, as the oracle computes them.

    Raises:
        DataError: there are no samples, or they do not fit the program.
    """
    if not samples:
        raise DataError("a model is checked on samples; pass at least one")
    engine = NumpyEngine(program)
    for position, sample in enumerate(samples):
        yield position, dict(engine.edges(sample))


class Tally:
    """Counts the integers that were compared, and those that differ by more than a bound.

    Attributes:
        integers: how many integers were compared.
        mismatches: how many of them differ by more than their bound.
        problems: a description of the first mismatch, and everything else that is wrong.
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
            edge: the name of the edge, for messages.
            sample: the index of the sample.
            found: the integers that were computed.
            expected: the oracle's integers.
            bound: how far each integer may lie from the oracle's.

        Returns:
            How many integers differ at all, also those within the bound.
        """
        self.integers += expected.size
        if found.shape != expected.shape:
            self._mismatch(
                expected.size,
                f"{edge!r}, sample {sample}: found the shape {found.shape}, expected "
                f"{expected.shape}",
            )
            return expected.size
        distance = np.abs(found - expected)
        if (wrong := distance > bound).any():
            at = tuple(int(index) for index in np.argwhere(wrong)[0])
            self._mismatch(
                int(np.count_nonzero(wrong)),
                f"{edge!r}, sample {sample}, element {list(at)}: found {found[at]}, but the "
                f"oracle has {expected[at]}",
            )
        return int(np.count_nonzero(distance))

    def _mismatch(self, count: int, description: str) -> None:
        if not self.mismatches:
            self.problems.append(description)
        self.mismatches += count

    def result(self) -> FormCheck:
        """Returns the counts and problems as the result of a check."""
        return FormCheck(self.integers, self.mismatches, tuple(self.problems))
