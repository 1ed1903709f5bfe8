"""Shapes that the importer computes: those that no rule gives are refused."""

import pytest
import torch

from photomask.chip.graph import operations
from photomask.chip.onnx_import.shapes import output_shape
from photomask.chip.onnx_import.values import CannotImport


def test_an_operation_without_a_rule_has_no_shape_by_default():
    table = {"table": torch.zeros(5, 3)}
    with pytest.raises(CannotImport, match="no rule says what shape embedding makes of"):
        output_shape(operations.Embedding(), [(1, 4)], table)
