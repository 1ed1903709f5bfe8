"""What only a process of its own shows: start-up, pipes, interrupts."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import photomask
from photomask.chip import IntegerProgram

COMMAND = [sys.executable, "-c", "from photomask.cli import main; main()"]
COMMANDS = ["convert", "run", "verify", "check", "show"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def test_the_version_is_told():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"photomask {photomask.__version__}\n")


def test_help_needs_neither_torch_nor_pictures():
    code = (
        "import sys; sys.argv = ['photomask', '--help']\n"
        "from photomask.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or None)"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - started < 5  # on an idle machine, a third of a second


@pytest.mark.parametrize("command", [["chip", name] for name in COMMANDS] + [["demo", "chip"]])
def test_every_command_has_help_with_an_example(command: list[str]):
    done = run(*command, "--help")
    assert done.returncode == 0
    assert f"Example: photomask {' '.join(command)}" in " ".join(done.stdout.split())


def test_a_closed_pipe_is_no_error(small_program: IntegerProgram, tmp_path: Path):
    small_program.save(tmp_path / "program")
    show = subprocess.Popen(
        [*COMMAND, "chip", "show", str(tmp_path / "program")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert show.stdout is not None
    show.stdout.close()
    _, errors = show.communicate()
    assert show.returncode in (0, 1)
    assert errors == b""


def test_an_interrupt_ends_without_a_traceback(tmp_path: Path):
    (tmp_path / "slow.py").write_text(
        "import sys, time\n\ndef model():\n"
        "    print('ready', file=sys.stderr, flush=True)\n    time.sleep(60)\n",
        encoding="utf-8",
    )
    arguments = ["chip", "convert", f"{tmp_path}/slow.py:model", "--data", "fashion-mnist"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--output", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start what runs in the background with interrupts ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["x[/x]", "\udcff" * 90])
def test_a_path_that_cannot_be_read_is_an_error_and_not_a_failed_check(path: str, tmp_path: Path):
    done = subprocess.run(
        [*COMMAND, "chip", "show", path],
        cwd=tmp_path,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"error: " in done.stderr


def test_the_package_runs_as_the_command():
    finished = subprocess.run(
        [sys.executable, "-m", "photomask", "--version"], capture_output=True, text=True
    )
    assert finished.returncode == 0
    assert finished.stdout == run("--version").stdout
