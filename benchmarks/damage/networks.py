"""Good specimens of what the chip pipeline writes, made from one small network."""

import shutil
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from photomask.chip import (
    IntegerProgram,
    PreparedModel,
    calibrate,
    convert,
    export,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.forms.rtl import RtlForm
from photomask.chip.mixed_precision import allocate, measure_sensitivity, weight_bit_costs
from photomask.chip.reconstruction import ReconstructionSettings, reconstruct
from photomask.chip.training import TrainingSettings, save_weights, train

RECONSTRUCTION = ReconstructionSettings(iterations=2, batch_size=4)
TRAINING = TrainingSettings(
    epochs=1,
    batch_size=4,
    learning_rate=0.05,
    quantizer_learning_rate=1e-3,
    average_decay=0.9,
    optimizer="adamw",
)


class Network(nn.Module):
    """Two convolutions, a residual addition, an average and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.classifier = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[N, 2, 4, 4]` to `[N, 3]`."""
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.second(x))
        return self.classifier(x.mean((2, 3)))


@cache
def network() -> nn.Module:
    """Makes the network with the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network().eval()


@cache
def images() -> Tensor:
    """Inputs of the network, float32 [8, 2, 4, 4]."""
    return torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(1))


@cache
def data() -> tuple[Tensor, Tensor]:
    """Inputs and classes."""
    return images(), torch.arange(8) % 3


@cache
def prepared(recipe: str, *, is_calibrated: bool = True) -> PreparedModel:
    """Prepares the network; callers copy what they change."""
    found = prepare(network(), load_recipe(recipe), images()[:1])
    if is_calibrated:
        calibrate(found, images())
    return found


@cache
def program() -> IntegerProgram:
    """The integer program of the network."""
    return convert(prepared("w8a8"), load_target("asic"))


def make(folder: Path) -> None:
    """Writes a good specimen of each kind into a folder of its name."""
    codes = program().quantize_input(images())
    program().save(folder / "program")
    export(program(), folder / "export", codes, samples=1)
    shutil.copytree(folder / "export", folder / "simulator output/export")
    shutil.copytree(folder / "export/golden", folder / "simulator output/out")
    export(program(), folder / "rtl/export", codes, form=RtlForm(), samples=1)
    shutil.copytree(folder / "rtl/export/golden/0", folder / "rtl/out")
    design = (folder / "rtl/export/design.json").read_text(encoding="utf-8")
    (folder / "rtl/out/cycles.txt").write_text(_cycles(design), encoding="ascii")
    for path in (folder / "rtl/export").rglob("*"):
        if path.is_file() and path.suffix != ".json" and "golden" not in path.parts:
            path.unlink()  # neither the comparison nor the record reads the design's sources
    sensitivities = measure_sensitivity(prepared("w4a8"), images(), weight_bits=(2, 4, 8))
    costs = weight_bit_costs(prepared("w4a8"), sensitivities)
    chosen = allocate(prepared("w4a8"), sensitivities, costs, 4 * (72 + 36 + 12))
    (folder / "allocation").mkdir()
    chosen.save(folder / "allocation/allocation.json")
    model = prepare(network(), load_recipe("w4a8"), images()[:1])
    calibrate(model, images())
    save_weights(model, folder / "weights")
    train(model, data(), TRAINING, checkpoint=folder / "training")
    model = prepare(network(), load_recipe("w4a8"), images()[:1])
    calibrate(model, images())
    reconstruct(model, images(), settings=RECONSTRUCTION, checkpoint=folder / "reconstruction")


def _cycles(design: str) -> str:
    """Returns what the testbench writes where every step takes the cycles of the formula."""
    import json

    steps = [step for step in json.loads(design)["steps"] if step["passes"]]
    lines = [f"{step['number']} {step['cycles']}" for step in steps]
    return "\n".join([*lines, f"total {sum(step['cycles'] for step in steps)}", ""])
