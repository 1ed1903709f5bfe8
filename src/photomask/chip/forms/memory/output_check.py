"""Compares a simulator's output with the golden vectors and names the first mismatch."""

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER, ConformanceVectors
from photomask.chip.forms.conformance.examination import Computed, ConformanceResult, examine
from photomask.chip.forms.memory.check_report import CheckReport
from photomask.chip.forms.memory.comparison import EdgeTally, decode_file
from photomask.chip.forms.memory.export_check import check_export
from photomask.chip.forms.memory.image import Encoding, entries_of
from photomask.chip.forms.memory.manifest import GoldenImage, Manifest
from photomask.documents import is_folder
from photomask.errors import DocumentError, UsageError

SHOWN_PROBLEMS = 8
"""An error message lists at most this many problems of a damaged export."""


def check_outputs(folder: str | Path, simulator_folder: str | Path) -> CheckReport:
    """Compares what a simulator wrote with an export's golden vectors.

    The simulator's folder mirrors `golden/`. It holds files `<sample>/<edge>.<format>` for any
    edges and samples; a file `<edge>.<format>` at its top belongs to sample 0. Each file may have
    any format, also one that the export does not use. Files with other extensions are ignored.
    Unused bits, and the lanes after the last element, are not compared.

    The export itself is checked first, so that its own damage is never reported as an error of the
    simulator. The subfolder `conformance` mirrors `conformance/golden/` in the same way: it holds
    what the simulator computed for the conformance vectors. If it is missing, the report says that
    the rounding is not proven.

    Args:
        folder: the export.
        simulator_folder: the folder that the simulator wrote.

    Returns:
        The report. It lists a problem for each file that names no edge or cannot be read as an
        image, and one if nothing in the folder can be compared.

    Raises:
        UsageError: one of the folders does not exist.
        DocumentError: the export is damaged.
    """
    folder, simulator_folder = Path(folder), Path(simulator_folder)
    for path in (folder, simulator_folder):
        if not is_folder(path):
            raise UsageError(
                f"there is no folder {path}; give the folder of an export and the folder that a "
                "simulator wrote"
            )
    _require_whole(folder)
    manifest = Manifest.load(folder)
    tally = EdgeTally(manifest)
    golden = _golden_by_name(manifest)
    found, problems = _simulator_files(simulator_folder, golden)
    conformance = _Conformance.of(folder, manifest, simulator_folder)
    problems += conformance.problems
    for key, records in golden.items():
        if key not in found:
            tally.absent(records[0])
            continue
        expected = decode_file(folder / records[0].path, manifest, records[0]).values
        for file in found[key]:
            problems += _compare(file, manifest, records[0], expected, tally)
    if not found and not conformance.files:
        sample = next(iter(golden))
        problems.append(
            f"{simulator_folder}: no file is named after an edge of the export; expected, for "
            f"example, {sample.sample}/{sample.stem}.hex"
        )
    return CheckReport(
        subject=f"simulator output {simulator_folder} against {folder}",
        problems=tuple(problems),
        edges=tally.results(),
        first_mismatch=tally.first_mismatch(),
        files=sum(map(len, found.values())) + conformance.files,
        conformance=conformance.result,
    )


def _require_whole(folder: Path) -> None:
    """Raises an error that lists what is wrong with a damaged export."""
    report = check_export(folder)
    if report.passed:
        return
    problems = list(report.problems[:SHOWN_PROBLEMS])
    if report.first_mismatch is not None:
        problems.append(str(report.first_mismatch))
    more = len(report.problems) - SHOWN_PROBLEMS
    raise DocumentError(
        f"the export {folder} is damaged, so the simulator's output was not compared: "
        + "; ".join(problems)
        + (f"; and {more} more problems" if more > 0 else "")
        + ". Restore the export, or export the program again"
    )


@dataclass(frozen=True)
class _Name:
    """The edge and the sample that a file name stands for."""

    sample: int
    stem: str


