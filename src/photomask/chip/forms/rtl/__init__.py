"""The RTL form: a program on the reference design, with descriptors, images, RTL and simulation.

How a program becomes descriptors, in the words that all forms share:

1. A **writer** (`convolution`, `elementwise`, `moving`, `pooling`, `products`, `requantize`,
   `transformers`) gets an operator and the **context** of its step, and returns the step's
   descriptors. `context.py` says what a context holds; its table `RTL` says which writer belongs to
   which operator. `weight_tiles.py` and `vector_unit.py` make the parts that several writers need.
2. `lowering.py` makes a context for each step and calls the writers. `layouts.py` and
   `memory_map.py` give every edge its place in memory. `cycles.py` counts the cycles that the
   descriptors take.
3. `export.py` has the form, `RtlForm`. Its **export** writes the design, the descriptors and the
   golden vectors. Its **check** simulates them and compares every integer with the oracle's.
"""

from photomask.chip.forms.rtl import convolution as convolution
from photomask.chip.forms.rtl import elementwise as elementwise
from photomask.chip.forms.rtl import moving as moving
from photomask.chip.forms.rtl import pooling as pooling
from photomask.chip.forms.rtl import products as products
from photomask.chip.forms.rtl import requantize as requantize
from photomask.chip.forms.rtl import transformers as transformers
from photomask.chip.forms.rtl.cycles import model_cycles
from photomask.chip.forms.rtl.design import RtlDesign
from photomask.chip.forms.rtl.export import RtlForm
from photomask.chip.forms.rtl.lowering import SupportReport, support_report
from photomask.chip.forms.rtl.simulation import simulate
from photomask.chip.forms.rtl.simulation_report import SimulationReport
from photomask.chip.forms.rtl.synthesis import (
    LintReport,
    SynthesisReport,
    lint,
    rtl_sources,
    synthesize,
)

__all__ = [
    "LintReport",
    "RtlDesign",
    "RtlForm",
    "SimulationReport",
    "SupportReport",
    "SynthesisReport",
    "lint",
    "model_cycles",
    "rtl_sources",
    "simulate",
    "support_report",
    "synthesize",
]
