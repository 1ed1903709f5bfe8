"""The memory form: a folder with everything that a hardware team needs to verify a program."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER, VECTORS_FILE
from photomask.chip.forms.conformance.vectors import conformance_vectors
from photomask.chip.forms.file_records import FileRecord
from photomask.chip.forms.form import FormCheck, Sample
from photomask.chip.forms.golden import golden_edges
from photomask.chip.forms.memory.compressed import CompressedWeight, StreamImage
from photomask.chip.forms.memory.export_check import check_export, file_problem
from photomask.chip.forms.memory.image import Encoding, encode
from photomask.chip.forms.memory.manifest import (
    DOCUMENT_FILES,
    MANIFEST_FILE,
    README_FILE,
    GoldenImage,
    ImageRecord,
    Manifest,
    TensorImage,
    describe,
)
from photomask.chip.forms.memory.readme import render_readme
from photomask.chip.forms.memory.storages import STORAGES
from photomask.chip.forms.memory.stream_file import encode_stream
from photomask.chip.forms.writers import Problem
from photomask.chip.operators import Operator
from photomask.chip.program import IntegerProgram
from photomask.documents import written_whole
from photomask.errors import DataError, DocumentError, UsageError

Record = TypeVar("Record", bound=ImageRecord)
File = TypeVar("File", bound=FileRecord)


@dataclass(frozen=True)
class MemoryForm:
    """A program, its memory images and its golden vectors, in a folder that needs nothing else.

    The subfolder `conformance` holds conformance vectors as a small program. They prove that a
    receiver rescales correctly, whatever the data of the network.

    Attributes:
        encodings: the encodings that each tensor is written in, any of "hex", "bin", "dec" and
            "npy". They are sorted in the order of `Encoding`, and each is kept once.
        compression: the storages that weights may be compressed to, any of "n:m", "bitmap",
            "run-length" and "blocks". Each weight gets the one that takes the fewest bits, and is
            dense if none takes fewer bits than its image. Without any, all weights are dense.
    """

    name: ClassVar[str] = "memory"
    title: ClassVar[str] = "memory images, golden vectors and a manifest, for hardware teams"
    place: ClassVar[str] = "."
    encodings: tuple[str, ...] = ("hex",)
    compression: tuple[str, ...] = ()

    def __post_init__(self):
        known = [encoding.value for encoding in Encoding]
        asked = [self.encodings] if isinstance(self.encodings, str) else list(self.encodings)
        if odd := [name for name in asked if name not in known]:
            raise UsageError(f"unknown encoding {odd[0]!r}; choose from {', '.join(known)}")
        if not asked:
            raise UsageError(f"no encoding given; choose from {', '.join(known)}")
        object.__setattr__(self, "encodings", tuple(name for name in known if name in asked))
        given = self.compression
        chosen = [given] if isinstance(given, str) else list(given)
        if odd := [name for name in chosen if name not in STORAGES]:
            raise UsageError(f"unknown compression {odd[0]!r}; choose from {', '.join(STORAGES)}")
        object.__setattr__(self, "compression", tuple(n for n in STORAGES if n in chosen))

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns None, because every tensor and edge has an image, whatever computes it."""
        return None

    def problems(self, program: IntegerProgram) -> list[Problem]:
        """Returns an empty list, because every program can be written as memory images."""
        return []

    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> Manifest:
        """Writes the folder; the same program and samples give the same bytes.

        Args:
            program: the program to write.
            place: the folder. An earlier export there is replaced.
            samples: the samples that the golden vectors are made from, at least one.

        Returns:
            The manifest, as it was written.

        Raises:
            DataError: there are no samples.
            ExportError: the folder holds something else, or a file could not be written to the
                disk.
        """
        if not samples:
            raise DataError(
                "memory images need at least one sample for their golden vectors, got none; pass "
                "inputs"
            )
        encodings = tuple(map(Encoding, self.encodings))
        with written_whole(place, "chip export", _files_of_earlier) as staging:
            return write_export(program, staging, samples, encodings, self.compression)

    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        """Checks every file of the folder, and runs the oracle on the files alone.

        Args:
            program: the program that the folder must hold.
            place: the folder.
            samples: not used, because the golden vectors hold their own inputs.

        Raises:
            UsageError: there is no such folder.
        """
        report = check_export(place)
        problems = list(report.problems)
        if report.first_mismatch is not None:
            problems.append(str(report.first_mismatch))
        if not problems and Manifest.load(place).program_sha256 != program.content_hash():
            problems.append(
                f"{place} holds another program than the one that was given; export it again"
            )
        mismatches = sum(edge.mismatched for edge in report.edges)
        matched = sum(edge.matched for edge in report.edges)
        return FormCheck(matched + mismatches, mismatches, tuple(problems))


