import pytest
import torch
from torch import nn

from photomask.chip import calibrate, convert, prepare, verify
from photomask.chip.equalization import equalize
from photomask.chip.operators import Convolution, Linear
from photomask.chip.operators.weights import effective_weight
from photomask.chip.pruning import (
    Blocks,
    GraNet,
    Magnitude,
    NofM,
    Pruner,
    Snip,
    Wanda,
    prune,
)
from photomask.chip.quantizers import Binary, PerChannel, Quantizer
from photomask.chip.recipe import Recipe
from photomask.chip.reconstruction import ReconstructionSettings, reconstruct
from photomask.chip.training import fold_batch_norms, keep_batch_norms
from photomask.chip.weight_rounding import compensate_rounding
from photomask.errors import DataError, OrderError, PruningError, RecipeError, UsageError

TWO_OF_FOUR = NofM(kept=2, group=4)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, groups=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.grouped(torch.relu(self.depthwise(x)) + x))
        return self.head(x.mean(dim=(2, 3)))


def net() -> nn.Module:
    torch.manual_seed(0)
    model = Net().eval()
    model.norm.running_var.uniform_(0.5, 2)
    return model


def images(count=16):
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def labels(count=16):
    return torch.arange(count) % 5


def weights_of(program):
    return {
        step.node: effective_weight(program.parameters(step))
        for step in program.steps
        if isinstance(step.operator, (Convolution, Linear))
    }


def zeros_hold(prepared, program):
    """Compares the masks with the integers; returns the names of the pruned layers."""
    integers, names = weights_of(program), []
    for node, mask in prepared.pruned_layers():
        pruned = ~mask.numpy()
        assert pruned.any()
        assert not integers[node.name][pruned].any()
        names.append(node.name)
    return names


@pytest.mark.parametrize("recipe", ["w8a8", "w4a8"])
@pytest.mark.parametrize(
    "pruner",
    [
        Magnitude(0.7),
        Magnitude(0.5, scope="global"),
        Magnitude(pattern=TWO_OF_FOUR),
        Magnitude(0.5, pattern=Blocks(outputs=4, inputs=2)),
    ],
    ids=repr,
)
def test_pruned_weights_are_zero_in_the_integers(pruner, recipe):
    prepared = prepare(net(), recipe, images(1))
    report = prune(prepared, pruner)
    calibrate(prepared, images())
    names = zeros_hold(prepared, convert(prepared, "asic"))
    assert "depthwise" not in names
    assert {"grouped", "head"} <= set(names)
    reasons = {row.layer: row.reason for row in report.layers if not row.pruned}
    assert reasons["depthwise"] == "each of its outputs reads one input channel"


