"""Reads a C project back: compiles it, runs it, and compares its outputs with the oracle's."""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from photomask.chip.forms.c.compiler import compile_sources
from photomask.chip.forms.c.project import CONSTANTS_FILE, NAME, OUTPUT
from photomask.chip.forms.c.sample_files import GOLDEN_FILE, INPUTS_FILE, packed, unpacked
from photomask.chip.forms.c.tensors import tensors_of
from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER
from photomask.chip.forms.conformance.vectors import conformance_vectors
from photomask.chip.forms.form import FormCheck
from photomask.chip.program import IntegerProgram
from photomask.chip.program.oracle import NumpyEngine
from photomask.documents import (
    RECORD_FILE,
    TENSOR_BYTES,
    OutputRecord,
    is_file,
    opened,
    read_bytes,
    sha256_of,
)
from photomask.errors import DocumentError, EngineError

FLAGS = ("-std=c11", "-O2", "-fno-strict-aliasing")
LONGEST_RUN_S = 900
HEAD_BYTES = 4096
"""The bytes at the top of a source that are searched for the hash of its program."""
SHOWN_FILES = 8
"""An error message lists at most this many changed files."""


def check_project(program: IntegerProgram, folder: Path, compiler: str) -> FormCheck:
    """Compiles and runs a project and its conformance project, on the samples that they hold.

    Args:
        program: the program that the project was written from.
        folder: the folder of the project, in which nothing is changed.
        compiler: the command of the C compiler, which may have options.

    Returns:
        The number of output integers that were compared with the oracle's, and how many of them
        differ.

    Raises:
        DocumentError: there is no project, it was made from another program, or a file is missing
            or has changed.
        EngineError: there is no such compiler, or the compiler or the compiled program failed.
    """
    _require_as_written(folder)
    vectors = conformance_vectors(program)
    with tempfile.TemporaryDirectory(prefix="photomask-c-") as name:
        work = Path(name)
        checks = [_check(program, NAME, folder, compiler, work)]
        if vectors is not None:
            proof = vectors.program(program.target)
            inside = folder / CONFORMANCE_FOLDER
            checks.append(_check(proof, CONFORMANCE_FOLDER, inside, compiler, work))
    return FormCheck(
        sum(check.integers for check in checks),
        sum(check.mismatches for check in checks),
        tuple(problem for check in checks for problem in check.problems),
    )


def _require_as_written(folder: Path) -> None:
    """Raises an error for a folder whose files differ from its record."""
    record = OutputRecord.load(folder)
    if record is None or record.output != OUTPUT:
        raise DocumentError(
            f"{folder} is no C project that Photomask wrote: its record {RECORD_FILE} is missing; "
            "export the program again"
        )
    changes = []
    for name, (size, sha256) in record.files.items():
        path = folder / name
        if not is_file(path):
            changes.append(f"{name} (missing)")
        elif path.stat().st_size != size or sha256_of(path) != sha256:
            changes.append(f"{name} (changed)")
    if changes:
        more = f" and {len(changes) - SHOWN_FILES} more" if len(changes) > SHOWN_FILES else ""
        raise DocumentError(
            f"{folder}: files are not as they were exported: "
            f"{', '.join(changes[:SHOWN_FILES])}{more}. Restore them, or export the program again; "
            "to test sources of your own, run make check"
        )


def _check(
    program: IntegerProgram, name: str, folder: Path, compiler: str, work: Path
) -> FormCheck:
    """Compiles and runs one project on its own samples, in the folder `work`."""
    source = folder / f"{name}.c"
    with opened(source, TENSOR_BYTES) as file:
        if program.content_hash().encode() not in file.read(HEAD_BYTES):
            raise DocumentError(
                f"{source} was written from another program than {program.content_hash()}, or by a "
                "version of Photomask with other tests; export the program again"
            )
    tensors, outputs = tensors_of(program), tuple(dict.fromkeys(program.outputs))
    samples = unpacked(tensors, program.inputs, folder / INPUTS_FILE)
    engine = NumpyEngine(program)
    expected = [engine.run(sample) for sample in samples]
    problems = []
    if read_bytes(folder / GOLDEN_FILE, TENSOR_BYTES) != packed(tensors, outputs, expected):
        problems.append(f"{folder / GOLDEN_FILE} holds other integers than the oracle computes")
    compiled = compile_sources(compiler, FLAGS, [folder / "main.c", source], work / name)
    result = work / f"{name}.bin"
    constants = [folder / CONSTANTS_FILE] if is_file(folder / CONSTANTS_FILE) else []
    _run(compiled, ["run", folder / INPUTS_FILE, result, *constants])
    found = unpacked(tensors, outputs, result)
    if len(found) != len(samples):
        raise EngineError(f"{source} computed {len(found)} samples, expected {len(samples)}")
    return _compared(name, found, expected, problems)


def _run(compiled: Path, arguments: Sequence[str | Path]) -> None:
    """Runs a compiled project.

    Raises:
        EngineError: it takes too long, or it fails; the message shows its error output.
    """
    try:
        done = subprocess.run(
            [compiled, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LONGEST_RUN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"the compiled C project failed: {error}") from error
    if done.returncode:
        raise EngineError(
            f"the compiled C project failed with status {done.returncode}: {done.stderr.strip()}"
        )


def _compared(
    project: str,
    found: Sequence[Mapping[str, np.ndarray]],
    expected: Sequence[Mapping[str, np.ndarray]],
    problems: list[str],
) -> FormCheck:
    """Counts the integers that differ, and adds the first of them to the problems."""
    integers = mismatches = 0
    for index, (ours, right) in enumerate(zip(found, expected, strict=True)):
        for name, values in ours.items():
            different = np.argwhere(values != right[name])
            if len(different) and not mismatches:
                place = tuple(different[0].tolist())
                problems.append(
                    f"{project}: first mismatch: sample {index}, output {name}{list(place)}: "
                    f"expected {right[name][place]}, got {values[place]}"
                )
            integers += values.size
            mismatches += len(different)
    return FormCheck(integers, mismatches, tuple(problems))
