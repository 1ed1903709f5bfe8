"""One measured number, one row: what was measured, on which machine, with which versions."""

import csv
import datetime
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from measured_code import code_hash

FOLDER = Path(__file__).parent / "results"
COLUMNS = (
    "what",
    "implementation",
    "version",
    "network",
    "metric",
    "value",
    "unit",
    "p20",
    "p50",
    "p80",
    "repetitions",
    "device",
    "cores",
    "torch",
    "python",
    "commit",
    "date",
    "note",
    "code",
)
OURS = "photomask"
"""What the name of an implementation of this package begins with."""
ONLY_OURS = ("channel_pruning", "head_plans", "planted_roundings", "rtl_simulation", "sparse_rtl")
"""Benchmarks whose every row runs this package, whatever its name says."""
SKIPPED = "skipped"
"""The metric of a row that says why there is no number."""


@dataclass(frozen=True)
class Subject:
    """What a number is about.

    Attributes:
        what: the question, which is the script's name.
        implementation: who answers it.
        network: on which network.
        package: the distribution whose version the row states.
        device: where it ran; None for this machine's processor.
    """

    what: str
    implementation: str
    network: str
    package: str = "photomask"
    device: str | None = None


class Results:
    """Appends rows to `benchmarks/results/<what>.csv` and prints them."""

    def __init__(self, name: str, folder: Path = FOLDER):
        self.path = folder / f"{name}.csv"
        self._moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._commit = commit()
        self._code = code_hash(name)

    def number(
        self, subject: Subject, metric: str, value: float, unit: str, *, note: str = ""
    ) -> None:
        """Appends a number that was measured once, or can only come out one way."""
        self._append(subject, metric, unit, [value], note)

    def samples(
        self, subject: Subject, metric: str, values: Sequence[float], unit: str, *, note: str = ""
    ) -> None:
        """Appends repeated measurements: the median, and the percentiles around it."""
        self._append(subject, metric, unit, values, note)

    def skipped(self, subject: Subject, reason: str) -> None:
        """Appends a row that says why there is no number."""
        self._append(subject, SKIPPED, "", [], " ".join(reason.split())[:300])

    def _append(
        self, subject: Subject, metric: str, unit: str, values: Sequence[float], note: str
    ) -> None:
        low, middle, high = percentiles(values) if values else (None, None, None)
        row = {
            "what": subject.what,
            "implementation": subject.implementation,
            "version": version(subject.package),
            "network": subject.network,
            "metric": metric,
            "value": _text(middle),
            "unit": unit,
            "p20": _text(low),
            "p50": _text(middle),
            "p80": _text(high),
            "repetitions": len(values),
            "device": subject.device or processor(),
            "cores": cores(),
            "torch": version("torch"),
            "python": platform.python_version(),
            "commit": self._commit,
            "date": self._moment,
            "note": note,
            "code": self._code,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        spread = f" ({row['p20']} to {row['p80']})" if len(values) > 1 else ""
        print(
            f"{subject.network:16} {subject.implementation:28} {metric:22} "
            f"{row['value']} {unit}{spread} {note}".rstrip(),
            flush=True,
        )


def read(name: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """Returns the rows of a script, the newest of each subject and metric, in first-seen order."""
    path = folder / f"{name}.csv"
    if not path.is_file():
        return []
    newest: dict[tuple[str, ...], dict[str, str]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = tuple(row[c] for c in ("what", "implementation", "network", "metric", "device"))
            newest[key] = row
    return list(newest.values())


def read_current(name: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """Returns what a script measured, without the rows of a GPU or processor used before.

    A table must not show one contender on an old GPU beside another on a new one.
    """
    newest: dict[tuple[str, ...], dict[str, str]] = {}
    for row in read(name, folder):
        if row["metric"] != SKIPPED:
            kind = "GPU" if row["device"].startswith("NVIDIA") else "processor"
            key = (row["implementation"], row["network"], row["metric"], kind)
            if key not in newest or row["date"] >= newest[key]["date"]:
                newest[key] = row
    return list(newest.values())


def is_ours(row: dict[str, str]) -> bool:
    """Whether a row runs this package and not only a peer or the float model."""
    return row["what"] in ONLY_OURS or row["implementation"].startswith(OURS)


def is_outdated(row: dict[str, str]) -> bool:
    """Whether the package's code has changed since the row was measured.

    Rows of peers cannot be outdated. Rows from before code was hashed count as outdated.
    """
    return is_ours(row) and row["code"] != code_hash(row["what"])


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the 20th, 50th and 80th percentile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return fifths[0], statistics.median(values), fifths[3]


def version(package: str) -> str:
    """Returns the installed version of a distribution, or that there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Returns the model name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str:
    """Returns the commit that was measured, with `+` if the library differs from it."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    found = subprocess.run(
        [*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False
    )
    if found.returncode:
        return "unknown"
    library = str(here.parent / "src")
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", library], check=False)
    return found.stdout.strip() + ("+" if changed.returncode else "")


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"
