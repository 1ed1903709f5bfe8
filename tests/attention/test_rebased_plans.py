"""A plan for other weights of the same architecture: merged, adapted and quantized ones."""

import copy
import warnings
from typing import Any

import pytest
import torch
from tests.attention.tiny_models import tiny_inputs, tiny_model
from torch import Tensor, nn

from photomask.attention import HeadPlan, Pattern, convert, layout_of
from photomask.attention.identity import identify
from photomask.attention.patterns import DenseRule, visible
from photomask.attention.plugin import text_attention_layers
from photomask.errors import PlanError


def plan_of(model: Any) -> HeadPlan:
    return HeadPlan.uniform(model, Pattern.INTRA_IMAGE)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(**tiny_inputs("internvl", [[3, "image", 2, "image", 4]])).logits


@torch.no_grad()
def literal_logits(model: Any) -> Tensor:
    """Returns the logits of a model under the mask of the plan, written out."""
    inputs = tiny_inputs("internvl", [[3, "image", 2, "image", 4]])
    layout = layout_of(model.config, **inputs)
    plan = plan_of(model)
    mask = visible(layout, Pattern.INTRA_IMAGE, plan.sinks, DenseRule())[:, None]
    return model(**{**inputs, "attention_mask": mask}).logits


def assert_rebased_plan_runs(model: Any) -> None:
    """Checks that the plan of the plain model is refused, and that its rebased plan is kept."""
    plan = plan_of(tiny_model("internvl"))
    with pytest.raises(PlanError, match=r"plan\.rebase\(model\)"):
        convert(model, plan)
    rebased = plan.rebase(model)
    assert rebased.model == identify(model)
    assert rebased.decided_for == plan.model
    found = logits(convert(model, rebased))
    torch.testing.assert_close(found, literal_logits(model), atol=1e-4, rtol=1e-4)
    assert (found - logits(model)).abs().max() > 0.01


def adapter(layer: nn.Linear, seed: int) -> Tensor:
    """Returns what an adapter of rank 2 adds to a weight."""
    random = torch.Generator().manual_seed(seed)
    down = torch.randn(2, layer.in_features, generator=random)
    return torch.randn(layer.out_features, 2, generator=random) @ down / layer.in_features


def test_a_merged_adapter_keeps_the_plan():
    model = copy.deepcopy(tiny_model("internvl"))
    for number, layer in enumerate(text_attention_layers(model)):
        projection: Any = layer.q_proj
        projection.weight.data += adapter(projection, number)
    assert_rebased_plan_runs(model)


class WithAdapter(nn.Module):
    """A linear layer with an adapter beside it, as adapter packages put it into a model."""

    def __init__(self, base: nn.Linear, seed: int):
        super().__init__()
        self.base_layer = base
        self.added = nn.Parameter(adapter(base, seed))

    def forward(self, inputs: Tensor) -> Tensor:
        """Adds what the adapter computes."""
        return self.base_layer(inputs) + nn.functional.linear(inputs, self.added)


def test_an_adapter_inside_the_model_keeps_the_plan():
    model = copy.deepcopy(tiny_model("internvl"))
    for number, layer in enumerate(text_attention_layers(model)):
        inner: Any = layer
        inner.q_proj = WithAdapter(inner.q_proj, number)
    assert_rebased_plan_runs(model)


def test_weights_that_torchao_quantized_keep_the_plan():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization = pytest.importorskip("torchao.quantization")
        model = copy.deepcopy(tiny_model("internvl"))
        way = quantization.Int8WeightOnlyConfig()
        quantization.quantize_(model.model.language_model, way)
        weight = model.model.language_model.layers[0].self_attn.q_proj.weight
        assert type(weight) not in (Tensor, nn.Parameter)
        assert_rebased_plan_runs(model)
        assert identify(copy.deepcopy(model)) == identify(model)


def test_packed_codes_of_another_shape_are_other_weights_of_the_same_model():
    """Some packages store two codes of 4 bits in a byte, under the name of the weight."""
    model = copy.deepcopy(tiny_model("internvl"))
    layer: Any = text_attention_layers(model)[0]
    packed = torch.arange(layer.q_proj.weight.numel() // 2, dtype=torch.uint8)[:, None]
    layer.q_proj.weight = nn.Parameter(packed, requires_grad=False)
    plan = plan_of(tiny_model("internvl")).rebase(model)
    plan.check(model)
    layer.q_proj.weight.data += 1
    with pytest.raises(PlanError, match="other weights"):
        plan.check(model)


def test_a_model_of_another_family_is_refused_with_the_differences():
    plan = plan_of(tiny_model("internvl"))
    with pytest.raises(PlanError, match="model_type: internvl, qwen2_5_vl; hidden_size: 32, 64"):
        plan.rebase(tiny_model("qwen2_5_vl"))
