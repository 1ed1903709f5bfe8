"""Removing channels equals zeroing the weights that read them, whatever couples the channels."""

import copy

import pytest
import torch
from tests.chip.channel_pruning import networks
from tests.chip.channel_pruning.zeroing import assert_equals_zeroing, randomized
from torch import Tensor, nn

from photomask.chip.channel_pruning import (
    BatchNormGain,
    Importance,
    Magnitude,
    Taylor,
    plan_channels,
    remove_channels,
)
from photomask.errors import CaptureError, DataError, UsageError
from photomask.zoo.models import MobileNetV1, ResNet, VisionTransformer
from photomask.zoo.models.mobilenet_v2 import InvertedResidual


def inverted_residuals() -> nn.Module:
    """Returns some blocks of MobileNetV2 with a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        InvertedResidual(8, 8, 1, 1),
        InvertedResidual(8, 12, 2, 4),
        InvertedResidual(12, 12, 1, 4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (ResNet(1, width=8), (2, 1, 12, 12)),
        (MobileNetV1(width_multiplier=0.25), (2, 1, 28, 28)),
        (inverted_residuals(), (2, 3, 16, 16)),
        (VisionTransformer(width=16, depth=2, hidden=48), (2, 1, 28, 28)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_removing_equals_zeroing_in_networks_of_the_zoo(model: nn.Module, shape: tuple[int, ...]):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.4
    smaller = remove_channels(randomized(model), x, 0.5)
    assert_equals_zeroing(model, smaller, x)
    assert count(smaller) < 0.65 * count(model)


@pytest.mark.parametrize("network", networks.IMAGE_NETWORKS, ids=lambda kind: kind.__name__)
def test_removing_equals_zeroing_however_channels_are_coupled(network: type[nn.Module]):
    model = randomized(network())
    smaller = remove_channels(model, networks.IMAGES, 0.5)
    if network is not networks.Functional:  # whose matrix has its columns at axis 0
        assert_equals_zeroing(model, smaller, networks.IMAGES)
    assert count(smaller) < 0.6 * count(model)


def test_a_matrix_that_is_multiplied_from_the_right_loses_rows_with_whole_feature_maps():
    model = randomized(networks.Functional())
    smaller = remove_channels(model, networks.IMAGES, 0.5)
    kept = torch.isin(model.kernel, smaller.kernel).flatten(1).all(1)
    other = copy.deepcopy(model).double()
    with torch.no_grad():
        other.inner.mul_(kept.reshape(1, -1, 1, 1))
        other.matrix.mul_(kept.repeat_interleave(16).reshape(-1, 1))
        units = torch.isin(model.head.weight, smaller.head.weight).any(0)
        other.head.weight.mul_(units)
        x = networks.IMAGES.double()
        torch.testing.assert_close(smaller.double()(x), other(x), rtol=1e-10, atol=1e-11)


def test_tied_weights_stay_tied_and_shared_layers_stay_shared():
    model = randomized(networks.Shared())
    smaller = remove_channels(model, networks.IMAGES, 0.5)
    assert smaller.first.weight is smaller.second.weight
    assert smaller.first.weight.shape == (4, 4)
    assert smaller.again.weight.shape == (4, 4, 3, 3)
    assert smaller.norm.num_features == 4


def test_heads_leave_whole_with_the_queries_that_share_their_keys():
    model = randomized(networks.GroupedQueries())
    plan = plan_channels(model, networks.TOKENS, 0.5)
    smaller = remove_channels(model, networks.TOKENS, plan)
    assert len(plan.removed["query"]) == 16
    assert plan.removed["key"] == plan.removed["value"]
    heads = {channel // 4 for channel in plan.removed["key"]}
    assert len(heads) == 2
    assert {channel // 8 for channel in plan.removed["query"]} == heads
    assert_equals_zeroing(model, smaller, networks.TOKENS)


def test_a_grouped_convolution_keeps_equal_groups_and_a_depthwise_one_loses_groups():
    smaller = remove_channels(randomized(networks.Grouped()), networks.IMAGES, 0.5)
    assert (smaller.grouped.groups, smaller.grouped.in_channels) == (3, 6)
    assert (smaller.depthwise.groups, smaller.depthwise.out_channels) == (3, 6)


def test_channels_that_code_with_fixed_sizes_handles_stay_and_the_plan_names_the_line():
    model = randomized(networks.FixedSizes())
    plan = plan_channels(model, networks.TOKENS, 0.5)
    assert set(plan.removed) == {"output", "up"}
    (reason,) = {stays.reason for stays in plan.staying if stays.layer == "query"}
    assert "networks.py:" in reason
    assert "shape '[-1, 5, 3, 4]' is invalid" in reason
    assert_equals_zeroing(model, remove_channels(model, networks.TOKENS, plan), networks.TOKENS)


def test_channels_that_code_outside_the_graph_reads_stay():
    plan = plan_channels(randomized(networks.Unused()), networks.IMAGES, 0.5)
    assert set(plan.removed) == {"first"}
    (reason,) = {stays.reason for stays in plan.staying if stays.layer == "second"}
    assert "the model's code fails without it" in reason


def test_channels_whose_number_changes_a_scale_stay():
    plan = plan_channels(randomized(networks.OneHead()), networks.TOKENS, 0.5)
    assert set(plan.removed) == {"value"}
    (reason,) = {stays.reason for stays in plan.staying if stays.layer == "key"}
    assert "computes other numbers" in reason


def test_the_model_is_not_changed_and_its_mode_is_kept():
    model = randomized(networks.Dense()).train()
    model.stem.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    smaller = remove_channels(model, networks.IMAGES, 0.5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert smaller.training
    assert not smaller.stem.weight.requires_grad
    assert smaller.head.weight.requires_grad
    smaller(networks.IMAGES).sum().backward()


def test_a_channel_that_must_stay_is_refused_with_its_layer_and_the_law():
    model = randomized(networks.GroupedQueries())
    with pytest.raises(UsageError, match=r"channel 3 of 'output' must stay: 'add' .*needs it"):
        remove_channels(model, networks.TOKENS, {"output": [3]})
    with pytest.raises(UsageError, match="no output channel 99"):
        remove_channels(model, networks.TOKENS, {"up": [99]})
    with pytest.raises(UsageError, match="no layer 'upp'"):
        remove_channels(model, networks.TOKENS, {"upp": [1]})
    with pytest.raises(UsageError, match="all channels of gate, up would leave"):
        remove_channels(model, networks.TOKENS, {"up": range(10)})


def test_chosen_channels_that_fixed_code_handles_are_an_error_that_names_the_line():
    model = randomized(networks.FixedSizes())
    with pytest.raises(CaptureError, match=r"key.*shape '\[-1, 5, 3, 4\]'.*networks\.py:"):
        remove_channels(model, networks.TOKENS, {"query": [0, 1, 2, 3]})


def test_a_chosen_channel_takes_everything_that_is_added_to_it():
    model = randomized(ResNet(1, width=8))
    x = torch.rand(2, 1, 12, 12)
    smaller = remove_channels(model, x, {"blocks.0.convolution2": [2, 5]})
    assert smaller.stem.out_channels == smaller.blocks[0].convolution2.out_channels == 6
    kept = [0, 1, 3, 4, 6, 7]
    assert torch.equal(smaller.stem.weight, model.stem.weight[kept])
    assert torch.equal(smaller.norm.running_var, model.norm.running_var[kept])
    assert_equals_zeroing(model, smaller, x)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_refused(share: float):
    with pytest.raises(UsageError, match="share"):
        plan_channels(networks.Dense(), networks.IMAGES, share)


def test_channels_in_multiples_for_an_array():
    plan = plan_channels(randomized(networks.Dense()), networks.IMAGES, 0.6, multiple_of=4)
    assert {name: size.channels for name, size in plan.after.items()} == {
        "stem": 4,
        "layers.0": 4,
        "layers.1": 4,
        "layers.2": 4,
        "head": 5,
    }
    with pytest.raises(UsageError, match="multiple_of"):
        plan_channels(networks.Dense(), networks.IMAGES, 0.5, multiple_of=0)


def test_one_channel_of_each_group_stays_whatever_the_share():
    plan = plan_channels(randomized(networks.Dense()), networks.IMAGES, 0.999, across_layers=True)
    assert [size.channels for size in plan.after.values()] == [1, 1, 1, 1, 5]


def test_magnitude_removes_the_channels_with_the_smallest_weights():
    model = randomized(networks.Gated())
    with torch.no_grad():
        for weight in (model.squeeze.weight[1], model.squeeze.bias[1:2], model.excite.weight[:, 1]):
            weight.mul_(0.01)
    plan = plan_channels(model, networks.IMAGES, 0.25, importance=Magnitude())
    assert plan.removed["squeeze"] == (1,)


def test_gains_of_batch_norms_rank_channels_across_layers():
    model = randomized(MobileNetV1(width_multiplier=0.25))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1.0)
        small = [(0, 1), (4, 0), (4, 7)]
        for place, channel in small:
            for norm in (model.features[place][1], model.features[place + 1][1]):
                norm.weight[channel] = 1e-3
    total = 8 + sum(model.features[i][0].out_channels for i in range(2, 27, 2))
    x = torch.rand(1, 1, 28, 28)
    plan = plan_channels(model, x, (3.5) / total, importance=BatchNormGain(), across_layers=True)
    removed = {layer: channels for layer, channels in plan.removed.items()}
    assert removed["features.0.0"] == (1,)
    assert removed["features.4.0"] == (0, 7)
    assert set(removed) == {"features.0.0", "features.1.0", "features.4.0", "features.5.0"}


def test_gains_are_refused_where_no_batch_norm_is():
    with pytest.raises(UsageError, match="no batch norm scales the output channels of"):
        plan_channels(networks.Gated(), networks.IMAGES, 0.5, importance=BatchNormGain())


def test_taylor_scores_are_squared_sums_of_gradient_times_weight():
    model = randomized(networks.Dense())
    x, labels = networks.IMAGES, torch.tensor([1, 4])
    taylor = Taylor([(x, labels), (x.flip(3), labels)])
    found: dict[tuple[str, ...], Tensor] = {}

    class Kept(Importance):
        def scores(self, model: nn.Module, groups):
            scores = taylor.scores(model, groups)
            found.update({group.layers: s for group, s in zip(groups, scores, strict=True)})
            return scores

    plan_channels(model, x, 0.5, importance=Kept())
    expected = torch.zeros(4, dtype=torch.float64)
    wide = copy.deepcopy(model).double()
    for images in (x, x.flip(3)):
        wide.zero_grad()
        nn.functional.cross_entropy(wide(images.double()), labels).backward()
        changes = (wide.layers[2].weight * wide.layers[2].weight.grad).sum((1, 2, 3))
        changes += (wide.head.weight * wide.head.weight.grad).sum(0)[14:]
        expected += changes.detach().square() / 2
    torch.testing.assert_close(found[("layers.2",)], expected, rtol=1e-3, atol=1e-9)
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(DataError, match="no batches"):
        plan_channels(model, x, 0.5, importance=Taylor([]))


def test_scores_of_another_number_or_not_finite_are_refused():
    class Wrong(Importance):
        def score(self, group):
            return torch.full((len(group),), torch.nan)

    with pytest.raises(UsageError, match="Wrong must give 6 finite scores for stem"):
        plan_channels(networks.Dense(), networks.IMAGES, 0.5, importance=Wrong())


def test_a_tied_table_loses_the_columns_that_its_classifier_reads():
    model = randomized(networks.Tied())
    tokens = torch.tensor([[1, 4, 9], [0, 10, 3]])
    plan = plan_channels(model, tokens, 0.5)
    assert plan.removed["block.down"] == plan.removed["table[1]"]
    assert len(plan.removed["block.up"]) == 5
    smaller = remove_channels(model, tokens, plan)
    assert smaller.table.embedding_dim == 4
    kept = [c for c in range(8) if c not in plan.removed["block.down"]]
    units = [c for c in range(10) if c not in plan.removed["block.up"]]
    other = copy.deepcopy(model).double()
    with torch.no_grad():
        x = other.table(tokens)[..., kept]
        block = nn.functional.silu(x @ other.block.up[units][:, kept].T)
        x = x + block @ other.block.down[kept][:, units].T
        expected = x @ other.table.weight[:, kept].T
        torch.testing.assert_close(smaller.double()(tokens), expected, rtol=1e-12, atol=1e-12)


def test_the_plan_counts_what_the_smaller_model_has():
    model = randomized(networks.GroupedQueries())
    plan = plan_channels(model, networks.TOKENS, 0.5)
    smaller = remove_channels(model, networks.TOKENS, plan)
    assert plan.parameters == (count(model), count(smaller))
    for name, module in smaller.named_modules():
        if isinstance(module, nn.Linear):
            size = plan.after[name]
            assert size.channels == module.out_features
            assert size.products == 5 * module.weight.numel()
    assert plan.after["matmul"].products == plan.before["matmul"].products // 2
    assert "stay: output (12)" in str(plan).replace("down (12), ", "")
