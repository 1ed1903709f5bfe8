"""Runs one program on a design that was built, and compares integers and cycles."""

from pathlib import Path

import numpy as np

from photomask.chip import export
from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.forms.rtl.cycles import model_cycles
from photomask.chip.forms.rtl.export import RtlForm
from photomask.chip.forms.rtl.simulation import simulate
from photomask.chip.forms.rtl.simulation_report import SimulationReport
from photomask.chip.forms.rtl.simulator import Simulator
from photomask.chip.program import IntegerProgram


def run(
    program: IntegerProgram,
    codes: np.ndarray | dict[str, np.ndarray],
    folder: Path,
    accelerator: Accelerator,
    simulator: Simulator,
) -> SimulationReport:
    """Exports and simulates a program; every integer and every cycle must be as predicted."""
    export(program, folder, codes, form=RtlForm(accelerator=accelerator))
    report = simulate(folder, simulator=simulator)
    assert report.first_mismatch is None, str(report.first_mismatch)
    assert report.mismatches == 0
    cycles = {layer.step: layer.rtl_cycles for layer in report.layers if layer.passes}
    assert cycles == model_cycles(program, accelerator)
    return report
