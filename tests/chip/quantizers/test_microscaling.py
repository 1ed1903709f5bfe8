import pytest
import torch
from torch import Tensor, nn

from photomask.chip import Recipe, calibrate, check_quantizer, convert, load_target, prepare
from photomask.chip.microscaling import MX_FORMATS, MXFP4, MXFP8_E4M3, MXINT8, round_to_blocks
from photomask.chip.quantizers import Microscaling
from photomask.errors import QuantizerError, TargetError


@pytest.mark.parametrize("name", MX_FORMATS)
def test_a_tensor_becomes_what_its_blocks_stand_for_and_gradients_pass(name: str):
    x = torch.randn(4, 40, 3, requires_grad=True)
    value = Microscaling(MX_FORMATS[name])(x)
    assert torch.equal(value, round_to_blocks(x, MX_FORMATS[name], 1))
    slope = torch.randn_like(x)
    value.backward(slope)
    assert torch.equal(x.grad, slope)


def test_a_network_runs_with_them_and_is_refused_as_a_program(
    small_network: nn.Module, small_images: Tensor
):
    noise = {}
    for element in (MXFP4, MXFP8_E4M3, MXINT8):
        recipe = Recipe(weight=Microscaling(element), activation=Microscaling(element))
        prepared = prepare(small_network, recipe, small_images[:1])
        calibrate(prepared, small_images)
        with torch.no_grad():
            y = small_network(small_images)
            noise[element] = float((prepared(small_images)[0] - y).square().sum())
        assert str(element) in str(prepared.recipe)
        with pytest.raises(TargetError, match=r"static.*microscaling\.dot") as found:
            convert(prepared, load_target("asic"))
        assert "weight of 'stem.0' in MX" in str(found.value)
    assert 0 < noise[MXINT8] < noise[MXFP8_E4M3] < noise[MXFP4]


def test_there_are_no_static_codes():
    quantizer = Microscaling(MXFP4)
    with pytest.raises(QuantizerError, match="scale for each block"):
        quantizer.quantize(torch.ones(1, 32))
    with pytest.raises(QuantizerError, match="Microscaling breaks the law"):
        check_quantizer(quantizer)
