import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.chip.reconstruction.networks import Transformer

from photomask.chip import calibrate, load_recipe, prepare
from photomask.chip.reconstruction import ReconstructionSettings, find_blocks, reconstruct
from photomask.chip.reconstruction.learner import BlockLearner, Chance
from photomask.chip.reconstruction.optimization import batch_order, beta_at, undecided


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 40), st.integers(0, 1000))
def test_every_sample_is_drawn_before_any_is_drawn_again(samples, batch, iterations, seed):
    order = batch_order(samples, batch, iterations, seed)
    assert order.shape == (iterations, min(batch, samples))
    counts = torch.bincount(order.flatten(), minlength=samples)
    assert int(counts.max() - counts.min()) <= 1


def test_beta_falls_from_its_start_to_its_end_after_the_warm_up():
    settings = ReconstructionSettings(iterations=10, warm_up=0.2, beta_start=20.0, beta_end=2.0)
    betas = [beta_at(settings, step) for step in range(10)]
    assert betas[:2] == [None, None]
    assert betas[2] == 20
    rest = [beta for beta in betas if beta is not None]
    assert rest == sorted(rest, reverse=True)
    assert rest[-1] >= 2


def test_the_regularizer_of_a_block_is_one_undecided_and_zero_hard():
    half, hard = [torch.full((5,), 0.5), torch.full((3, 3), 0.5)], [torch.tensor([0.0, 1.0])]
    assert float(undecided(half, 2.0)) == pytest.approx(1)
    assert float(undecided(hard, 2.0)) == 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_chance_keeps_the_share_it_should_and_repeats_with_its_seed(layout):
    x = torch.zeros(4, 8, 16, 16).contiguous(memory_format=layout)
    first, second = (Chance(0.3, x.numel(), torch.device("cpu"), seed=7) for _ in range(2))
    masks = [first.keep(x) for _ in range(5)]
    for mask in masks:
        assert mask.shape == x.shape
        assert torch.equal(mask, second.keep(x))
        assert float(mask.float().mean()) == pytest.approx(0.3, abs=0.02)
    assert not torch.equal(masks[0], masks[1])
    assert Chance(1.0, 10, torch.device("cpu"), seed=0).keep(x) is None


def test_an_untrained_block_with_nothing_dropped_computes_with_float_weights(
    small_network, small_images
):
    prepared = prepare(small_network, load_recipe("w8a16"), small_images[:1])
    calibrate(prepared, small_images)
    values = dict(zip(prepared.graph.inputs, [small_images], strict=True))
    chance = Chance(1.0, 1, torch.device("cpu"), seed=0)
    for block in find_blocks(prepared.graph):
        BlockLearner(prepared, block, ReconstructionSettings()).run(values, chance)
    (expected,) = prepared.graph(small_images)  # in float
    found = values[prepared.graph.outputs[0]].detach()
    assert float((found - expected).norm() / expected.norm()) < 1e-3


def test_every_parameter_of_a_block_gets_a_gradient():
    data = torch.randn(8, 6, 4)
    prepared = prepare(Transformer().eval(), load_recipe("w4a4"), data[:1])
    calibrate(prepared, data)
    block = find_blocks(prepared.graph)[1]
    learner = BlockLearner(prepared, block, ReconstructionSettings())
    values = {edge: torch.randn(8, 6, 8) for edge in block.entries}
    learner.run(values, Chance(0.5, math.prod((8, 6, 64)), torch.device("cpu"), seed=0))
    sum(values[edge].square().sum() for edge in block.exits).backward()
    shifts = [rounding.shift for rounding in learner.roundings.values()]
    assert len(shifts) == 4
    for parameter in (*shifts, learner.logarithms, *learner.biases.values()):
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


def test_a_network_without_anything_to_learn_is_left_alone():
    class Doubled(torch.nn.Module):
        def forward(self, x):
            return x + x

    data = torch.randn(8, 4)
    prepared = prepare(Doubled(), load_recipe("w8a16"), data[:1])
    calibrate(prepared, data)
    report = reconstruct(prepared, data, settings=ReconstructionSettings(iterations=3))
    assert [(block.name, block.kept) for block in report.blocks] == [("add", False)]
