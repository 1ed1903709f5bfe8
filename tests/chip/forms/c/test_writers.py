"""Every operator has a writer, and its C computes the oracle's integers."""

import shutil

import numpy as np
import pytest
from tests.chip.forms.c.cases import program_of_cases
from tests.chip.operators.operator_cases import GENERATORS

from photomask.chip.engines.c_engine import CEngine
from photomask.chip.forms.c.context import C
from photomask.chip.operators import OPERATORS, Operator
from photomask.chip.program import IntegerProgram, NumpyEngine

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
STRICT = "cc -O0 -Wall -Wextra -Werror -Wconversion"


def assert_exact(program: IntegerProgram, codes: dict[str, np.ndarray], compiler: str) -> None:
    engine, oracle = CEngine(program, compiler=compiler), dict(NumpyEngine(program).edges(codes))
    outputs = engine.run(codes)
    assert list(outputs) == list(program.outputs)
    edges = dict(engine.edges(codes))
    assert list(edges) == list(oracle)
    for found in (outputs, edges):
        for name, value in found.items():
            assert value.dtype == np.int64
            assert value.shape == oracle[name].shape, name
            assert np.array_equal(value, oracle[name]), name


@pytest.mark.parametrize("operator", OPERATORS)
def test_c_writes_every_operator(operator: type[Operator]):
    assert C.refusal(operator) is None


@needs_compiler
@pytest.mark.parametrize("kind", sorted(GENERATORS))
def test_an_operator_computes_the_integers_of_the_oracle(kind: str):
    assert_exact(*program_of_cases([kind], range(30)), STRICT)
