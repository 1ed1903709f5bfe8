"""The one table of lowerings, and what it says about ATen operators."""

from pathlib import Path

import pytest
import torch

from photomask.chip.graph import lowerings
from photomask.chip.graph.batch_axis import BatchAxis
from photomask.chip.graph.lowerings import FILES, LOWERINGS, registered
from photomask.chip.graph.lowerings.pointwise import CLAMPS, FUNCTIONS
from photomask.chip.graph.lowerings.registry import lowers
from photomask.errors import UsageError

ATEN = torch.ops.aten


def test_an_operator_with_two_lowerings_is_an_error_that_names_both():
    before = dict(LOWERINGS)

    def second(call):
        raise NotImplementedError

    with pytest.raises(UsageError, match=r"'linear' has two lowerings: _linear in products and se"):
        lowers("linear")(second)
    assert before == LOWERINGS


def test_every_file_that_registers_lowerings_is_named_by_the_package():
    folder = Path(str(lowerings.__file__)).parent
    registering = {
        path.stem for path in folder.glob("*.py") if "\n@lowers(" in path.read_text("utf-8")
    }
    named = {file.__name__.rpartition(".")[2] for file in FILES}
    assert registering | {"pointwise"} == named


@pytest.mark.parametrize("name", LOWERINGS)
def test_every_lowering_is_that_of_an_operator_that_pytorch_has(name: str):
    operator, _, overload = name.partition(".")
    packet = getattr(ATEN, operator)
    assert not overload or overload in packet.overloads()


def test_an_overload_is_preferred_and_an_in_place_variant_is_its_operator():
    assert registered(ATEN.mean.dim) is LOWERINGS["mean.dim"]
    assert registered(ATEN.mean.default) is LOWERINGS["mean"]
    assert registered(ATEN.relu_.default) is LOWERINGS["relu"]
    assert registered(ATEN.__and__.Tensor) is LOWERINGS["__and__"]
    assert registered(ATEN.sort.default) is None


def calls_of(name: str):
    """Returns operator and arguments of a call that takes no more than tensors and defaults."""
    more = {"pow": (2.0,), "threshold": (0.1, 0.0), "clamp": (0.0,), "clip": (0.0,)}
    more |= {"clamp_min": (0.0,), "clamp_max": (1.0,)}
    return getattr(ATEN, name), (torch.rand(2, 3), *more.get(name, ()))


CALLS = {name: calls_of(name) for name in (*FUNCTIONS, *CLAMPS)}
CALLS |= {
    name: (getattr(ATEN, name), (torch.rand(2, 3), torch.zeros(3)))
    for name in ("add", "sub", "rsub", "subtract", "mul", "multiply", "true_divide")
}
CALLS |= {
    "cat": (ATEN.cat, ([torch.rand(2, 3)],)),
    "linear": (ATEN.linear, (torch.rand(2, 3), torch.eye(3))),
    "conv1d": (ATEN.conv1d, (torch.rand(2, 3, 4), torch.ones(3, 3, 1))),
    "max_pool1d": (ATEN.max_pool1d, (torch.rand(2, 3, 4), [1])),
    "avg_pool1d": (ATEN.avg_pool1d, (torch.rand(2, 3, 4), [1])),
    "avg_pool2d": (ATEN.avg_pool2d, (torch.rand(2, 3, 4, 4), [1, 1])),
    "adaptive_avg_pool1d": (ATEN.adaptive_avg_pool1d, (torch.rand(2, 3, 4), [4])),
    "adaptive_avg_pool2d": (ATEN.adaptive_avg_pool2d, (torch.rand(2, 3, 4, 4), [4, 4])),
    "mean.dim": (ATEN.mean.dim, (torch.rand(2, 1), [1], True)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_fresh_result_shares_no_memory_with_its_operand(name: str):
    operator, arguments = CALLS[name]
    assert LOWERINGS[name].is_fresh
    operand = arguments[0][0] if isinstance(arguments[0], list) else arguments[0]
    storage = operator(*arguments).untyped_storage().data_ptr()
    assert storage != operand.untyped_storage().data_ptr()


def test_functions_of_one_number_do_not_ask_where_the_batch_is():
    assert {LOWERINGS[name].batch for name in (*FUNCTIONS, *CLAMPS)} == {BatchAxis.ANYWHERE}