def _files_of_earlier(folder: Path) -> tuple[str, ...]:
    """Returns the unchanged files of an export from before exports recorded their files."""
    try:
        manifest = Manifest.load(folder)
    except DocumentError:
        return ()
    unchanged = [r.path for r in manifest.files() if file_problem(folder, r) is None]
    return MANIFEST_FILE, *unchanged


def write_export(
    program: IntegerProgram,
    folder: Path,
    samples: Sequence[Sample],
    encodings: tuple[Encoding, ...],
    compression: Sequence[str] = (),
) -> Manifest:
    """Writes an export into an existing folder, as `MemoryForm.export` describes.

    Raises:
        OSError: a file could not be written to the disk.
    """
    draft = describe(program, encodings, len(samples), compression=compression)
    vectors = conformance_vectors(program)
    if vectors is not None:
        place = folder / CONFORMANCE_FOLDER
        place.mkdir()
        (place / VECTORS_FILE).write_text(vectors.render(), encoding="utf-8", newline="\n")
        own = vectors.program(program.target)
        single = describe(own, encodings, 1, with_conformance=False)
        _write_described(own, place, single, [vectors.inputs()])
    return _write_described(program, folder, draft, samples)


def _write_described(
    program: IntegerProgram,
    folder: Path,
    draft: Manifest,
    samples: Sequence[Sample],
) -> Manifest:
    """Writes the files that a manifest names, then the manifest with their sizes and hashes."""
    written: dict[str, TensorImage] = {}
    memory = []
    for record in draft.memory:
        if record.path not in written:
            values = program.tensors[record.tensor]
            written[record.path] = _write(folder, draft, record, values)
        file = written[record.path]
        memory.append(record.model_copy(update={"bytes": file.bytes, "sha256": file.sha256}))
    compressed = _write_compressed(program, folder, draft.compressed)
    by_edge: dict[tuple[int, str], list[GoldenImage]] = {}
    for record in draft.golden:
        by_edge.setdefault((record.sample, record.edge), []).append(record)
    golden = [
        _write(folder, draft, record, value)
        for sample, edge, value in golden_edges(program, samples)
        for record in by_edge[sample, edge]
    ]
    program.write(folder)
    (folder / README_FILE).write_text(render_readme(draft), encoding="utf-8", newline="\n")
    manifest = draft.model_copy(
        update={
            "memory": tuple(memory),
            "compressed": compressed,
            "golden": tuple(golden),
            "documents": tuple(FileRecord.of(folder, name) for name in DOCUMENT_FILES),
            "conformance": tuple(FileRecord.of(folder, file.path) for file in draft.conformance),
        }
    ).sealed()
    (folder / MANIFEST_FILE).write_text(manifest.render(), encoding="utf-8", newline="\n")
    return manifest


def _write_compressed(
    program: IntegerProgram, folder: Path, weights: Sequence[CompressedWeight]
) -> tuple[CompressedWeight, ...]:
    """Writes the streams of all compressed weights, each file once.

    Returns:
        The weights' records, with the sizes and hashes of their files.
    """
    written: dict[str, StreamImage] = {}
    for weight in weights:
        if weight.streams[0].path in written:
            continue
        tensor, zero = program.tensors[weight.tensor], weight.zero(program.tensors)
        streams = weight.storage.compress(tensor, zero)
        for image in weight.streams:
            stream = streams[image.stream]
            content = encode_stream(stream, image, program.target, weight.step)
            written[image.path] = _written(folder, image, content)
    return tuple(
        weight.model_copy(update={"streams": tuple(written[s.path] for s in weight.streams)})
        for weight in weights
    )


def _write(folder: Path, manifest: Manifest, record: Record, tensor: np.ndarray) -> Record:
    """Writes one image and returns its record with its size and hash."""
    content = encode(
        tensor, record.order, manifest.packing(record), record.encoding, title_of(manifest, record)
    )
    return _written(folder, record, content)


def _written(folder: Path, record: File, content: bytes) -> File:
    """Writes a file and returns its record with its size and hash."""
    path = folder / record.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return record.model_copy(update={"bytes": len(content), "sha256": digest})


def title_of(manifest: Manifest, record: ImageRecord) -> str:
    """Returns the comment in a packed file's first line: what the file holds, in ASCII."""
    if isinstance(record, TensorImage):
        what = f"{record.role} of step {record.step}"
    elif isinstance(record, GoldenImage):
        what = f"edge {record.edge} of sample {record.sample}"
    else:
        what = record.path
    packing = manifest.packing(record)
    place = (
        f"{packing.words_per_element} words per element, least significant first"
        if packing.words_per_element > 1
        else f"{packing.lanes} lanes, first in the {packing.first_lane.replace('_', ' ')} bits"
    )
    shape = "x".join(map(str, record.shape)) or "scalar"
    title = (
        f"{what}: {record.format} {shape} {record.layout}, "
        f"{packing.words(record.elements)} words of {packing.word_bits} bits, {place}"
    )
    return ascii(title)[1:-1]
