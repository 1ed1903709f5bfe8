"""One line of the solver's library is dropped; nothing else is, whoever writes it."""

import os
import subprocess
import sys

import pytest

from photomask.chip.mixed_precision.solver_output import KNOWN, without_known_lines

COMPILED = """
import ctypes
from photomask.chip.mixed_precision.solver_output import KNOWN, without_known_lines
print("before")
with without_known_lines():
    ctypes.CDLL(None).puts(KNOWN)
    print("inside")
    ctypes.CDLL(None).puts(b"a warning")
print("after")
"""


def test_only_the_known_line_is_dropped(capfd: pytest.CaptureFixture[str]):
    with without_known_lines():
        os.write(1, b"one\n" + KNOWN + b"\ntwo " + KNOWN + b"\nthree")
    assert capfd.readouterr().out == f"one\ntwo {KNOWN.decode()}\nthree"


def test_what_was_written_before_an_error_is_kept(capfd: pytest.CaptureFixture[str]):
    @without_known_lines()
    def fail() -> None:
        os.write(1, b"Solver: out of memory\n")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert capfd.readouterr().out == "Solver: out of memory\n"


def test_lines_of_compiled_code_are_caught_behind_a_pipe():
    run = [sys.executable, "-c", COMPILED]
    found = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(found) == ["a warning", "after", "before", "inside"]
    assert (found[0], found[-1]) == ("before", "after")
