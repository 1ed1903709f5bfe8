"""A program beside its prepared model: each difference is counted once, where it arises."""

import re

import pytest
import torch
from tests.chip.conversion.flow import randomize
from tests.chip.verification.altered import with_changed_entry
from torch import Tensor, nn

from photomask.chip import (
    IntegerProgram,
    PreparedModel,
    align_to_target,
    calibrate,
    compare_with_prepared,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.errors import DataError

ASIC = load_target("asic")


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.gpu),
]


class Reader(nn.Module):
    """A table of rows, an attention that hides by a mask, and three classes."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(20, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, numbers: Tensor, mask: Tensor) -> Tensor:
        x = self.rows(numbers)
        y = self.norm(x)
        scores = (y @ y.transpose(1, 2)).masked_fill(mask[:, None] == 0, -1e9)
        return self.head((scores.softmax(-1) @ x).mean(1))


def small(bits: str, network: nn.Module, images: Tensor) -> PreparedModel:
    prepared = prepare(network, load_recipe(bits), images[:1])
    calibrate(prepared, images)
    return prepared


@pytest.mark.parametrize("device", DEVICES)
def test_an_aligned_model_differs_nowhere(
    small_network: nn.Module, small_images: Tensor, device: str
):
    prepared = small("w4a4", small_network, small_images)
    align_to_target(prepared.double(), ASIC)
    report = compare_with_prepared(prepared, convert(prepared, ASIC), small_images, device=device)
    assert report.differing == report.largest == 0
    assert sum(edge.elements for edge in report.edges) > 1000
    (made,) = report.decisions
    assert (made.samples, made.alike) == (len(small_images), len(small_images))
    assert str(report).startswith("0 of ")
    assert len(str(report).splitlines()) == 2


def test_rounded_multipliers_differ_by_one_at_most_and_the_nodes_are_listed():
    torch.manual_seed(0)
    network = randomize(nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)))
    images = torch.randn(64, 2, 16, 16)
    prepared = small("w8a8", network, images)
    report = compare_with_prepared(prepared, convert(prepared, ASIC), images)
    assert report.largest == 1
    assert 0 < report.differing < 0.05 * sum(edge.elements for edge in report.edges)
    assert not report.decisions
    listed = [edge.node for edge in report.edges if edge.differing]
    head, _, *lines = str(report).splitlines()
    assert f"{report.differing:,} of " in head
    assert [line.split()[0] for line in lines] == listed
    assert all(".py:" in line for line in lines)


def test_an_altered_weight_shows_at_its_own_node_alone(
    small_network: nn.Module, small_images: Tensor
):
    prepared = small("w8a8", small_network, small_images)
    align_to_target(prepared.double(), ASIC)
    program = convert(prepared, ASIC)
    step = next(step for step in program.steps if "weight" in step.tensors)
    changed = with_changed_entry(program, step.tensors["weight"], 1)
    report = compare_with_prepared(prepared, changed, small_images)
    assert [edge.node for edge in report.edges if edge.differing] == [step.node]


@pytest.mark.parametrize("device", DEVICES)
def test_rows_of_tables_and_masks_are_handed_on(device: str):
    torch.manual_seed(1)
    model = randomize(Reader())
    numbers, mask = torch.randint(0, 20, (32, 6)), torch.ones(32, 6, dtype=torch.int64)
    mask[::2, 4:] = 0
    prepared = prepare(model, load_recipe("w8a8"), (numbers[:1], mask[:1]))
    calibrate(prepared, [(numbers, mask)])
    align_to_target(prepared.double(), ASIC)
    program = convert(prepared, ASIC)
    report = compare_with_prepared(prepared, program, (numbers, mask), device=device)
    assert report.differing == 0
    assert {"softmax", "normalize", "embedding"} <= {edge.operator for edge in report.edges}


def test_programs_of_other_models_and_wrong_inputs_are_refused(
    small_network: nn.Module, small_images: Tensor
):
    prepared = small("w8a8", small_network, small_images)
    program = convert(prepared, ASIC)
    other = nn.Sequential(nn.Conv2d(small_images.shape[1], 3, 3), nn.ReLU())
    with pytest.raises(DataError, match="another model"):
        compare_with_prepared(small("w8a8", other, small_images), program, small_images)
    with pytest.raises(DataError, match="NaN"):
        compare_with_prepared(prepared, program, small_images * torch.nan)


def test_a_program_before_its_prepared_model_means_the_same_and_warns(
    small_prepared: PreparedModel, small_program: IntegerProgram, small_images: Tensor
):
    right = re.escape("compare_with_prepared(prepared, program, inputs)")
    align_to_target(small_prepared, small_program.target)
    with pytest.warns(FutureWarning, match=right):
        report = compare_with_prepared(small_program, small_prepared, small_images)
    assert report == compare_with_prepared(small_prepared, small_program, small_images)
