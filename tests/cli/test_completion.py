"""A shell completes names as well as options, and waits for no PyTorch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from photomask.cli.names import names_of

RECIPES = {name for name in names_of("recipes") if name.startswith("w8")}
CODE = """
import sys
from photomask.cli import main
sys.argv = ["photomask"]
try:
    main()
finally:
    heavy = {"torch", "numpy", "rich"} & set(sys.modules)
    print("imported:", *sorted(heavy), file=sys.stderr)
"""


def complete(line: str, folder: Path) -> list[str]:
    """Returns what bash proposes for the last word of a line."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=folder,
        env=os.environ
        | {
            "_PHOTOMASK_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "imported:\n", done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("photomask ", {"list", "chip", "attention", "demo", "report"}),
        ("photomask chip conv", {"convert"}),
        ("photomask list rec", {"recipes"}),
        ("photomask chip convert res", {"resnet20"}),
        (
            "photomask chip convert m.py:n --recipe w8",
            {n for n in names_of("recipes") if "w8" in n},
        ),
        ("photomask chip convert resnet20 --target t", {"tflite"}),
        ("photomask chip convert resnet20 --data f", {"fashion-mnist", "folder/"}),
        ("photomask chip convert resnet20 --data folder/i", {"folder/images.npy"}),
        ("photomask chip convert resnet20 --encoding h", {"hex"}),
        ("photomask chip verify resnet20 out --device cp", {"cpu"}),
        ("photomask chip export out --format q", {"qdq", "qonnx"}),
        ("photomask chip run out --engine o", {"onnx"}),
        ("photomask chip estimate out --accelerator e", {"edge"}),
        ("photomask chip search resnet20 --cost c", {"cycles"}),
        ("photomask attention calibrate p", {"picture-questions"}),
        ("photomask attention calibrate m --data p", {"picture-questions"}),
        ("photomask chip train resnet20 --save-w", {"--save-weights"}),
    ],
)
def test_a_shell_completes(line: str, expected: set[str], tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "images.npy").touch()
    assert set(complete(line, tmp_path)) == expected


IN_BASH = """
photomask --show-completion > shown.sh
source shown.sh
COMP_WORDS=(photomask chip convert res)
COMP_CWORD=3
_photomask_completion photomask
echo "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_script_that_is_shown_completes_in_bash(tmp_path: Path):
    command = tmp_path / "photomask"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m photomask "$@"\n')
    command.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", IN_BASH],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "resnet20\n", done.stderr
