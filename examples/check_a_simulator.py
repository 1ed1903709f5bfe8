"""Find the first wrong integer that a simulator, or a chip, has written."""

import shutil
from pathlib import Path

import torch
from torch import nn

from photomask.chip import (
    calibrate,
    check_outputs,
    convert,
    export,
    load_recipe,
    load_target,
    prepare,
)

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)
).eval()
images = torch.randn(16, 1, 8, 8)
prepared = prepare(model, load_recipe("w8a8"), images[:1])
calibrate(prepared, images)
program = convert(prepared, load_target("asic"))

design, simulated = Path("out/design"), Path("out/simulated")
export(program, design, program.quantize_input(images), samples=2)

# What your testbench writes with $writememh lies here; this one has a fault: of one word of the
# second sample, a bit is stuck.
shutil.rmtree(simulated, ignore_errors=True)
shutil.copytree(design / "golden", simulated)
wrong = next((simulated / "1").glob("*accumulator.hex"))
lines = wrong.read_text(encoding="utf-8").splitlines()
lines[5] = f"{int(lines[5], 16) ^ 0x10:08x}"
wrong.write_text("\n".join(lines) + "\n", encoding="utf-8")

report = check_outputs(design, simulated)
print(report)
assert not report.passed
