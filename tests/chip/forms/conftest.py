import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.chip.programs import small_program

from photomask.chip import export
from photomask.chip.forms import MemoryForm


@pytest.fixture(scope="session")
def pristine_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the small program, two samples, in all encodings; not to be changed."""
    program, codes = small_program()
    folder = tmp_path_factory.mktemp("exports") / "small"
    export(program, folder, codes, form=MemoryForm(encodings=("hex", "bin", "dec", "npy")))
    return folder


@pytest.fixture
def exported(pristine_export: Path, tmp_path: Path) -> Path:
    """A copy of the export that a test may change."""
    return Path(shutil.copytree(pristine_export, tmp_path / "small"))


@pytest.fixture
def simulated(pristine_export: Path, tmp_path: Path) -> Path:
    """What a simulator without a fault would write: the golden hex files."""
    ignore: Callable = shutil.ignore_patterns("*.bin", "*.dec", "*.npy")
    return Path(shutil.copytree(pristine_export / "golden", tmp_path / "simulated", ignore=ignore))
