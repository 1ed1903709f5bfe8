"""The graph knows which elements of the model's tensors its constants are."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photomask.chip.graph import FloatGraph, capture
from photomask.chip.graph.model_tensors import ModelView, views_of


def view_of(part: Tensor, whole: Tensor) -> ModelView:
    (found,) = views_of({"constant": [part]}, {"weight": whole})["constant"] or ()
    assert found.tensor == "weight"
    return found


def assert_elements(part: Tensor, whole: Tensor) -> None:
    found = view_of(part, whole).elements()
    assert torch.equal(whole.reshape(-1)[found], part)


def test_elements_of_views_are_found_in_tensors_of_any_memory_order():
    for whole in (
        torch.randn(4, 3, 2, 5),
        torch.randn(4, 3, 2, 5).contiguous(memory_format=torch.channels_last),
    ):
        for part in (whole, whole.permute(2, 0, 3, 1), whole[1:3, :, 1], whole[:, 2:, :, ::2]):
            assert_elements(part, whole)


def test_an_axis_of_a_constant_is_an_axis_of_the_tensor_or_none_of_its():
    whole = torch.randn(6, 4, 3)
    axis, places = view_of(whole.permute(1, 0, 2)[:, 2:5], whole).line(1) or (None, None)
    assert axis == 0
    assert places is not None
    assert places.tolist() == [2, 3, 4]
    assert view_of(whole.reshape(24, 3), whole).line(0) is None


def test_a_tensor_in_other_memory_belongs_to_no_tensor_of_the_model():
    whole = torch.randn(4, 4)
    found = views_of({"copied": [whole * 2], "made": [], "given": [whole]}, {"weight": whole})
    assert found["copied"] is None
    assert found["made"] == ()
    assert len(found["given"] or ()) == 1


class Mixed(nn.Module):
    """A layer without a bias, a batch norm, a computed weight, and a weight in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 5, bias=False)
        self.norm = nn.BatchNorm1d(5)
        self.matrix = nn.Parameter(torch.randn(6, 5))
        self.other = torch.randn(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(self.norm(self.layer(x)), self.matrix / self.matrix.norm())
        return F.linear(x, self.other)


def made_of(graph: FloatGraph, name: str, role: str) -> list[str] | None:
    found = graph.made_of[graph.by_name[name].constants[role]]
    return None if found is None else [view.tensor for view in found]


def test_constants_of_captured_models_name_what_they_were_made_of():
    graph = capture(Mixed().eval(), torch.randn(2, 4))
    parts = ["norm.weight", "norm.running_var", "norm.running_mean", "norm.bias"]
    assert made_of(graph, "layer", "weight") == ["layer.weight"]
    assert made_of(graph, "layer", "bias") == []
    assert made_of(graph, "norm", "weight") == parts
    assert made_of(graph, "linear", "weight") is None
    assert made_of(graph, "linear_1", "weight") is None
