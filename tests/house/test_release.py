"""What is released: the wheel is complete without the repository, and its facts agree."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

import photomask

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY.md")
BUILD = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Builds the wheel from a copy, because a build writes beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    no_leftovers = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(SOURCE, copy / "src", ignore=no_leftovers)
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, copy / name)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_string(wheel.read(name).decode("utf-8"))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile):
    tracked = {
        file.relative_to(SOURCE).as_posix()
        for file in (SOURCE / "photomask").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == tracked


def test_the_wheel_holds_the_licences_of_what_it_ships(wheel: zipfile.ZipFile):
    names = {name.partition(".dist-info/licenses/")[2] for name in wheel.namelist()}
    assert {"LICENSE", "THIRD_PARTY.md", "src/photomask/zoo/data/LICENSE.md"} <= names


def test_every_shipped_file_of_data_has_a_licence():
    table = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    covered = re.findall(r"`(src/photomask/[\w/]+)`", table)
    data = [
        file.relative_to(ROOT).as_posix()
        for suffix in ("*.npz", "*.safetensors")
        for file in SOURCE.rglob(suffix)
    ]
    assert data
    assert [name for name in data if not any(name.startswith(f"{x}/") for x in covered)] == []


def test_the_wheel_says_where_to_go(metadata: Message):
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL") or [])
    assert {"Homepage", "Documentation", "Repository", "Issues", "Changelog"} == set(urls)
    assert urls == PROJECT["urls"]


def test_the_version_is_stated_alike(metadata: Message):
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[?(\d[\w.]*)\]? - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert newest is not None
    assert metadata["Version"] == photomask.__version__ == newest[1]
    assert f"\nversion: {newest[1]}\n" in citation
    assert f"\ndate-released: {newest[2]}\n" in citation


def test_every_python_of_the_classifiers_is_tested():
    named = {
        found[1]
        for line in PROJECT["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
    }
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    lists = re.findall(r"python: \[([^\]]+)\]", workflow)
    assert len(lists) == 2
    assert all(set(re.findall(r"3\.\d+", found)) == named for found in lists)


def test_the_workflow_calls_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    called = set(re.findall(r"\bmake ([\w-]+)", workflow))
    assert called >= {"test", "docs", "wheel-demo"}
    assert [name for name in called if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_every_requirement_states_its_oldest_version():
    extras = PROJECT["optional-dependencies"].values()
    wanted = [*PROJECT["dependencies"], *(name for extra in extras for name in extra)]
    assert [x for x in wanted if ">=" not in x and not x.startswith("photomask[")] == []
