"""Factors pass through gated units and attention, change no float result, and help integers."""

import torch
from tests.chip.decoding.language_models import CACHE, llama, texts
from torch import Tensor, nn

from photomask.chip import calibrate, load_recipe, prepare
from photomask.chip.decoding import CachedModel
from photomask.chip.equalization import smooth_products
from photomask.chip.equalization.products import passages_of


class Gated(nn.Module):
    """A gated unit with one channel that is far larger than all others."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 12)
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(12, 6)
        with torch.no_grad():
            self.up.weight[3] *= 500
            self.down.weight[:, 3] /= 500

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.nn.functional.silu(self.gate(x)) * self.up(x))


def prepared_llama():
    model = CachedModel(llama(), positions=CACHE)
    chunk = model.first_chunk(torch.from_numpy(texts(8, 12)), CACHE)
    return prepare(model, load_recipe("w8a8-decoder"), chunk, states=model.states), chunk


def in_float(prepared, inputs: list[Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        return {node.name: x for node, x in prepared.graph.run(inputs, prepared.constants_of)}


def test_a_gated_unit_keeps_its_result_and_gains_codes():
    torch.manual_seed(0)
    model, x = Gated().eval(), torch.randn(64, 5, 8)
    errors = []
    for smoothed in (False, True):
        prepared = prepare(model, load_recipe("w8a8-minmax"), x[:1])
        if smoothed:
            assert [way.maker.name for way in passages_of(prepared)] == ["up"]
            assert smooth_products(prepared, x) == 1
        output = prepared.graph.outputs[0]
        torch.testing.assert_close(in_float(prepared, [x])[output], model(x), rtol=1e-4, atol=1e-2)
        calibrate(prepared, x)
        with torch.no_grad():
            errors.append(float((prepared(x)[0] - model(x)).square().mean()))
    assert errors[1] < errors[0] / 4


def test_a_language_model_keeps_its_logits():
    prepared, chunk = prepared_llama()
    logits = prepared.graph.outputs[0]
    before = in_float(prepared, chunk)[logits]
    makers = {way.maker.name.rpartition(".")[2] for way in passages_of(prepared)}
    assert makers == {"up_proj", "v_proj"}
    smooth_products(prepared, [chunk])
    torch.testing.assert_close(in_float(prepared, chunk)[logits], before, rtol=1e-4, atol=1e-5)


def test_heads_that_share_values_share_their_factors():
    prepared, _ = prepared_llama()
    for way in passages_of(prepared):
        (channels,) = way.readers.values()
        count = torch.bincount(channels)
        expected = 2 if way.maker.name.endswith("v_proj") else 1
        assert count.tolist() == [expected] * way.maker.shape[-1]


def test_what_is_an_output_or_no_product_passes_nothing():
    class Seen(Gated):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            up = self.up(x)
            return self.down(torch.sigmoid(self.gate(x)) * up), up

    x = torch.randn(4, 5, 8)
    for model in (Seen(), nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))):
        prepared = prepare(model.eval(), load_recipe("w8a8-minmax"), x)
        assert passages_of(prepared) == []
        assert smooth_products(prepared, x) == 0
