import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from photomask.chip.pruning import (
    Blocks,
    GraNet,
    Magnitude,
    Moment,
    NofM,
    PrunableWeight,
    Pruner,
    RigL,
    Snip,
    SparseRefinement,
    Wanda,
    check_pruner,
)
from photomask.chip.pruning.rigl import kernel_densities
from photomask.errors import PruningError

TWO_OF_FOUR = NofM(kept=2, group=4)


def some(shape, seed=0, layer="layer", density=1.0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < density
    return PrunableWeight(
        layer,
        weight * mask,
        mask,
        torch.randn(shape, generator=generator),
        torch.rand((1, shape[1], *(1,) * (len(shape) - 2)), generator=generator) + 0.1,
    )


@pytest.mark.parametrize(
    "pruner",
    [
        Magnitude(0.8),
        Magnitude(0.8, scope="global"),
        Magnitude(0.5, scope="output"),
        Magnitude(pattern=TWO_OF_FOUR),
        Magnitude(pattern=NofM(kept=4, group=8)),
        Magnitude(0.7, pattern=Blocks(outputs=8, inputs=8)),
        Magnitude(0.7, pattern=Blocks(outputs=3, inputs=5), scope="global"),
        Wanda(0.5),
        Wanda(pattern=TWO_OF_FOUR),
        Snip(0.9),
        GraNet(0.8),
        RigL(0.9),
        SparseRefinement(pattern=NofM(kept=1, group=4)),
        SparseRefinement(0.5),
    ],
    ids=repr,
)
def test_our_pruners_keep_the_contract(pruner):
    check_pruner(pruner)


@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from([(1, 4), (2, 4), (4, 8), (3, 5)]),
    st.sampled_from([(), (3,), (2, 3)]),
    st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_every_group_keeps_its_largest_weights(outputs, groups, pattern, kernel, seed):
    kept, group = pattern
    weight = some((outputs, groups * group, *kernel), seed)
    (mask,) = Magnitude(pattern=NofM(kept=kept, group=group)).masks([weight], 0.0)
    values, found = weight.weight.numpy(), mask.numpy()
    for at in np.ndindex(outputs, *kernel):
        row = np.abs(values[(at[0], slice(None), *at[1:])])
        kept_row = found[(at[0], slice(None), *at[1:])]
        for begin in range(0, len(row), group):
            best = sorted(range(begin, begin + group), key=lambda i: -row[i])[:kept]
            assert set(np.flatnonzero(kept_row[begin : begin + group]) + begin) == set(best)


def test_a_global_scope_compares_the_weights_of_all_layers():
    small, large = some((4, 6), 1), some((5, 7), 2)
    large = PrunableWeight("large", large.weight * 100, large.mask)
    first, second = Magnitude(0.4, scope="global").masks([small, large], 0.4)
    every = torch.cat([small.weight.abs().flatten(), large.weight.abs().flatten()])
    limit = every.sort(descending=True).values[round(0.6 * len(every)) - 1]
    assert torch.equal(first, small.weight.abs() >= limit)
    assert torch.equal(second, large.weight.abs() >= limit)


def test_blocks_are_kept_by_their_mean_magnitude():
    weight = some((6, 5, 2), 3)
    (mask,) = Magnitude(0.5, pattern=Blocks(outputs=4, inputs=2)).masks([weight], 0.5)
    values = weight.weight.abs()
    means = {}
    for top in (0, 4):
        for left in (0, 2, 4):
            for tap in range(2):
                block = (slice(top, top + 4), slice(left, left + 2), tap)
                means[float(values[block].mean())] = bool(mask[block].all())
                assert mask[block].all() == mask[block].any()
    ranked = [means[mean] for mean in sorted(means, reverse=True)]
    assert ranked == [True] * 6 + [False] * 6


def test_wanda_compares_the_weights_of_one_output_times_their_inputs():
    weight = some((3, 8), 4)
    (mask,) = Wanda(0.5).masks([weight], 0.5)
    score = weight.weight.abs() * weight.input_norms
    for row, kept in zip(score, mask, strict=True):
        assert set(kept.nonzero().flatten().tolist()) == set(row.topk(4).indices.tolist())


def test_snip_scores_the_product_with_the_gradient():
    weight = some((3, 8), 5)
    assert torch.equal(Snip(0.5).score(weight), (weight.weight * weight.gradient).abs())


def test_granet_replaces_the_smallest_kept_weights_by_the_largest_gradients():
    weight = some((10, 10), 6)
    pruner = GraNet(0.5, regrowth=0.4)
    (before,) = pruner.masks([weight], 0.5)
    (after,) = pruner.update([weight], Moment(0.5, 0.5))
    count = int(0.2 * 50)  # half of `regrowth` in the middle of the schedule
    assert int(after.sum()) == 50
    lost, grown = before & ~after, after & ~before
    assert int(lost.sum()) == int(grown.sum()) == count
    kept = weight.weight.abs()[before].sort().values
    assert bool((weight.weight.abs()[lost] <= kept[count - 1]).all())
    slopes = weight.gradient.abs()[~before].sort(descending=True).values
    assert bool((weight.gradient.abs()[grown] >= slopes[count - 1]).all())


def test_granet_regrows_nothing_at_the_end():
    weight = some((10, 10), 7)
    pruner = GraNet(0.8)
    assert torch.equal(pruner.update([weight], Moment(1.0, 0.8))[0], pruner.masks([weight], 0.8)[0])


def test_rigl_keeps_its_sparsity_from_the_beginning_to_the_end():
    weights = [some((16, 8, 3, 3), 8, "a"), some((64, 32), 9, "b")]
    size = sum(w.weight.numel() for w in weights)
    pruner = RigL(0.9)
    masks = pruner.first_masks(weights, torch.Generator().manual_seed(0))
    assert sum(int(mask.sum()) for mask in masks) == pytest.approx(0.1 * size, abs=2)
    moved = [
        PrunableWeight(w.layer, w.weight * m, m, w.gradient)
        for w, m in zip(weights, masks, strict=True)
    ]
    for old, new in zip(masks, pruner.update(moved, Moment(0.2, 0.9)), strict=True):
        assert int(old.sum()) == int(new.sum())
        assert not torch.equal(old, new)


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64)), min_size=1, max_size=6),
    st.floats(0.01, 0.99),
)
@settings(deadline=None)
def test_densities_of_erdos_renyi_keep_the_whole(shapes, density):
    found = kernel_densities(shapes, density)
    sizes = [math.prod(shape) for shape in shapes]
    assert all(0 < each <= 1 + 1e-9 for each in found)
    whole = sum(d * s for d, s in zip(found, sizes, strict=True))
    assert whole == pytest.approx(density * sum(sizes))


