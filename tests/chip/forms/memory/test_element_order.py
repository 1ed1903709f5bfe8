import numpy as np
import pytest
import torch
from tests.chip.programs import small_program
from torch import nn

from photomask.chip import calibrate, convert, prepare
from photomask.chip.forms.c.tensors import tensors_of
from photomask.chip.forms.memory.element_order import (
    ElementOrder,
    axis_names,
    edge_orders,
    row_major,
    tensor_order,
)
from photomask.chip.program.feature_maps import feature_maps
from photomask.chip.target import PRESETS


def target(**fields):
    return PRESETS["asic"].model_copy(update=fields)


@pytest.mark.parametrize(
    ("layout", "name", "linear_name"),
    [
        ("output_input_kernel", "OIHW", "OI"),
        ("output_kernel_input", "OHWI", "OI"),
        ("kernel_input_output", "HWIO", "IO"),
    ],
)
def test_weights_lie_in_the_target_order(layout, name, linear_name):
    program, _ = small_program(target(weight_layout=layout))
    step = program.steps[0]
    order = tensor_order(program, step, "weight")
    assert order.name == name
    weight = program.parameters(step)["weight"]
    o, i, h, w = weight.shape
    sizes = {"O": o, "I": i, "H": h, "W": w}
    expected = []
    for position in np.ndindex(*(sizes[letter] for letter in name)):
        at = dict(zip(name, position, strict=True))
        expected.append(weight[at["O"], at["I"], at["H"], at["W"]])
    assert order.flatten(weight).tolist() == expected
    assert np.array_equal(order.restore(order.flatten(weight), weight.shape), weight)
    classifier = next(step for step in program.steps if step.name == "classifier")
    assert tensor_order(program, classifier, "weight").name == linear_name
    assert tensor_order(program, step, "bias").name == "row_major"


def test_feature_maps_are_channels_last_where_the_target_says_so():
    program, _ = small_program(target(activation_layout="channels_last"))
    names = {name: order.name for name, order in edge_orders(program).items()}
    assert names["x"] == names["layer1.conv"] == names["residual_requantize"] == "NHWC"
    assert names["pool"] == "NHWC"
    assert names["flatten"] == names["classifier"] == "row_major"
    assert "flatten" not in feature_maps(program)


def test_feature_maps_are_channels_first_by_default():
    program, _ = small_program()
    assert edge_orders(program)["residual"].name == "NCHW"


def test_the_coordinate_is_in_the_tensors_own_axes():
    shape = (1, 3, 4, 5)
    order = ElementOrder("NHWC", (0, 2, 3, 1))
    tensor = np.arange(60).reshape(shape)
    flat = order.flatten(tensor)
    for position in (0, 7, 59):
        assert tensor[order.coordinate(position, shape)] == flat[position]
    assert axis_names(order, 4) == ("n", "c", "h", "w")
    assert axis_names(row_major((1, 2)), 2) == ("axis0", "axis1")


def test_memory_images_and_c_agree_about_norms_behind_feature_maps():
    model = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.LayerNorm(8)).eval()
    prepared = prepare(model, "w8a8", torch.randn(1, 3, 8))
    calibrate(prepared, torch.randn(32, 3, 8))
    program = convert(prepared, target(activation_layout="channels_last"))
    in_images = {name for name, o in edge_orders(program).items() if o.name != "row_major"}
    in_c = {name for name, t in tensors_of(program).items() if t.order_name != "row major"}
    assert in_images == in_c == feature_maps(program)
    assert program.outputs[0] not in in_images
