"""Every operator: the oracle, the torch function and a brute-force sum give the same integers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chip.operators.brute_force import BRUTE_FORCE
from tests.chip.operators.operator_cases import GENERATORS, Case, Source

from photomask.chip.arithmetic import carrier
from photomask.chip.operators import OPERATORS, Operator

CPU = torch.device("cpu")
KINDS = {operator.model_fields["kind"].default: operator for operator in OPERATORS}
EXACT = {torch.float32: 1 << 24, torch.float64: 1 << 53, torch.int64: (1 << 63) - 1}


def test_every_operator_has_a_case_generator_and_a_brute_force_oracle():
    assert set(GENERATORS) == set(KINDS) == set(BRUTE_FORCE)


def run_torch(case: Case) -> torch.Tensor:
    function = case.operator.compile_torch(case.intervals, case.parameters, CPU)
    values = [
        torch.from_numpy(x).to(carrier(interval))
        for x, interval in zip(case.inputs, case.intervals, strict=True)
    ]
    copies = [value.clone() for value in values]
    result = function(*values)
    assert all(map(torch.equal, values, copies)), "the function changed its input"
    return result


def check(case: Case) -> None:
    operator: Operator = case.operator
    shape = operator.output_shape([x.shape for x in case.inputs], case.parameters)
    interval = operator.output_interval(case.intervals, case.parameters)
    assert interval.bits <= 64, "the generator made an illegal case"
    expected = BRUTE_FORCE[operator.kind](operator, case.inputs, case.parameters, shape)
    oracle = operator.run_numpy(case.inputs, case.parameters)
    fast = run_torch(case)
    assert oracle.dtype == np.int64
    assert oracle.shape == tuple(fast.shape) == shape
    assert (oracle == expected).all()
    assert fast.dtype == carrier(interval)
    assert int(fast.abs().max()) <= EXACT[fast.dtype]
    assert np.array_equal(fast.to(torch.int64).numpy(), oracle)
    assert interval.low <= oracle.min()
    assert oracle.max() <= interval.high


@pytest.mark.parametrize("kind", sorted(GENERATORS))
def test_three_implementations_agree_on_fixed_seeds(kind: str):
    for seed in range(40):
        check(GENERATORS[kind](Source(seed)))


@pytest.mark.parametrize("kind", sorted(GENERATORS))
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(1000, 1 << 32))
def test_three_implementations_agree(kind: str, seed: int):
    check(GENERATORS[kind](Source(seed)))


@pytest.mark.parametrize("kind", sorted(GENERATORS))
def test_an_operator_survives_json(kind: str):
    operator = GENERATORS[kind](Source(0)).operator
    assert KINDS[kind].parse(operator.render(), "test") == operator
