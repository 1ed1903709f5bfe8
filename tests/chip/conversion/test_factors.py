"""Power-of-two factors of channels: chosen by calibration, exact in norms, widened for the rest."""

import numpy as np
import pytest
import torch
from tests.chip.conversion.flow import codes_of, signal_to_noise
from torch import Tensor, nn

from photomask.chip import Recipe, Rule, calibrate, convert, load_target, prepare
from photomask.chip.engines import CEngine, OnnxEngine, TorchEngine
from photomask.chip.program import NumpyEngine
from photomask.chip.quantizers import PowerOfTwoFactors, Quantizer, check_quantizer
from photomask.chip.target import Target
from photomask.errors import RecipeError, TargetError

CHANNELS = 16
BASE = Quantizer(8, symmetric=False)
FACTORS = Recipe(activation=BASE, rules=(Rule("norm_inputs", activation=PowerOfTwoFactors(8)),))


class Stream(nn.Module):
    """Two layers that add to a stream whose channels differ by far, each behind a norm."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(CHANNELS) for _ in range(3))
        self.layers = nn.ModuleList(nn.Linear(CHANNELS, CHANNELS) for _ in range(3))
        large = torch.ones(CHANNELS)
        large[[3, 7]] = torch.tensor([90.0, 25.0])
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.mul_(large[:, None])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layers[0](x)
        x = x + self.layers[1](self.norms[0](x))
        x = x + self.layers[2](self.norms[1](x))
        return self.norms[2](x)


def flow(recipe: Recipe, target: Target | None = None):
    torch.manual_seed(0)
    model, x = Stream().eval(), torch.randn(64, 5, CHANNELS)
    prepared = prepare(model, recipe, x[:1])
    calibrate(prepared, x)
    return model, x, prepared, convert(prepared, target or load_target("asic"))


def typical_channel(model: nn.Module, x: Tensor, program) -> float:
    """The SQNR in dB of the channel in the middle, small channels not drowned by large ones."""
    codes = {name: value.numpy() for name, value in codes_of(program, [x]).items()}
    output = program.edges[program.outputs[0]]
    found = output.dequantize(torch.from_numpy(NumpyEngine(program).run(codes)[output.name]))
    with torch.no_grad():
        wanted = model(x).double()
    noise, signal = ((v**2).sum(dim=(0, 1)) for v in (found - wanted, wanted))
    return float((10 * torch.log10(signal / noise)).median())


def test_the_quantizer_keeps_its_laws():
    check_quantizer(PowerOfTwoFactors(8))


def test_scales_are_powers_of_two_apart_and_cover_every_channel():
    quantizer = PowerOfTwoFactors(8)
    x = torch.randn(1000, 12) * torch.logspace(-3, 2, 12)
    quantizer.observe(x)
    quantizer.fit()
    factors = torch.log2(quantizer.scale.double() / quantizer.scale.min().double())
    assert torch.equal(factors, factors.round())
    assert int(factors.max()) == 8
    assert bool((quantizer.scale * 128 >= x.abs().amax(dim=0) * (1 - 1e-6)).all())
    assert bool((quantizer.quantize(x).abs().amax(dim=0)[-6:] >= 63).all()), "no bit is wasted"


def test_norms_read_the_codes_and_their_factors_exactly():
    _, x, _prepared, program = flow(FACTORS)
    for step in program.steps:
        if step.operator.kind == "normalize":
            edge = program.edges[step.inputs[0]]
            assert (edge.format.bits, edge.zero_point, edge.channel_axis) == (8, 0, 2)
            shifts = program.tensors[step.tensors["channel_shift"]]
            assert np.array_equal(np.array(edge.scale) / min(edge.scale), 2.0**shifts)
            assert shifts.max() >= 4
    wide = [step for step in program.steps if step.name.endswith(".wide")]
    assert wide, "the next sum reads the stream too"
    codes = {name: value.numpy() for name, value in codes_of(program, [x]).items()}
    edges = dict(NumpyEngine(program).edges(codes))
    for step in wide:
        given, found = program.edges[step.inputs[0]], program.edges[step.output]
        real = (edge.dequantize(torch.from_numpy(edges[edge.name])) for edge in (given, found))
        assert torch.equal(*real)


def test_every_engine_agrees():
    model, x, _, program = flow(FACTORS)
    assert signal_to_noise(model, [x], program) > 17
    codes = {name: value.numpy() for name, value in codes_of(program, [x[:3]]).items()}
    for engine in (CEngine(program, compiler="cc -O1"), OnnxEngine(program)):
        found = dict(engine.edges(codes))
        for name, expected in NumpyEngine(program).edges(codes):
            np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_small_channels_gain_where_a_few_are_large():
    plain, factored = flow(Recipe(activation=BASE)), flow(FACTORS)
    assert typical_channel(*factored[:2], factored[3]) > 6 + typical_channel(*plain[:2], plain[3])


def test_the_prepared_model_computes_what_the_program_will():
    _model, x, prepared, program = flow(FACTORS)
    codes = {name: value.numpy() for name, value in codes_of(program, [x]).items()}
    output = program.edges[program.outputs[0]]
    found = output.dequantize(torch.from_numpy(NumpyEngine(program).run(codes)[output.name]))
    with torch.no_grad():
        expected = prepared(x)[0].double()
    assert 10 * torch.log10((expected**2).sum() / ((found - expected) ** 2).sum()) > 35


def test_one_shift_for_all_channels_is_made_up_by_multipliers():
    model, x, _, program = flow(FACTORS, Target(name="shared", per_channel_shift=False))
    assert signal_to_noise(model, [x], program) > 17


def test_other_results_have_no_factors():
    rule = Rule("operator:convolution", activation=PowerOfTwoFactors(8))
    x = torch.randn(4, 3, 8, 8)
    prepared = prepare(nn.Conv2d(3, 4, 3).eval(), Recipe(rules=(rule,)), x)
    calibrate(prepared, x)
    with pytest.raises(
        TargetError, match=r"output of convolution cannot have power-of-two factors"
    ):
        convert(prepared, load_target("asic"))


def test_hardware_that_only_shifts_right_is_refused():
    with pytest.raises(TargetError):
        flow(FACTORS, load_target("max78000"))


def test_a_recipe_for_norms_needs_one():
    with pytest.raises(RecipeError, match="'norm_inputs' matches nothing: no norm reads"):
        prepare(nn.Linear(4, 4), FACTORS, torch.randn(2, 4))


WIDE = Recipe(
    activation=BASE,
    rules=(Rule("norm_inputs", activation=PowerOfTwoFactors(16, largest_factor=8)),),
)


class Inner(Stream):
    """A stream that norms and sums alone read, as a language model's; it starts with a layer."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x)
        x = x + self.layers[1](self.norms[0](x))
        x = x + self.layers[2](self.norms[1](x))
        return self.norms[2](x)


