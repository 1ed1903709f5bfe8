"""One build of each design for all tests of the reference design."""

from collections.abc import Callable

import pytest
from tests.chip.forms.rtl.rtl_programs import built, shared_folder

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.forms.rtl.simulator import Simulator


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Accelerator], Simulator]:
    """Builds a design once for all tests, also where several processes share them."""
    shared = shared_folder(tmp_path_factory)

    def build_design(accelerator: Accelerator) -> Simulator:
        return built(shared / f"rtl-{accelerator.name.replace(' ', '-')}", accelerator)

    return build_design
