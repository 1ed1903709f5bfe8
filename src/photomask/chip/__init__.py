"""Converts a float model to an integer-only program, verifies the program and exports it.

The functions are called in this order::

    prepared = prepare(model, load_recipe("w8a8"), example)
    calibrate(prepared, images)
    program = convert(prepared, load_target("asic"))
    report = verify(model, program, test_images, labels)
    export(program, "out/export", program.quantize_input(test_images), samples=1)
"""

from photomask.chip.calibration import calibrate
from photomask.chip.channel_pruning import (
    ChannelPlan,
    plan_channels,
    plan_dead_channels,
    remove_channels,
)
from photomask.chip.conversion import align_to_target, convert
from photomask.chip.engines import CEngine, OnnxEngine, TorchEngine
from photomask.chip.forms import Form, check_form, export, load_form
from photomask.chip.forms.memory import check_export, check_outputs
from photomask.chip.preparation import prepare
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.program import IntegerProgram, NumpyEngine
from photomask.chip.pruning import prune
from photomask.chip.quantizers import Quantizer, check_quantizer
from photomask.chip.recipe import Recipe, Rule, load_recipe, save_recipe
from photomask.chip.target import Target, load_target
from photomask.chip.verification import (
    LayerSensitivities,
    PreparedReport,
    Report,
    Thresholds,
    compare_reports,
    compare_with_prepared,
    measure_layer_sensitivity,
    verify,
    write_html,
)

__all__ = [
    "CEngine",
    "ChannelPlan",
    "Form",
    "IntegerProgram",
    "LayerSensitivities",
    "NumpyEngine",
    "OnnxEngine",
    "PreparedModel",
    "PreparedReport",
    "Quantizer",
    "Recipe",
    "Report",
    "Rule",
    "Target",
    "Thresholds",
    "TorchEngine",
    "align_to_target",
    "calibrate",
    "check_export",
    "check_form",
    "check_outputs",
    "check_quantizer",
    "compare_reports",
    "compare_with_prepared",
    "convert",
    "export",
    "load_form",
    "load_recipe",
    "load_target",
    "measure_layer_sensitivity",
    "plan_channels",
    "plan_dead_channels",
    "prepare",
    "prune",
    "remove_channels",
    "save_recipe",
    "verify",
    "write_html",
]
