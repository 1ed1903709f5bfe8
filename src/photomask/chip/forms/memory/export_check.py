"""Reads an export back, and runs it again from its files alone."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER, ConformanceVectors
from photomask.chip.forms.conformance.vectors import conformance_vectors
from photomask.chip.forms.file_records import FileRecord
from photomask.chip.forms.memory.check_report import CheckReport
from photomask.chip.forms.memory.comparison import EdgeTally, decode_whole
from photomask.chip.forms.memory.compressed import CompressedWeight
from photomask.chip.forms.memory.golden_inputs import golden_inputs
from photomask.chip.forms.memory.image import Encoding
from photomask.chip.forms.memory.manifest import (
    GOLDEN_FOLDER,
    MANIFEST_FILE,
    MEMORY_FOLDER,
    GoldenImage,
    ImageRecord,
    Manifest,
    describe,
)
from photomask.chip.forms.memory.storages import STORAGES
from photomask.chip.forms.memory.stream_file import decode_stream
from photomask.chip.program import IntegerProgram
from photomask.chip.program.oracle import NumpyEngine
from photomask.documents import TENSOR_BYTES, is_folder, opened
from photomask.errors import DataError, DocumentError, UsageError


def check_export(folder: str | Path) -> CheckReport:
    """Checks that an export is complete, unaltered and correct.

    The check compares the size and hash of every file, and the manifest with the program. It
    compares every memory image, as its text reads, with the program's tensors. Then the NumPy
    oracle runs with the weights of the memory images and the inputs of the golden vectors, and
    every edge is compared. The conformance vectors must be the vectors of this program, and their
    folder is checked in the same way.

    Args:
        folder: the folder that `export` wrote.

    Returns:
        The report, which lists everything that is wrong.

    Raises:
        UsageError: there is no such folder.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise UsageError(f"there is no folder {folder}; give the folder that an export wrote")
    return _check(folder, with_conformance=True)


def _check(folder: Path, *, with_conformance: bool) -> CheckReport:
    """Checks an export, or the conformance folder inside an export."""
    check = _ExportCheck(folder, with_conformance)
    try:
        manifest = Manifest.load(folder)
    except DocumentError as error:
        check.problems.append(str(error))
        return check.report(None)
    check.files(manifest)
    program = check.program(manifest)
    if program is not None and manifest.conformance:
        check.conformance(manifest, program)
    tensors = check.tensors(manifest, program)
    if tensors is None:
        check.problems.append("the oracle was not run, because a memory image cannot be used")
        return check.report(None)
    tally = EdgeTally(manifest)
    check.edges(manifest, tensors, tally)
    return check.report(tally)


