import pytest
import torch
from tests.chip.pretraining.tiny import encoder
from tests.chip.training.learning import tiny_model
from torch import Tensor, nn

from photomask.chip.pretraining import Encoder, without_head
from photomask.errors import UsageError


def test_an_encoder_returns_what_the_last_layer_would_read():
    model, x = tiny_model(), torch.randn(3, 1, 8, 8)
    before = model(x)
    seen: list[Tensor] = []
    hook = model.head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))  # type: ignore[union-attr]
    for found in (without_head(model, example=x), without_head(model, head="head")):
        features = found(x)
        model(x)
        assert torch.equal(features, seen[-1])
        assert (found.features, found.classes, found.head) == (4, 3, "head")
    hook.remove()
    assert torch.equal(model(x), before)


def test_a_classifier_has_the_encoders_weights_and_a_new_head():
    found = encoder()
    model = found.classifier(5, seed=1)
    x = torch.randn(3, 1, 8, 8)
    assert type(model).__name__ == "Tiny"
    assert model(x).shape == (3, 5)
    assert torch.equal(model(x), model.head(found.eval()(x)))  # type: ignore[operator]
    state = torch.random.get_rng_state()
    again = found.classifier(5, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(model.head.weight, again.head.weight)  # type: ignore[union-attr]
    assert not torch.equal(model.head.weight, found.classifier(5).head.weight)  # type: ignore[union-attr]
    with torch.no_grad():
        model.head.weight.zero_()  # type: ignore[union-attr]
        model.stem[0].weight.zero_()  # type: ignore[index]
    assert bool(found.state_dict()["body.stem.0.weight"].any())


def test_a_head_inside_a_sequence_is_left_out_too():
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)))
    x = torch.randn(3, 1, 2, 2)
    found = without_head(model, example=x)
    assert found.head == "1.2"
    assert torch.equal(found(x), model[1][1](model[1][0](x.flatten(1))))  # type: ignore[index]


def test_what_is_no_last_linear_layer_is_refused():
    model, x = tiny_model(), torch.randn(2, 1, 8, 8)
    with pytest.raises(UsageError, match="either an example"):
        without_head(model)
    with pytest.raises(UsageError, match=r"'tail' is no module.* linear layers are head"):
        without_head(model, head="tail")
    with pytest.raises(UsageError, match=r"'stem\.0' is a Conv2d"):
        without_head(model, head="stem.0")
    with pytest.raises(UsageError, match=r"no\s+nn.Linear module"):
        without_head(nn.Sequential(model, nn.ReLU()), example=x)
    with pytest.raises(UsageError, match="two classes or more"):
        Encoder(model, "head").classifier(1)
