"""The export: one folder with everything that a hardware team needs to verify a program."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER, VECTORS_FILE
from photomask.chip.forms.conformance.vectors import conformance_vectors
from photomask.chip.forms.file_records import FileRecord
from photomask.chip.forms.golden import golden_edges, single_samples
from photomask.chip.forms.memory.export_check import file_problem
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
from photomask.chip.program import IntegerProgram
from photomask.chip.program.codes import Inputs
from photomask.documents import sha256_of, written_whole
from photomask.errors import DocumentError, UsageError

Record = TypeVar("Record", bound=ImageRecord)


def export(
    program: IntegerProgram,
    folder: str | Path,
    inputs: Inputs,
    *,
    formats: Sequence[str] = ("hex",),
    samples: int | None = None,
) -> Manifest:
    """Writes a program, its memory images and golden vectors as a self-contained folder.

    Its subfolder `conformance` holds, as a program of their own, the vectors that prove a
    receiver's rescaling on any network. The folder appears whole or not at all, and replaces an
    earlier export. The same program and inputs give the same bytes.

    Args:
        program: what to export.
        folder: where to.
        inputs: int64 codes, batch first (`program.quantize_input` makes them); a mapping by input
            name where the program has several inputs.
        formats: which files to write of each tensor: any of "hex", "bin", "dec", "npy".
        samples: how many samples of `inputs` become golden vectors; None takes all.

    Returns:
        The manifest, as written.

    Raises:
        UsageError: an unknown format, or none.
        DataError: the inputs do not fit the program.
        ExportError: the folder holds something else, or the disk refused a file.
    """
    encodings = _encodings(formats)
    batch = single_samples(program, inputs, samples)
    with written_whole(Path(folder), "chip export", _files_of_earlier) as staging:
        return write_export(program, staging, batch, encodings)


def _files_of_earlier(folder: Path) -> tuple[str, ...]:
    """Names the unchanged files of an export that was written before folders had records."""
    try:
        manifest = Manifest.load(folder)
    except DocumentError:
        return ()
    unchanged = [r.path for r in manifest.files() if file_problem(folder, r) is None]
    return MANIFEST_FILE, *unchanged


def write_export(
    program: IntegerProgram,
    folder: Path,
    samples: list[dict[str, np.ndarray]],
    encodings: tuple[Encoding, ...],
) -> Manifest:
    """Writes an export into an existing folder; see `export`.

    Raises:
        OSError: the disk refused a file.
    """
    draft = describe(program, encodings, len(samples))
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
    samples: list[dict[str, np.ndarray]],
) -> Manifest:
    """Writes the files that a manifest names, and the manifest with their sizes and hashes."""
    written: dict[str, TensorImage] = {}
    memory = []
    for record in draft.memory:
        if record.path not in written:
            values = program.tensors[record.tensor]
            written[record.path] = _write(folder, draft, record, values)
        file = written[record.path]
        memory.append(record.model_copy(update={"bytes": file.bytes, "sha256": file.sha256}))
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
            "golden": tuple(golden),
            "documents": tuple(_recorded(folder, name) for name in DOCUMENT_FILES),
            "conformance": tuple(_recorded(folder, file.path) for file in draft.conformance),
        }
    ).sealed()
    (folder / MANIFEST_FILE).write_text(manifest.render(), encoding="utf-8", newline="\n")
    return manifest


def _encodings(formats: Sequence[str]) -> tuple[Encoding, ...]:
    """Returns the encodings asked for, each once, in the order of `Encoding`."""
    known = [encoding.value for encoding in Encoding]
    asked = [formats] if isinstance(formats, str) else list(formats)
    if odd := [name for name in asked if name not in known]:
        raise UsageError(f"unknown export format {odd[0]!r}; choose from {', '.join(known)}")
    if not asked:
        raise UsageError(f"no export format given; choose from {', '.join(known)}")
    return tuple(encoding for encoding in Encoding if encoding in asked)


def _write(folder: Path, manifest: Manifest, record: Record, tensor: np.ndarray) -> Record:
    """Writes one image and returns its record with size and hash."""
    content = encode(
        tensor, record.order, manifest.packing(record), record.encoding, title_of(manifest, record)
    )
    path = folder / record.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return record.model_copy(update={"bytes": len(content), "sha256": digest})


def _recorded(folder: Path, name: str) -> FileRecord:
    path = folder / name
    return FileRecord(path=name, bytes=path.stat().st_size, sha256=sha256_of(path))


def title_of(manifest: Manifest, record: ImageRecord) -> str:
    """Returns the comment at the top of a packed file: what it holds, in one ASCII line."""
    if isinstance(record, TensorImage):
        what = f"{record.role} of step {record.step}"
    elif isinstance(record, GoldenImage):
        what = f"edge {record.edge} of sample {record.sample}"
    else:
        what = record.path
    packing = manifest.packing(record)
    place = (
        f"{packing.words_per_element} words an element, least significant first"
        if packing.words_per_element > 1
        else f"{packing.lanes} lanes, first in the {packing.first_lane.replace('_', ' ')} bits"
    )
    shape = "x".join(map(str, record.shape)) or "scalar"
    title = (
        f"{what}: {record.format} {shape} {record.layout}, "
        f"{packing.words(record.elements)} words of {packing.word_bits} bits, {place}"
    )
    return ascii(title)[1:-1]