@dataclass
class _ExportCheck:
    """The findings about one folder, which the checks collect one after the other."""

    folder: Path
    with_conformance: bool
    problems: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    """The paths of files that are damaged and are not read again."""
    files_read: int = 0

    def report(self, tally: EdgeTally | None) -> CheckReport:
        return CheckReport(
            subject=f"export {self.folder}",
            problems=tuple(self.problems),
            edges=tally.results() if tally else (),
            first_mismatch=tally.first_mismatch() if tally else None,
            files=self.files_read,
        )

    def files(self, manifest: Manifest) -> None:
        """Checks the size and hash of every file, and that there are no other files."""
        recorded = {record.path for record in manifest.files()}
        for record in manifest.files():
            self.files_read += 1
            if problem := file_problem(self.folder, record):
                self.problems.append(problem)
                self.damaged.add(record.path)
        for part in (MEMORY_FOLDER, GOLDEN_FOLDER):
            for path in sorted((self.folder / part).rglob("*")):
                name = path.relative_to(self.folder).as_posix()
                if path.is_file() and name not in recorded:
                    self.problems.append(f"{name}: the file is not listed in {MANIFEST_FILE}")

    def program(self, manifest: Manifest) -> IntegerProgram | None:
        """Loads the program, and checks that the manifest describes exactly this program."""
        try:
            program = IntegerProgram.load(self.folder)
        except DocumentError as error:
            self.problems.append(str(error))
            return None
        edges, encodings = len(program.edges), len(manifest.encodings)
        if len(manifest.golden) != manifest.samples * edges * encodings:
            self.problems.append(
                f"{MANIFEST_FILE}: the manifest lists {len(manifest.golden)} golden vectors, "
                f"expected one for each of {manifest.samples} samples, {edges} edges and "
                f"{encodings} encodings"
            )
            return program
        expected = describe(
            program,
            manifest.encodings,
            manifest.samples,
            compression=[kind for kind in manifest.compression if kind in STORAGES],
            with_conformance=self.with_conformance and manifest.schema_version > 1,
        )
        for name in Manifest.model_fields:
            if name in ("schema_version", "documents", "content_sha256", "photomask_version"):
                continue
            if _undecorated(getattr(manifest, name)) != getattr(expected, name):
                self.problems.append(
                    f"{MANIFEST_FILE}: the field {name!r} does not describe the program in this "
                    "folder"
                )
        return program

    def conformance(self, manifest: Manifest, program: IntegerProgram) -> None:
        """Checks that the vectors are the program's own, and that their folder holds them."""
        folder = self.folder / CONFORMANCE_FOLDER
        if self.damaged.intersection(record.path for record in manifest.conformance):
            return
        report = _check(folder, with_conformance=False)
        self.files_read += report.files
        self.problems += [f"{CONFORMANCE_FOLDER}/{problem}" for problem in report.problems]
        if report.first_mismatch is not None:
            self.problems.append(f"{CONFORMANCE_FOLDER}: {report.first_mismatch}")
        if not report.passed:
            return
        try:
            vectors = ConformanceVectors.load(folder)
            held = Manifest.load(folder).program_sha256
            accumulators = golden_inputs(folder)
        except DocumentError as error:
            self.problems.append(str(error))
            return
        if vectors != conformance_vectors(program):
            self.problems.append(
                f"{CONFORMANCE_FOLDER}: the vectors are not the vectors of this program"
            )
        elif held != vectors.program(program.target).content_hash() or any(
            not np.array_equal(accumulators[name], codes)
            for name, codes in vectors.inputs().items()
        ):
            self.problems.append(
                f"{CONFORMANCE_FOLDER}: the program in this folder does not compute the vectors "
                "beside it"
            )

    def tensors(
        self, manifest: Manifest, program: IntegerProgram | None
    ) -> dict[str, np.ndarray] | None:
        """Reads every memory image, and returns the tensors by name, or None if one is unusable."""
        tensors: dict[str, np.ndarray] = {}
        usable = True
        for record in manifest.memory:
            values = self._read(manifest, record)
            if values is None:
                usable = False
                continue
            tensor = record.order.restore(values, record.shape)
            original = program.tensors.get(record.tensor) if program else tensor
            if original is None or not np.array_equal(original, tensor):
                self.problems.append(
                    f"{record.path}: the image differs from the program's tensor {record.tensor!r}"
                )
            tensors.setdefault(record.tensor, tensor)
        for weight in manifest.compressed:
            for encoding in manifest.encodings:
                tensor = self._restored(manifest, weight, encoding, program, tensors)
                usable = usable and tensor is not None
                if tensor is not None:
                    tensors.setdefault(weight.tensor, tensor)
        return tensors if usable else None

    def _restored(
        self,
        manifest: Manifest,
        weight: CompressedWeight,
        encoding: Encoding,
        program: IntegerProgram | None,
        tensors: dict[str, np.ndarray],
    ) -> np.ndarray | None:
        """Reads a compressed weight back from its streams in one encoding, and compares it.

        Returns None, and notes a problem, if the streams cannot be read as the weight.
        """
        images = [image for image in weight.streams if image.encoding is encoding]
        where = f"the {weight.storage.kind} weight of step {weight.step!r}"
        if self.damaged.intersection(image.path for image in images):
            return None
        # Without its shape from the program, a damaged record could ask for any amount of memory.
        original = program.tensors.get(weight.tensor) if program else None
        if original is None or original.shape != weight.shape:
            self.problems.append(f"{where} was not read, because program.json does not describe it")
            return None
        paths = ", ".join(image.path for image in images)
        try:
            streams = {
                image.stream: decode_stream(self.folder / image.path, image, manifest.target)
                for image in images
            }
            tensor = weight.storage.restore(streams, weight.shape, weight.zero(tensors))
        except (DocumentError, DataError, KeyError) as error:
            self.problems.append(f"{paths}: {where} cannot be read: {error}")
            self.damaged.update(image.path for image in images)
            return None
        if not np.array_equal(original, tensor):
            self.problems.append(f"{paths}: {where} differs from the program's {weight.tensor!r}")
        return tensor

    def edges(self, manifest: Manifest, tensors: dict[str, np.ndarray], tally: EdgeTally) -> None:
        """Runs the oracle on the files alone, and compares every golden vector."""
        formats = {r.tensor: r.format for r in (*manifest.memory, *manifest.compressed)}
        records: dict[tuple[int, str], list[GoldenImage]] = {}
        for record in manifest.golden:
            records.setdefault((record.sample, record.edge), []).append(record)
        try:
            engine = NumpyEngine(
                IntegerProgram(
                    target=manifest.target,
                    inputs=manifest.inputs,
                    outputs=manifest.outputs,
                    edges=manifest.edges,
                    steps=manifest.steps,
                    tensors=tensors,
                    formats=formats,
                    provenance={},
                )
            )
            for sample in range(manifest.samples):
                inputs = {}
                for name in manifest.inputs:
                    record = records[sample, name][0]
                    values = self._read(manifest, record)
                    if values is None:
                        self.problems.append(
                            f"sample {sample} was not run, because the image of its input {name!r} "
                            "cannot be used"
                        )
                        break
                    inputs[name] = record.order.restore(values, record.shape)
                else:
                    for edge, value in engine.edges(inputs):
                        self._compare(manifest, records[sample, edge], value, tally)
        except (DocumentError, DataError, KeyError) as error:
            self.problems.append(f"the oracle cannot run on the files: {error}")

    def _compare(
        self, manifest: Manifest, records: list[GoldenImage], value: np.ndarray, tally: EdgeTally
    ) -> None:
        for record in records:
            values = self._read(manifest, record)
            if values is not None:
                tally.add(record, record.path, record.order.flatten(value), values, None)

    def _read(self, manifest: Manifest, record: ImageRecord) -> np.ndarray | None:
        """Returns the integers of a file in memory order.

        Returns None, and notes a problem, if the file cannot be read as an image.
        """
        if record.path in self.damaged:
            return None
        try:
            return decode_whole(self.folder / record.path, manifest, record)
        except DocumentError as error:
            self.problems.append(f"{record.path}: {error}")
            self.damaged.add(record.path)
            return None


def file_problem(folder: Path, record: FileRecord) -> str | None:
    """Returns what is wrong with a file, or None if its size and hash are as recorded."""
    path = folder / record.path
    if not os.path.lexists(path):
        return f"{record.path}: the file is missing"
    try:
        with opened(path, TENSOR_BYTES) as file:
            found = os.fstat(file.fileno()).st_size
            if found != record.bytes:
                return (
                    f"{record.path}: the file has {found} bytes, expected {record.bytes}; it was "
                    "truncated or altered"
                )
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except DocumentError as error:
        return f"{record.path}: {error}"
    if digest != record.sha256:
        return (
            f"{record.path}: the file was altered, because its SHA-256 is not the one in "
            f"{MANIFEST_FILE}"
        )
    return None


def _undecorated(value: object) -> object:
    """Returns records without the sizes and hashes that are known only after writing."""
    if isinstance(value, tuple):
        return tuple(_undecorated(part) for part in value)
    if isinstance(value, FileRecord):
        return value.model_copy(update={"bytes": 0, "sha256": ""})
    if isinstance(value, CompressedWeight):
        return value.model_copy(update={"streams": _undecorated(value.streams)})
    return value
