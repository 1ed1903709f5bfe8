"""Training of limited weights starts from a projection, and works with masks."""

import torch
from tests.chip.limited_models import images, narrow, prepared_small, small_recipe, worst_sums
from tests.chip.training.learning import task, tiny_model

from photomask.chip import calibrate, convert, prepare
from photomask.chip.calibration import fit_biases
from photomask.chip.pruning import Magnitude, NofM, prune
from photomask.chip.quantizers import A2Q, A2QPlus
from photomask.chip.sum_limits import limited_quantizers, project_onto_l1_ball
from photomask.chip.training import (
    TensorData,
    TrainingSettings,
    keep_batch_norms,
    project_weights,
    train,
)

SHORT = TrainingSettings(epochs=1, batch_size=16, learning_rate=0.05, quantizer_learning_rate=0.01)


def test_a_weight_that_exceeds_becomes_the_nearest_one_of_its_ball():
    prepared = prepared_small(A2Q(4), narrow(10))
    before = {layer.node.name: layer.weight.detach().clone() for layer in prepared.layers()}
    project_weights(prepared)
    moved = 0
    for quantizer, (layer,) in limited_quantizers(prepared):
        rows, radius = before[layer.node.name].flatten(1), quantizer.limit * quantizer.scale
        expected = project_onto_l1_ball(rows, radius.detach()).reshape(layer.weight.shape)
        torch.testing.assert_close(layer.weight.detach(), expected)
        moved += int((rows.abs().sum(dim=1) > radius).sum())
        norm = quantizer.reference_norm
        torch.testing.assert_close(norm, layer.weight.detach().abs().flatten(1).sum(dim=1))
    assert moved


def test_elements_that_the_projection_made_zero_still_learn():
    prepared = prepared_small(A2QPlus(4), narrow(9))
    project_weights(prepared)
    prepared.train()(images(4))[0].square().sum().backward()
    found = 0
    for _, (layer,) in limited_quantizers(prepared):
        parameter = prepared.parameter_of(layer.node)
        zero = parameter == 0
        found += int(zero.sum())
        assert parameter.grad is not None
        # Channels whose output is 0 for every sample have no gradient at all.
        alive = parameter.grad.flatten(1).any(dim=1)
        assert bool(parameter.grad[alive][zero[alive]].any()) or not bool(zero[alive].any())
    assert found


def test_pruned_weights_stay_zero_and_the_rest_fits():
    target = narrow(11)
    example, classes = task()
    prepared = prepare(tiny_model(), small_recipe(A2QPlus(4)), example[:1], target=target)
    prune(prepared, Magnitude(pattern=NofM(kept=2, group=4)), example)
    calibrate(prepared, example)
    keep_batch_norms(prepared, tiny_model(), example[:1])
    train(prepared, TensorData(example, classes), SHORT)
    program = convert(prepared, target)
    pruned = prepared.pruned_layers()
    assert pruned
    for node, mask in pruned:
        codes = torch.from_numpy(program.tensors[f"{node.name}.weight"])
        assert not codes[~mask].any()
        assert codes[mask].any()
    for low, high in worst_sums(program).values():
        assert low >= -(1 << 10)
        assert high < 1 << 10


def test_a_loop_of_the_users_own_needs_only_fit_biases():
    target = narrow(11)
    prepared = prepared_small(A2Q(4), target)
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.1, momentum=0.9)
    prepared.train()
    for _ in range(5):
        loss = (prepared(images())[0] - 3).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prepared.eval()
    fit_biases(prepared)
    convert(prepared, target)