@dataclass(frozen=True)
class _SimulatorFile:
    path: Path
    shown: str
    encoding: Encoding


def _golden_by_name(manifest: Manifest) -> dict[_Name, list[GoldenImage]]:
    """Returns the records of each edge and sample, in the order of computation."""
    names: dict[_Name, list[GoldenImage]] = {}
    for record in manifest.golden:
        stem = Path(record.path).name.removesuffix(f".{record.encoding}")
        names.setdefault(_Name(record.sample, stem), []).append(record)
    return names


def _simulator_files(
    folder: Path, golden: dict[_Name, list[GoldenImage]]
) -> tuple[dict[_Name, list[_SimulatorFile]], list[str]]:
    """Returns the files that name an edge, and what is wrong with the others."""
    found: dict[_Name, list[_SimulatorFile]] = {}
    problems = []
    for path in sorted(folder.rglob("*")):
        extension = path.suffix[1:].lower()
        if path.relative_to(folder).parts[0] == CONFORMANCE_FOLDER:
            continue
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
    """Returns why a file names no edge, and which edge was perhaps meant."""
    name = _name_of(path)
    if name is None:
        return (
            "the path is neither <sample>/<edge>.<format> nor <edge>.<format>; the folders of "
            "samples are called 0, 1, …"
        )
    samples = sorted({key.sample for key in golden})
    stems = [key.stem for key in golden if key.sample == samples[0]]
    if name.stem in stems:
        return f"the export has the samples 0 to {samples[-1]}, but no sample {name.sample}"
    near = difflib.get_close_matches(name.stem, stems, n=1)
    return "no edge of the export has this name" + (f"; do you mean {near[0]!r}?" if near else "")


def _compare(
    file: _SimulatorFile,
    manifest: Manifest,
    record: GoldenImage,
    expected: np.ndarray,
    tally: EdgeTally,
) -> list[str]:
    """Compares the elements that a file holds, and returns what is wrong with the file itself."""
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
    return [f"{file.shown}: the file holds {image.entries} {unit}, expected {wanted}"]


@dataclass(frozen=True)
class _Conformance:
    """The results that a simulator computed for the conformance vectors."""

    result: ConformanceResult | None
    problems: tuple[str, ...] = ()
    files: int = 0

    @classmethod
    def of(cls, folder: Path, manifest: Manifest, simulator_folder: Path) -> "_Conformance":
        """Reads and examines the subfolder `conformance` of a simulator's output."""
        if not manifest.rescales:
            return cls(None)
        if not manifest.conformance:
            return cls(ConformanceResult.without_vectors())
        own = Manifest.load(folder / CONFORMANCE_FOLDER)
        golden = _golden_by_name(own)
        found, problems = _simulator_files(simulator_folder / CONFORMANCE_FOLDER, golden)
        computed: dict[str, Computed] = {}
        for name, files in found.items():
            record = golden[name][0]
            for file in files if record.step is not None else []:
                try:
                    computed[record.step or ""] = _computed(file, own, record)
                except DocumentError as error:
                    problems.append(f"{file.shown}: {error}")
        return cls(
            examine(ConformanceVectors.load(folder / CONFORMANCE_FOLDER), computed),
            tuple(f"{CONFORMANCE_FOLDER}/{problem}" for problem in problems),
            sum(map(len, found.values())),
        )


def _computed(file: _SimulatorFile, manifest: Manifest, record: GoldenImage) -> Computed:
    """Reads the results of one step; elements that a short file lacks are marked unknown."""
    image = decode_file(file.path, manifest, record, file.encoding)
    values = np.zeros(record.elements, np.int64)
    known = np.zeros(record.elements, bool)
    count = min(record.elements, image.values.size)
    values[:count], known[:count] = image.values[:count], True
    if image.unknown is not None:
        known[:count] &= ~image.unknown[:count]
    shape = record.shape[1:]
    return Computed(
        record.order.restore(values, record.shape).reshape(shape),
        record.order.restore(known, record.shape).reshape(shape),
    )
