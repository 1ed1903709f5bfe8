"""CONTRIBUTING names exactly the files that an extension changes, and the extension then works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.house.doors import DOORS, WRITERS, Door, named_files, pattern_of
from tests.house.sources import ROOT

PACKAGE = ROOT / "src" / "photomask"
NOT_NEEDED = shutil.ignore_patterns("*.npz", "*.safetensors", "__pycache__")


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.heading)
def test_a_dummy_changes_the_files_that_its_section_names_and_no_other(door: Door):
    named = named_files(door.heading)
    unnamed = {
        path for path in door.touched if not any(pattern_of(n).fullmatch(path) for n in named)
    }
    untouched = {
        n for n in named if not any(pattern_of(n).fullmatch(path) for path in door.touched)
    }
    assert not unnamed
    assert not untouched


def test_an_operator_has_one_function_or_reason_in_each_form_with_a_table():
    tables = {path.parent.name for path in (PACKAGE / "chip" / "forms").glob("*/context.py")}
    assert tables == set(WRITERS)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """Adds all dummies to a copy of the package, and uses them."""
    folder = tmp_path_factory.mktemp("doors")
    package = folder / "photomask"
    shutil.copytree(PACKAGE, package, ignore=NOT_NEEDED)
    for door in DOORS:
        door.open(package)
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    # As CONTRIBUTING asks for: writes what the command line lists.
    names = [sys.executable, str(ROOT / "scripts" / "write_names.py")]
    subprocess.run(names, env=environment, cwd=folder, check=True)
    script = Path(__file__).with_name("walk_through_doors.py")
    return subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.heading)
def test_a_dummy_works_without_another_change(door: Door, walk: subprocess.CompletedProcess[str]):
    assert f"works: {door.heading}\n" in walk.stdout, walk.stdout[-500:] + walk.stderr[-4000:]