def test_every_group_of_the_integers_keeps_the_pattern():
    prepared = prepare(net(), "w8a8", images(1))
    prune(prepared, Magnitude(pattern=TWO_OF_FOUR))
    calibrate(prepared, images())
    for name, weight in weights_of(convert(prepared, "asic")).items():
        if name in ("grouped", "head"):
            outputs, inputs, *kernel = weight.shape
            groups = weight.reshape(outputs, inputs // 4, 4, *kernel)
            assert ((groups != 0).sum(axis=2) <= 2).all()


def test_a_mask_survives_equalization_reconstruction_and_error_compensation():
    for change in (
        lambda p: compensate_rounding(p, images()),
        lambda p: reconstruct(p, images(), settings=ReconstructionSettings(iterations=30)),
    ):
        prepared = prepare(net(), "w4a8", images(1))
        prune(prepared, Magnitude(0.6))
        equalize(prepared)
        calibrate(prepared, images())
        change(prepared)
        assert len(zeros_hold(prepared, convert(prepared, "asic"))) == 3


def test_error_compensation_moves_no_weight_into_a_pruned_place_and_helps():
    prepared = prepare(net(), "w4a8", images(1))
    prune(prepared, Magnitude(0.6))
    calibrate(prepared, images())
    report = compensate_rounding(prepared, images())
    assert all(layer.compensated <= layer.nearest for layer in report.layers)
    assert any(layer.compensated < layer.nearest for layer in report.layers)


def test_weights_written_by_hand_stay_pruned():
    prepared = prepare(net(), "w8a8", images(1))
    prune(prepared, Magnitude(0.6))
    prepared.set_constant("head", "weight", torch.ones(5, 16))
    (mask,) = [mask for node, mask in prepared.pruned_layers() if node.name == "head"]
    weight = prepared.constants_of(prepared.graph.by_name["head"])["weight"]
    assert torch.equal(weight, mask.float())


def test_pruning_again_keeps_what_is_pruned():
    prepared = prepare(net(), "w8a8", images(1))
    prune(prepared, Magnitude(0.5))
    first = {node.name: mask.clone() for node, mask in prepared.pruned_layers()}
    prune(prepared, Magnitude(0.8))
    for node, mask in prepared.pruned_layers():
        assert not bool((mask & ~first[node.name]).any())


def test_wanda_measures_the_inputs_of_convolutions_with_groups():
    prepared, seen = prepare(net(), "w8a8", images(1)), {}

    class Spy(Wanda):
        def score(self, weight):
            if weight.layer in ("grouped", "head"):
                seen[weight.layer] = weight.input_norms
            return super().score(weight)

    prune(prepared, Spy(0.5), images())
    model = net()
    entering = {}
    model.grouped.register_forward_pre_hook(lambda _, x: entering.update(grouped=x[0]))
    model.head.register_forward_pre_hook(lambda _, x: entering.update(head=x[0]))
    model(images())
    for name, axes in (("grouped", (0, 2, 3)), ("head", (0,))):
        norms = entering[name].double().square().sum(dim=axes).sqrt().float()
        found = seen[name].expand(prepared.parameter_of(prepared.graph.by_name[name]).shape)
        for output in range(len(found)):
            part = norms
            if name == "grouped":
                part = norms[4 * (output // 8) : 4 * (output // 8) + 4, None, None].expand(4, 3, 3)
            torch.testing.assert_close(found[output], part, rtol=1e-4, atol=1e-4)


def test_snip_gets_the_gradient_of_the_loss():
    prepared, seen = prepare(net(), "w8a8", images(1)), {}

    class Spy(Snip):
        def score(self, weight):
            if weight.gradient.shape == (5, 16):
                seen["head"] = weight.gradient
            return super().score(weight)

    prune(prepared, Spy(0.5), (images(), labels()))
    model = net()
    nn.functional.cross_entropy(model(images()), labels()).backward()
    torch.testing.assert_close(seen["head"], model.head.weight.grad, rtol=1e-4, atol=1e-6)


def test_verification_proves_the_zeros_and_finds_one_that_came_back():
    prepared = prepare(net(), "w8a8", images(1))
    prune(prepared, Magnitude(pattern=TWO_OF_FOUR))
    calibrate(prepared, images())
    program = convert(prepared, "asic")
    report = verify(net(), program, images(4), prepared=prepared)
    rows = {row.node: row for row in report.sparsity}
    assert str(rows["grouped"].pattern) == "2:4"
    assert rows["grouped"].pruned == 16 * 4 * 9 // 2
    assert rows["depthwise"].pruned is None
    name = "pruned weights that are not zero in the program"
    assert {check.name: check.passed for check in report.checks}[name]
    (step,) = [s for s in program.steps if s.node == "head" and isinstance(s.operator, Linear)]
    node = prepared.graph.by_name["head"]
    damaged = program.tensors[step.tensors["weight"]].copy()
    damaged[tuple((~prepared.mask_of(node)).nonzero()[0].tolist())] = 3
    program.tensors[step.tensors["weight"]] = damaged
    report = verify(net(), program, images(4), prepared=prepared)
    assert not {check.name: check.passed for check in report.checks}[name]
    assert [row.node for row in report.sparsity if row.not_zero] == ["head"]


def test_the_report_shows_zeros_without_a_prepared_model():
    prepared = prepare(net(), "w8a8", images(1))
    prune(prepared, Magnitude(pattern=TWO_OF_FOUR))
    calibrate(prepared, images())
    report = verify(net(), convert(prepared, "asic"), images(4))
    assert "Sparsity" in str(report)


@pytest.mark.parametrize(
    ("pruner", "error", "message"),
    [
        (
            Magnitude(pattern=TWO_OF_FOUR, layers=["stem"]),
            PruningError,
            "'stem'.*sums 3 input channels.*2:4",
        ),
        (
            Magnitude(0.5, layers=["depthwise"]),
            PruningError,
            "'depthwise'.*reads one input channel",
        ),
        (Magnitude(0.5, layers=["heads"]), RecipeError, "'heads' matches nothing.*head"),
        (Magnitude(pattern=NofM(kept=1, group=32)), PruningError, "no layer can be pruned"),
        (Wanda(0.5), UsageError, r"give data: prune\(prepared, pruner, data\)"),
        (GraNet(0.5), UsageError, "prunes during a training"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_a_pruning_that_cannot_be_is_refused(pruner, error, message):
    prepared = prepare(net(), "w8a8", images(1))
    with pytest.raises(error, match=message):
        prune(prepared, pruner)
    assert not prepared.pruned_layers()


def test_gradients_need_labels_and_samples():
    prepared = prepare(net(), "w8a8", images(1))
    with pytest.raises(UsageError, match="needs labels"):
        prune(prepared, Snip(0.5), images())
    with pytest.raises(DataError, match="5 classes"):
        prune(prepared, Snip(0.5), (images(), labels() + 5))
    with pytest.raises(DataError, match="NaN"):
        prune(prepared, Wanda(0.5), images() * float("nan"))


def test_a_layer_that_would_lose_every_weight_is_named():
    class Favourite(Pruner):
        def masks(self, weights, sparsity):
            masks = super().masks(weights, sparsity)
            return [m & (w.layer != "head") for w, m in zip(weights, masks, strict=True)]

    prepared = prepare(net(), "w8a8", images(1))
    with pytest.raises(PruningError, match=r"all 80 weights of 'head'.*cuts the network"):
        prune(prepared, Favourite(0.5))
    assert not prepared.pruned_layers()


def test_rounded_weights_are_not_pruned():
    prepared = prepare(net(), "w4a8", images(1))
    calibrate(prepared, images())
    compensate_rounding(prepared, images())
    with pytest.raises(OrderError, match="rounded"):
        prune(prepared, Magnitude(0.5))


def test_a_quantizer_without_a_code_for_zero_cannot_hold_pruned_weights():
    recipe = Recipe(weight=Binary(granularity=PerChannel()), activation=Quantizer(8))
    prepared = prepare(net(), recipe, images(1))
    prune(prepared, Magnitude(0.5, layers=["head"]))
    calibrate(prepared, images())
    with pytest.raises(PruningError, match=r"40 pruned weights of 'head'.*Binary has no code"):
        convert(prepared, "asic")


def test_a_shared_weight_is_pruned_once_for_all_its_layers():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return self.layer(torch.relu(self.layer(x)))

    x = torch.randn(8, 8)
    prepared = prepare(Twice().eval(), "w8a8", x[:1])
    prune(prepared, Magnitude(0.5))
    calibrate(prepared, x)
    program = convert(prepared, "asic")
    (pair,) = prepared.pruned_layers()
    mask = pair[1].numpy()
    found = [
        effective_weight(program.parameters(step))
        for step in program.steps
        if isinstance(step.operator, Linear)
    ]
    assert len(found) == 2
    assert all(not weight[~mask].any() for weight in found)


def largest_half(weights):
    sizes = torch.cat([w.abs().flatten() for w in weights])
    least = sizes.sort(descending=True).values[sizes.numel() // 2 - 1]
    return [w.abs() >= least for w in weights]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_magnitudes_are_those_of_the_model_whatever_norm_was_folded_in(kept, scope):
    model = net()
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([-8.0, 4, 2, 1, 0.5, 0.25, 0.125, 0.01]))
    prepared = prepare(model, "w8a8", images())
    if kept:
        keep_batch_norms(prepared, model, images())
    prune(prepared, Magnitude(0.5, scope=scope, layers=["stem", "grouped"]))
    weights = [model.stem.weight.detach(), model.grouped.weight.detach()]
    each = [largest_half([w])[0] for w in weights]
    expected = each if scope == "layer" else largest_half(weights)
    for (node, mask), wanted in zip(prepared.pruned_layers(), expected, strict=True):
        assert torch.equal(mask, wanted), node.name


def test_a_channel_that_a_norm_turned_off_is_pruned_first():
    model = net()
    with torch.no_grad():
        model.norm.weight[3] = 0
    prepared = prepare(model, "w8a8", images())
    prune(prepared, Magnitude(0.2, layers=["stem"]))
    ((_, mask),) = prepared.pruned_layers()
    assert not mask[3].any()


def test_magnitudes_after_a_training_are_those_without_the_trained_norm():
    model = net()
    prepared = calibrate(prepare(model, "w8a8", images()), images())
    keep_batch_norms(prepared, model, images())
    norm = prepared.batch_norms["stem"]
    with torch.no_grad():
        norm.gain.copy_(torch.tensor([-8.0, 4, 2, 1, 0.5, 0.25, 0.125, 0.01]))
    fold_batch_norms(prepared)
    prune(prepared, Magnitude(0.5, layers=["stem"]))
    ((_, mask),) = prepared.pruned_layers()
    assert torch.equal(mask, largest_half([model.stem.weight.detach()])[0])
