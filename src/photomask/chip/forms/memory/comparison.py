"""Compares edges element by element, and finds the steps that may have caused a mismatch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from photomask.chip.forms.memory.check_report import EdgeResult, Mismatch
from photomask.chip.forms.memory.element_order import axis_names
from photomask.chip.forms.memory.image import (
    Encoding,
    Image,
    decode,
    entries_of,
    most_bytes,
)
from photomask.chip.forms.memory.manifest import GoldenImage, ImageRecord, Manifest
from photomask.chip.program import Links
from photomask.documents import read_bytes
from photomask.errors import DocumentError


def decode_file(
    path: Path, manifest: Manifest, record: ImageRecord, encoding: Encoding | None = None
) -> Image:
    """Reads a file of integers.

    Args:
        path: the path of the file.
        manifest: the manifest of the export that describes the tensor or edge.
        record: a record of the same tensor or edge.
        encoding: the encoding of the file; None takes the record's encoding.

    Raises:
        DocumentError: the file cannot be read, or its content does not have this encoding.
    """
    packing, form = manifest.packing(record), encoding or record.encoding
    data = read_bytes(path, most_bytes(form, packing, record.elements))
    return decode(data, record.shape, record.order, packing, form)


def decode_whole(path: Path, manifest: Manifest, record: ImageRecord) -> np.ndarray:
    """Reads a file of integers that must be complete.

    Args:
        path: the path of the file.
        manifest: the manifest of the export that describes the file.
        record: the file's own record.

    Returns:
        The integers in memory order.

    Raises:
        DocumentError: the file cannot be read, its content does not have the record's encoding, or
            entries are missing or unknown.
    """
    image = decode_file(path, manifest, record)
    expected = entries_of(record.encoding, manifest.packing(record), record.elements)
    if image.entries != expected or image.unknown is not None:
        raise DocumentError(
            f"the file holds {image.entries} entries, expected {expected} without unknown digits"
        )
    return image.values


@dataclass
class _Count:
    matched: int = 0
    mismatched: int = 0
    missing: int = 0


@dataclass(frozen=True)
class _Candidate:
    """The first mismatch of one file."""

    record: GoldenImage
    file: str
    position: int
    expected: int
    found: int | None


class EdgeTally:
    """Counts the elements that match, over files of golden edges, and keeps the first mismatch."""

    def __init__(self, manifest: Manifest):
        self.manifest = manifest
        self._rank = {edge.name: rank for rank, edge in enumerate(manifest.edges)}
        self._makers = Links(manifest.steps, manifest.inputs, manifest.outputs).makers
        self._counts = {edge.name: _Count() for edge in manifest.edges}
        self._right: set[tuple[int, str]] = set()
        self._first: _Candidate | None = None

    def add(
        self,
        record: GoldenImage,
        file: str,
        expected: np.ndarray,
        found: np.ndarray,
        unknown: np.ndarray | None,
    ) -> None:
        """Compares one file.

        Args:
            record: the record of the edge and sample.
            file: the name of the file, for the report.
            expected: int64 [elements], in memory order.
            found: int64 [k] with k at most `elements`.
            unknown: bool [k], True for elements that have no value; None if all have one.
        """
        wrong = found != expected[: found.size]
        if unknown is not None:
            wrong |= unknown
        count, mismatched = self._counts[record.edge], int(np.count_nonzero(wrong))
        count.mismatched += mismatched
        count.matched += found.size - mismatched
        count.missing += expected.size - found.size
        if not mismatched:
            if found.size == expected.size:
                self._right.add((record.sample, record.edge))
            return
        at = int(np.argmax(wrong))
        is_unknown = unknown is not None and bool(unknown[at])
        candidate = _Candidate(
            record, file, at, int(expected[at]), None if is_unknown else int(found[at])
        )
        if self._first is None or self._key(candidate) < self._key(self._first):
            self._first = candidate

    def absent(self, record: GoldenImage) -> None:
        """Notes that there is no file for an edge and sample."""
        self._counts[record.edge].missing += record.elements

    def results(self) -> tuple[EdgeResult, ...]:
        """Returns the counts of every edge in the order of computation."""
        results = []
        for name, count in self._counts.items():
            step = self._makers.get(name)
            results.append(
                EdgeResult(
                    edge=name,
                    step=step.name if step else None,
                    operator=step.operator.kind if step else None,
                    matched=count.matched,
                    mismatched=count.mismatched,
                    missing=count.missing,
                )
            )
        return tuple(results)

    def first_mismatch(self) -> Mismatch | None:
        """Returns the mismatch that comes first in the order of computation, then of samples."""
        if self._first is None:
            return None
        record, at = self._first.record, self._first.position
        packing = self.manifest.packing(record)
        step = self._makers.get(record.edge)
        return Mismatch(
            sample=record.sample,
            edge=record.edge,
            step=step.name if step else None,
            operator=step.operator.kind if step else None,
            node=step.node if step else None,
            source=step.source if step else None,
            axes=axis_names(record.order, len(record.shape)),
            coordinate=record.order.coordinate(at, record.shape),
            word=at // packing.lanes * packing.words_per_element,
            lane=at % packing.lanes,
            expected=self._first.expected,
            found=self._first.found,
            suspects=self._suspects(record.sample, record.edge),
            file=self._first.file,
        )

    def _key(self, candidate: _Candidate) -> tuple[int, int, int]:
        record = candidate.record
        return self._rank[record.edge], record.sample, candidate.position

    def _suspects(self, sample: int, edge: str) -> tuple[str, ...]:
        """Returns the steps between the mismatch and the nearest edges that are known to match."""
        open_edges, suspects = [edge], set()
        while open_edges:
            maker = self._makers.get(open_edges.pop())
            if maker is None or maker.output in suspects:
                continue
            suspects.add(maker.output)
            open_edges += [name for name in maker.inputs if (sample, name) not in self._right]
        return tuple(step.name for step in self.manifest.steps if step.output in suspects)
