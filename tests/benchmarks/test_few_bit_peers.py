import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
IMAGES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("few_bit_peers")


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3)).eval()


def test_a_peer_that_is_not_installed_names_the_line_that_installs_it(
    peers: ModuleType, network: nn.Module, monkeypatch: pytest.MonkeyPatch
):
    flow = peers.FLOWS["NNCF"]._replace(modules=("no_such_package",))
    monkeypatch.setitem(peers.FLOWS, "NNCF", flow)
    with pytest.raises(
        peers.UnavailableError, match=r"not installed: pip install 'photomask\[bench\]'"
    ):
        peers.quantized_by("NNCF", network, IMAGES, 8, 8, None)


@pytest.mark.filterwarnings("ignore")  # of Brevitas, about its own code
@pytest.mark.parametrize("function", [torch.relu, nn.functional.relu])
def test_brevitas_has_the_asked_bits_wherever_a_layer_reads(
    peers: ModuleType, function: Callable[[Tensor], Tensor]
):
    pytest.importorskip("brevitas")

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            layers = (nn.Conv2d(1, 1, 3, padding=1) for _ in range(4))
            self.first, self.second, self.third, self.last = layers
            with torch.no_grad():  # so that no ReLU cuts everything off
                for parameter in self.parameters():
                    parameter.abs_()

        def forward(self, x: Tensor) -> Tensor:
            x = function(self.first(x))
            return self.last(function(self.third(function(self.second(x) + x))))

    torch.manual_seed(0)
    network = peers.brevitas(Residual().eval(), IMAGES, 4, 3, None)
    levels: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Any]) -> None:
        found = layer.input_quant(inputs[0])
        value = found if isinstance(found, Tensor) else found.value
        levels.append(len(value.unique()))

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(count)
    with torch.no_grad():
        network(IMAGES)
    assert min(levels[0], levels[3]) > 8
    assert all(4 < count <= 8 for count in levels[1:3])


@pytest.mark.parametrize(("bits", "train"), [((2, 2), None), ((4, 2), None), ((8, 8), print)])
def test_onnx_runtime_refuses_what_it_does_not_have(
    peers: ModuleType, network: nn.Module, bits: tuple[int, int], train: object
):
    for package in peers.FLOWS["ONNX Runtime"].modules:
        pytest.importorskip(package)
    with pytest.raises(peers.UnavailableError, match=r"none narrower|trains no"):
        peers.quantized_by("ONNX Runtime", network, IMAGES, *bits, train)


@pytest.mark.filterwarnings("ignore")  # of the exporter, about its own code
def test_onnx_runtime_keeps_the_ends_at_8_bits(
    peers: ModuleType, network: nn.Module, tmp_path: Path
):
    for package in peers.FLOWS["ONNX Runtime"].modules:
        pytest.importorskip(package)
    others = importlib.import_module("few_bit_other_peers")
    importlib.import_module("peers").export_onnx(network, IMAGES[:2], tmp_path / "float.onnx")
    kept = others._eight_bits_at_the_ends(tmp_path / "float.onnx")
    assert {name for name in kept if name.endswith("weight")} == {"0.weight", "5.weight"}
    assert {"images", "scores"} <= kept.keys()
    assert all(override["quant_type"].name == "QInt8" for (override,) in kept.values())
