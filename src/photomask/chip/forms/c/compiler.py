"""Calls the C compiler of this machine."""

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from photomask.errors import EngineError, UsageError

LONGEST_COMPILATION_S = 900
LINES_OF_A_MESSAGE = 12


def compile_sources(
    compiler: str, flags: Sequence[str], sources: Sequence[Path], result: Path
) -> Path:
    """Compiles C sources to a program or a library.

    Args:
        compiler: the compiler's command. It may have options of the user's own, which come after
            `flags` and therefore override them.
        flags: the options that the sources need.
        sources: the files to compile.
        result: the file to write.

    Returns:
        The path of the result.

    Raises:
        UsageError: the command has an unclosed quotation mark.
        EngineError: there is no such compiler, or it failed.
    """
    try:
        command, *options = shlex.split(compiler) or [""]
    except ValueError as error:
        raise UsageError(f"compiler={compiler!r} is not a valid command line: {error}") from error
    if shutil.which(command) is None:
        raise EngineError(
            f"there is no C compiler {command!r}. Install one with: apt install gcc libc6-dev "
            "(Debian, Ubuntu), dnf install gcc (Fedora) or xcode-select --install (macOS); or name "
            "another compiler with compiler="
        )
    try:
        done = subprocess.run(
            [command, *flags, *options, *(path.absolute() for path in sources), "-o", result],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LONGEST_COMPILATION_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"the C compiler {command!r} failed: {error}") from error
    if done.returncode:
        message = "\n".join((done.stderr or done.stdout).splitlines()[:LINES_OF_A_MESSAGE])
        raise EngineError(
            f"the C compiler {compiler!r} failed with status {done.returncode}:\n{message}"
        )
    return result
