"""Inputs and models that integers cannot hold are refused, and where they are is named."""

import pytest
import torch
from torch import Tensor, nn

from photomask.chip import Recipe, calibrate, convert, load_target, prepare
from photomask.chip.engines import CEngine, OnnxEngine, TorchEngine
from photomask.chip.program import NumpyEngine
from photomask.chip.quantizers import Quantizer
from photomask.errors import DataError, PhotomaskError, TargetError


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(11, 8), nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> Tensor:
        return self.layer(self.table(ids))


@pytest.fixture
def words():
    torch.manual_seed(0)
    return prepare(Words().eval(), Recipe(), torch.randint(0, 11, (2, 5)))


@pytest.mark.parametrize("wrong", [11, -1])
def test_tokens_outside_the_table_are_refused_in_calibration(words, wrong: int):
    with pytest.raises(DataError, match=r"holds .*table of 'table' \(.*\) has the rows 0 to 10"):
        calibrate(words, [[torch.full((2, 5), wrong)]])


@pytest.mark.parametrize("wrong", [11, -1])
def test_tokens_outside_the_table_are_refused_by_every_engine(words, wrong: int):
    calibrate(words, [[torch.randint(0, 11, (8, 5))]])
    program = convert(words, load_target("asic"))
    ids = torch.full((1, 5), wrong)
    for engine in (NumpyEngine(program), CEngine(program, compiler="cc -O1"), OnnxEngine(program)):
        with pytest.raises(PhotomaskError, match="outside 0 to 10"):
            engine.run({program.inputs[0]: ids.numpy()})
    with pytest.raises(PhotomaskError, match="outside 0 to 10"):
        TorchEngine(program).run({program.inputs[0]: ids})


def test_a_sequence_of_another_length_is_refused(words):
    with pytest.raises(DataError, match=r"has shape \[2, 6\], expected \[batch, 5\]"):
        calibrate(words, [[torch.zeros(2, 6, dtype=torch.int64)]])


def test_a_norm_whose_squares_no_target_holds_is_refused_with_its_place():
    norm = nn.LayerNorm(4096)
    x = torch.randn(2, 4096)
    prepared = prepare(norm, Recipe(activation=Quantizer(16, symmetric=False)), x)
    calibrate(prepared, x)
    with pytest.raises(TargetError, match=r"\(.*normalization\.py:\d+\): normalize .*62 bits"):
        convert(prepared, load_target("asic"))