def inner():
    torch.manual_seed(0)
    model, x = Inner().eval(), torch.randn(64, 5, CHANNELS)
    with torch.no_grad():
        model.layers[0].weight[3] *= 40
    prepared = prepare(model, WIDE, x[:1])
    calibrate(prepared, x)
    return model, x, prepared, convert(prepared, load_target("asic"))


def test_sums_add_codes_of_common_factors_as_they_are():
    _, _, _, program = inner()
    assert not [step for step in program.steps if step.name.endswith(".wide")]
    factors = set()
    for step in program.steps:
        if step.operator.kind == "add":
            for name in (*step.inputs, step.output.removesuffix(".accumulator")):
                edge = program.edges[name]
                assert (edge.format.bits, edge.zero_point) == (16, 0)
                factors.add(tuple(np.log2(np.array(edge.scale) / min(edge.scale))))
    assert len(factors) == 1, "one for the whole stream, whatever its edges' ranges"
    assert max(factors.pop()) > 4


def test_common_factors_are_the_same_integers_in_every_engine():
    _, x, _, program = inner()
    codes = {name: value.numpy() for name, value in codes_of(program, [x[:3]]).items()}
    tensors = {name: torch.from_numpy(value) for name, value in codes.items()}
    torch_edges = ((name, value.numpy()) for name, value in TorchEngine(program).edges(tensors))
    engines = (CEngine(program, compiler="cc -O1"), OnnxEngine(program))
    for edges in (torch_edges, *(engine.edges(codes) for engine in engines)):
        found = dict(edges)
        for name, expected in NumpyEngine(program).edges(codes):
            np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_common_factors_cover_every_edge_and_waste_no_bit():
    _, x, prepared, _ = inner()
    with torch.no_grad():
        for node, value in prepared.graph.run([x], prepared.constants_of):
            quantizer = prepared.activation_quantizer(node.name)
            if isinstance(quantizer, PowerOfTwoFactors):
                # The quotient of a code of 16 bits is itself rounded, by 2**-9 at most.
                half = quantizer.scale * (0.5 + 2.0**-8)
                assert bool(((quantizer(value) - value).abs() <= half).all())
                assert int(quantizer.quantize(value).abs().max()) >= 2**15 - 2


def test_small_channels_have_finer_steps_than_one_scale_of_as_many_bits_gives():
    model, x, prepared, _ = inner()
    rule = Rule("norm_inputs", activation=Quantizer(16, symmetric=True, signed=True))
    plain = prepare(model, Recipe(activation=BASE, rules=(rule,)), x[:1])
    calibrate(plain, x)
    for name in ("layers.0", "add", "add_1"):
        fine = prepared.activation_quantizer(name).scale
        assert float(fine.median()) * 32 <= float(plain.activation_quantizer(name).scale)


def test_layers_that_read_wide_factors_are_refused():
    with pytest.raises(TargetError, match="only norms can read them, and sums whose edges"):
        flow(WIDE)


def test_factors_have_a_range():
    with pytest.raises(
        RecipeError, match="largest_factor must be an integer from 1 to 14, found 15"
    ):
        PowerOfTwoFactors(8, largest_factor=15)


def test_sixteen_bits_leave_no_room_for_factors():
    with pytest.raises(RecipeError, match="no room for factors"):
        PowerOfTwoFactors(16)
