"""Compares a simulator's output with the golden vectors and names the first mismatch."""

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from photomask.chip.exporters.check_report import CheckReport
from photomask.chip.exporters.comparison import EdgeTally, decode_file
from photomask.chip.exporters.export_check import file_problem
from photomask.chip.exporters.manifest import GoldenImage, Manifest
from photomask.chip.exporters.memory_image import Encoding, entries_of
from photomask.documents import is_folder
from photomask.errors import DocumentError, UsageError


def check_outputs(folder: str | Path, simulator_folder: str | Path) -> CheckReport:
    """Compares what a simulator wrote with an export's golden vectors.

    The simulator's folder mirrors `golden/`: `<sample>/<edge>.<format>` for any edges and samples,
    in any format, whichever the export holds; `<edge>.<format>` at its top is sample 0. Files with
    other extensions are ignored. Unused bits and lanes after the last element are not compared.

    Args:
        folder: the export.
        simulator_folder: what the simulator wrote.

    Returns:
        The report. A file that names no edge or is no such image is a problem in it; so is a
        folder of which nothing can be compared.

    Raises:
        UsageError: one of the folders does not exist.
        DocumentError: the export is damaged (`check_export` tells more).
    """
    folder, simulator_folder = Path(folder), Path(simulator_folder)
    for path in (folder, simulator_folder):
        if not is_folder(path):
            raise UsageError(f"there is no folder {path}")
    manifest = Manifest.load(folder)
    tally = EdgeTally(manifest)
    golden = _golden_by_name(manifest)
    found, problems = _simulator_files(simulator_folder, golden)
    for key, records in golden.items():
        if key not in found:
            tally.absent(records[0])
            continue
        expected = _expected(folder, manifest, records[0])
        for file in found[key]:
            problems += _compare(file, manifest, records[0], expected, tally)
    if not found:
        sample = next(iter(golden))
        problems.append(
            f"{simulator_folder}: no file names an edge of the export; expected, for example, "
            f"{sample.sample}/{sample.stem}.hex"
        )
    return CheckReport(
        subject=f"simulator output {simulator_folder} against {folder}",
        problems=tuple(problems),
        edges=tally.results(),
        first_mismatch=tally.first_mismatch(),
        files=sum(map(len, found.values())),
    )


@dataclass(frozen=True)
class _Name:
    """What a file name says: which edge of which sample."""

    sample: int
    stem: str


@dataclass(frozen=True)
class _SimulatorFile:
    path: Path
    shown: str
    encoding: Encoding


def _golden_by_name(manifest: Manifest) -> dict[_Name, list[GoldenImage]]:
    """Returns the records of each edge and sample in the order of computation."""
    names: dict[_Name, list[GoldenImage]] = {}
    for record in manifest.golden:
        stem = Path(record.path).name.removesuffix(f".{record.encoding}")
        names.setdefault(_Name(record.sample, stem), []).append(record)
    return names


def _simulator_files(
    folder: Path, golden: dict[_Name, list[GoldenImage]]
) -> tuple[dict[_Name, list[_SimulatorFile]], list[str]]:
    """Finds the files that name an edge; the second part says what is wrong with the others."""
    found: dict[_Name, list[_SimulatorFile]] = {}
    problems = []
    for path in sorted(folder.rglob("*")):
        extension = path.suffix[1:].lower()
        if not path.is_file() or extension not in [encoding.value for encoding in Encoding]:
            continue
        shown = path.relative_to(folder).as_posix()
        name = _name_of(path.relative_to(folder))
        if name in golden:
            found.setdefault(name, []).append(_SimulatorFile(path, shown, Encoding(extension)))
        else:
            problems.append(f"{shown}: {_why_unknown(path.relative_to(folder), golden)}")
    return found, problems


def _name_of(path: Path) -> _Name | None:
    parts = path.parts
    if len(parts) == 1:
        return _Name(0, path.stem)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isdigit() and len(parts[0]) < 9:
        return _Name(int(parts[0]), path.stem)
    return None


def _why_unknown(path: Path, golden: dict[_Name, list[GoldenImage]]) -> str:
    """Says why a file names no edge, and what was perhaps meant."""
    name = _name_of(path)
    if name is None:
        return "not <sample>/<edge>.<format> nor <edge>.<format>; samples are folders 0, 1, …"
    samples = sorted({key.sample for key in golden})
    stems = [key.stem for key in golden if key.sample == samples[0]]
    if name.stem in stems:
        return f"the export has samples 0 to {samples[-1]}, not {name.sample}"
    near = difflib.get_close_matches(name.stem, stems, n=1)
    return "no edge of the export has this name" + (f"; is it {near[0]!r}?" if near else "")


def _expected(folder: Path, manifest: Manifest, record: GoldenImage) -> np.ndarray:
    """Reads a golden vector, in memory order."""
    if problem := file_problem(folder, record):
        raise DocumentError(f"the export {folder} is damaged: {problem}")
    return decode_file(folder / record.path, manifest, record).values


def _compare(
    file: _SimulatorFile,
    manifest: Manifest,
    record: GoldenImage,
    expected: np.ndarray,
    tally: EdgeTally,
) -> list[str]:
    """Compares one file as far as it goes; returns what is wrong with it as a file."""
    try:
        image = decode_file(file.path, manifest, record, file.encoding)
    except DocumentError as error:
        tally.absent(record)
        return [f"{file.shown}: {error}"]
    values = image.values[: record.elements]
    unknown = None if image.unknown is None else image.unknown[: record.elements]
    tally.add(record, file.shown, expected, values, unknown)
    wanted = entries_of(file.encoding, manifest.packing(record), record.elements)
    if image.entries == wanted:
        return []
    unit = "words" if file.encoding.packed else "elements"
    return [f"{file.shown}: {image.entries} {unit}, expected {wanted}"]