def test_pruned_weights_are_drawn_to_zero_and_get_the_gradient_of_the_masked_network():
    weight = some((4, 8), 10, density=0.5)
    hidden = PrunableWeight("layer", torch.ones(4, 8), weight.mask, weight.gradient)
    found = SparseRefinement(pattern=TWO_OF_FOUR, decay=0.25).gradient(hidden)
    expected = torch.where(weight.mask, weight.gradient, weight.gradient + 0.25)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Magnitude(1.0), "above 0 and below 1, found 1.0"),
        (lambda: Magnitude(0), "above 0 and below 1, found 0"),
        (lambda: Magnitude(float("nan")), "above 0 and below 1"),
        (lambda: Magnitude(), "above 0 and below 1, found None"),
        (lambda: Magnitude(True), "above 0 and below 1, found True"),
        (lambda: Magnitude(0.9, pattern=TWO_OF_FOUR), "prunes exactly 0.5"),
        (lambda: Magnitude(0.5, scope="world"), "scope must be"),
        (lambda: Magnitude(pattern=TWO_OF_FOUR, scope="global"), "inputs of one group compete"),
        (lambda: Magnitude(0.5, pattern="2:4"), "must be NofM, Blocks or None"),
        (lambda: Magnitude(0.5, layers="conv"), "list of patterns"),
        (lambda: GraNet(0.5, regrowth=2), "regrowth must be from 0 to 1"),
        (lambda: GraNet(None, pattern=TWO_OF_FOUR, scope="layer"), "breaks the pattern 2:4"),
        (lambda: SparseRefinement(0.5, decay=-1), "decay must be 0 or more"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(PruningError, match=message):
        make()


class WrongShape(Pruner):
    def score(self, weight):
        return weight.weight.sum(dim=1)


class NotFinite(Pruner):
    def score(self, weight):
        return weight.weight / 0


class KeepsAll(Pruner):
    def masks(self, weights, sparsity):
        return [torch.ones_like(w.mask) for w in weights]


class Writes(Pruner):
    def score(self, weight):
        return weight.weight.abs_()


class Dice(Pruner):
    def score(self, weight):
        return torch.rand(weight.weight.shape)


class FloatMask(Pruner):
    def masks(self, weights, sparsity):
        return [m.float() for m in super().masks(weights, sparsity)]


class BreaksGroups(Pruner):
    def masks(self, weights, sparsity):
        masks = super().masks(weights, sparsity)
        masks[0][0, :3] = True
        masks[0][0, 3] = False
        return masks


class FeedsThePruned(Pruner):
    def gradient(self, weight):
        return weight.gradient


class Raises(Pruner):
    def score(self, weight):
        raise KeyError("no such layer")


@pytest.mark.parametrize(
    ("pruner", "law"),
    [
        (WrongShape(0.5), r"law of scores .*returned \[20\] for the weight"),
        (NotFinite(0.5), "law of scores .*NaN or infinite"),
        (KeepsAll(0.5), "law of sparsity .*0 of"),
        (Writes(0.5), "law of purity .*wrote into the weight"),
        (Dice(0.5), "law of repetition"),
        (FloatMask(0.5), "law of masks .*torch.float32"),
        (BreaksGroups(pattern=TWO_OF_FOUR), "law of masks .*keeps 3 weights, but 2:4 keeps 2"),
        (FeedsThePruned(0.5), "law of gradients .*keeps_hidden is False"),
        (Raises(0.5), "law of scores .*KeyError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_broken_pruner_is_told_which_law_it_breaks(pruner, law):
    with pytest.raises(PruningError, match=law):
        check_pruner(pruner)


def test_an_object_that_is_no_pruner_is_refused():
    with pytest.raises(PruningError, match="expected a Pruner object"):
        check_pruner(0.5)  # type: ignore[arg-type]
