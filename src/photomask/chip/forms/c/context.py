"""The context that every writer of the C form gets, and the table of the writers.

A writer is a function that is registered here for its operator::

    @C.of(Multiply)
    def multiply(operator: Multiply, context: Context) -> list[str]: ...

It gets the operator and the `Context` of one step. The context says where the step's inputs lie and
where its results go, and it collects the constants, working memory and functions that the step's
code needs. The writer returns the body of the step's C function.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from photomask.chip.forms.c.constants import Constants
from photomask.chip.forms.c.loops import Operand
from photomask.chip.forms.c.tensors import Tensor
from photomask.chip.forms.writers import Writers
from photomask.chip.operators import Parameters


@dataclass(frozen=True)
class Rescale:
    """An inline function that requantizes one number."""

    function: str
    parameter: str
    """The C type of the number that the function takes."""
    strides: tuple[int, ...] | None
    """The strides into multipliers and shifts, by the tensor's own axis.

    It is None if all elements share one multiplier and one shift.
    """


@dataclass(frozen=True)
class Store:
    """Stores a result into `y`, through the requantization behind the step if there is one."""

    y: Tensor
    rescale: Rescale | None = None

    def operands(self) -> dict[str, Operand]:
        """Returns the operand `y` and, if multipliers are indexed, the operand `factor`.

        The strides are in the order of the axes of `y`.
        """
        operands = {"y": Operand(self.y.in_order(self.y.strides))}
        if self.rescale and self.rescale.strides is not None:
            operands["factor"] = Operand(self.y.in_order(self.rescale.strides))
        return operands

    def line(self, value: str, ctype: str, offsets: Mapping[str, str]) -> str:
        """Returns the statement that stores `value`, which has the type `ctype`."""
        return f"y[{offsets['y']}] = {self.result(value, ctype, offsets)};"

    def result(self, value: str, ctype: str, offsets: Mapping[str, str]) -> str:
        """Returns the expression for what is stored of `value`, which has the type `ctype`."""
        if self.rescale is None:
            return cast(value, ctype, self.y.ctype)
        arguments = [cast(value, ctype, self.rescale.parameter)]
        if self.rescale.strides is not None:
            arguments.append(offsets["factor"])
        return f"{self.rescale.function}({', '.join(arguments)})"


@dataclass
class Context:
    """One step that becomes a C function."""

    name: str
    """The name of the function, a C identifier."""
    edge: str
    """The edge that the step computes."""
    parameters: Parameters
    inputs: tuple[Tensor, ...]
    output: Tensor
    """The output of the step itself, even if only the requantized result is stored."""
    store: Store
    constants: Constants
    kernels: dict[str, list[str]]
    """The functions that several steps share, by name."""
    scratch: dict[str, tuple[str, int]] = field(default_factory=dict)
    """The working memory: the C type and the number of elements, by name of the function's
    parameter.
    """
    helpers: list[str] = field(default_factory=list)
    """Functions that only this step needs; they come before its own function."""
    array: str | None = None
    """The C expression for a constant array that holds the step's results.

    A step that computes nothing has such an array instead of a function. It is None for other
    steps.
    """

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the function's parameters for the inputs."""
        if len(self.inputs) == 1:
            return ("x",)
        if len(self.inputs) == 2:
            return ("a", "b")
        return tuple(f"x{index}" for index in range(len(self.inputs)))

    def constant(self, role: str, values: np.ndarray, note: str, ctype: str | None = None) -> str:
        """Adds a constant array of this step and returns the C expression for it."""
        return self.constants.add(f"{self.name}_{role}", values, f"{note} of {self.name}", ctype)


C = Writers[[Context], list[str]]("C")
"""The writers of all operators; each returns the body of its step's function."""


def cast(value: str, found: str, wanted: str) -> str:
    """Returns the expression `value` of type `found`, cast to the type `wanted` if they differ."""
    if found == wanted:
        return value
    simple = value.replace("_", "").isalnum() or (value.endswith("]") and " " not in value)
    return f"({wanted}){value}" if simple else f"({wanted})({value})"


def read(name: str, offset: str, tensor: Tensor, wanted: str) -> str:
    """Returns an element of a tensor as a number of type `wanted`."""
    found = f"{name}[{offset}]"
    return found if tensor.ctype == wanted else f"({wanted}){found}"


def broadcast(tensor: Tensor, rank: int) -> tuple[int, ...]:
    """Returns the strides of a tensor, by own axis of a result with `rank` axes."""
    return (0,) * (rank - len(tensor.shape)) + tensor.strides


def plus(value: str, constant: int, text: str) -> str:
    """Returns `value + constant`, or `value` alone if the constant is 0."""
    return value if constant == 0 else f"({value} + {text})"
