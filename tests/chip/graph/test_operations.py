"""What every float operation says about itself, beside what it computes."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from photomask.chip.conversion import converters
from photomask.chip.conversion.registry import CONVERTERS, converts
from photomask.chip.graph import operations
from photomask.chip.graph.operations import (
    Accumulates,
    Add,
    Convolution,
    Copy,
    IntegerUse,
    Linear,
    Matmul,
    Mean,
    Normalize,
    Operation,
    OutputScale,
    Permute,
    Softmax,
)
from photomask.chip.graph.operations.base import FACTS
from photomask.errors import OperatorError, UsageError

X = torch.arange(1.0, 25.0).reshape(2, 3, 4)
GAIN = {"gain": torch.ones(4), "bias": torch.zeros(4)}
CASES: dict[str, tuple[Operation, tuple[torch.Tensor, ...], dict[str, torch.Tensor]]] = {
    "convolution": (
        Convolution((1,), ((0, 0),), (1,), 1),
        (X,),
        {"weight": torch.ones(2, 3, 2), "bias": torch.zeros(2)},
    ),
    "depthwise": (
        Convolution((1,), ((0, 0),), (1,), 3),
        (X,),
        {"weight": torch.ones(3, 1, 2), "bias": torch.zeros(3)},
    ),
    "linear": (Linear(), (X,), {"weight": torch.ones(2, 4), "bias": torch.zeros(2)}),
    "matmul": (Matmul(), (X, X.transpose(1, 2).contiguous()), {}),
    "add": (Add((1, 1)), (X, X), {}),
    "multiply": (operations.Multiply(), (X, X), {}),
    "concatenate": (operations.Concatenate(1), (X, X), {}),
    "average_pool": (operations.AveragePool((2,), (1,), (0,), False, True, None), (X,), {}),
    "adaptive": (operations.AdaptiveAveragePool((3,)), (X,), {}),
    "mean": (Mean((1,), True), (X,), {}),
    "sum": (Mean((-1,), False, divide=False), (X,), {}),
    "softmax": (Softmax(), (X,), {}),
    "normalize": (Normalize(True, 1e-5), (X,), GAIN),
    "permute": (Permute((0, 2, 1)), (X,), {}),
    "gather": (operations.Gather(2, (1, 0)), (X,), {}),
    "slice": (operations.Slice(2, 1, 3, 1), (X,), {}),
    "reshape": (operations.Reshape((12,)), (X,), {}),
    "copy": (Copy(), (X,), {}),
    "clamp": (operations.Clamp(2.0, 9.0), (X,), {}),
    "pad": (operations.Pad(((0, 0), (0, 0), (1, 1)), 0.0), (X,), {}),
}


def mixed_axes(name: str, position: int) -> set[int]:
    """Returns the axes of an input along which one result depends on several of its elements."""
    operation, inputs, constants = CASES[name]
    mixed = set()
    for axis in range(1, inputs[position].ndim):
        reached = []
        for place in range(inputs[position].shape[axis]):
            changed = inputs[position].clone()
            changed.select(axis, place).mul_(1.1)
            operands = [changed if at == position else x for at, x in enumerate(inputs)]
            before = operation.compute(inputs, constants)
            reached.append(~torch.isclose(operation.compute(operands, constants), before))
        if bool((torch.stack(reached).sum(dim=0) > 1).any()):
            mixed.add(axis)
    return mixed


@pytest.mark.parametrize("name", CASES)
def test_an_operation_sums_along_the_axes_of_which_one_result_depends_on_several_elements(name):
    operation, inputs, _ = CASES[name]
    for position, x in enumerate(inputs):
        stated = operation.summed_axes(position, tuple(x.shape))
        assert stated == mixed_axes(name, position)
        assert bool(stated) == operation.sums


@pytest.mark.parametrize("name", CASES)
def test_elements_that_are_said_to_be_moved_are_elements_of_an_input(name: str):
    operation, inputs, constants = CASES[name]
    if operation.moves:
        result = operation.compute(inputs, constants)
        assert bool(torch.isin(result, torch.cat([x.flatten() for x in inputs])).all())
        order = operation.compute([-x for x in inputs], constants)
        assert torch.equal(order, -result)  # positions alone decide, and no value does


@pytest.mark.parametrize("name", CASES)
def test_an_axis_that_is_followed_holds_the_same_positions(name: str):
    operation, _, constants = CASES[name]
    if not operation.keeps_scale:
        return
    for axis in range(1, 3):
        behind = operation.axis_behind(axis)
        if behind is None:
            continue
        numbers = torch.arange(1.0, X.shape[axis] + 1)
        spread = numbers.reshape([-1 if at == axis else 1 for at in range(3)]).expand(X.shape)
        result = operation.compute([spread.contiguous()], constants).movedim(behind, 0).flatten(1)
        same = result == result.amax(dim=1, keepdim=True)
        assert bool(same.logical_or(result == 0).all())  # 0 is what a pad puts beside


OPERATIONS = [
    kind
    for name in operations.__all__
    if isinstance(kind := getattr(operations, name), type)
    and issubclass(kind, Operation)
    and kind is not Operation
]


def test_every_operation_that_a_simplified_graph_may_have_is_converted():
    assert set(CONVERTERS) == {*OPERATIONS} - {operations.ChannelAffine}


def test_every_file_that_registers_converters_is_imported_with_the_first():
    folder = Path(str(converters.__file__)).parent
    registering = {
        path.stem for path in folder.glob("*.py") if "\n@converts(" in path.read_text("utf-8")
    }
    named = {file.__name__.rpartition(".")[2] for file in converters.FILES}
    assert registering == named | {"converters"}


def test_an_operation_with_two_converters_is_an_error_that_names_it():
    with pytest.raises(UsageError, match="Softmax has two converters"):
        converts(operations.Softmax)(lambda conversion, node, operation: None)


@pytest.mark.parametrize("kind", OPERATIONS)
def test_facts_of_an_operation_agree_with_each_other(kind: type[Operation]):
    if kind.output_scale is not OutputScale.OWN:
        assert kind.accumulates is Accumulates.NOTHING  # nothing is rescaled
    if kind.takes_clamp:
        assert kind.accumulates is not Accumulates.NOTHING
    if kind.factor_role:
        assert kind.channel_axis is not None
    if kind.multiplies:
        assert kind.accumulates in (Accumulates.WEIGHTED, Accumulates.PRODUCTS)
        assert kind.sums


@pytest.mark.parametrize("missing", [*FACTS, "summed_axes"])
def test_an_operation_that_leaves_out_a_fact_cannot_be_defined(missing: str):
    stated = {fact: getattr(Linear, fact) for fact in FACTS if fact != missing}
    if missing != "summed_axes":
        stated["summed_axes"] = Linear.summed_axes
    with pytest.raises(OperatorError, match=rf"Forgetful does not state {missing}: every"):
        type("Forgetful", (Operation,), stated)


def test_facts_are_inherited_and_an_abstract_class_may_leave_them_to_others():
    @dataclasses.dataclass(frozen=True)
    class Half(Operation, abstract=True):
        takes_clamp: ClassVar[bool] = True

    with pytest.raises(OperatorError, match="Whole does not state output_scale"):
        type("Whole", (Half,), {})
    assert type("Other", (Copy,), {}).integer_inputs == ()
    assert Softmax().use_of_integers(1) is IntegerUse.MASK
    assert Softmax().use_of_integers(0) is Linear().use_of_integers(3) is None
