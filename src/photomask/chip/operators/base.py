"""The base class of all integer operators, with the facts that each operator states."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations, MatrixProduct
from photomask.documents import Document
from photomask.errors import OperatorError

_LOG = logging.getLogger(__name__)

Shape = tuple[int, ...]
"""The shape of a tensor, with the batch at axis 0."""
Parameters = Mapping[str, np.ndarray]
"""Constant int64 tensors by their role."""
TorchFunction = Callable[..., torch.Tensor]
"""An operator, compiled for a device: it takes tensors in carrier dtypes and returns one."""

Int64 = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]
"""An integer that NumPy and the hardware can hold in 64 bits."""
Extent = Annotated[int, Field(ge=1, le=1 << 20)]
"""A number of elements: of a kernel, a stride, a dilation or an output axis."""
Margin = Annotated[int, Field(ge=0, le=1 << 20)]
"""A number of elements of padding."""
DataAxis = Annotated[int, Field(ge=1, le=64)]
"""An axis that is not the batch axis."""


class Operator(Document):
    """An integer operator: a function from integers to integers, with constant parameters.

    Shapes have the batch at axis 0 and describe one sample; engines accept any batch. Parameters
    are int64 NumPy arrays by role (`bias`, `multiplier`, …). In every operator, `weight` has the
    shape [outputs, inputs, *kernel].

    Everything that other modules need to know about an operator is a fact that the operator states
    in its own file. A class that misses a fact cannot be defined. The exception is a class whose
    name begins with an underscore: it is a base of other operators and may leave facts to them.

    Raises:
        OperatorError: raised at the definition of a class; names the facts that the class misses.
    """

    parameter_roles: ClassVar[tuple[str, ...]] = ()
    """The roles of the constant tensors that must be present."""
    optional_roles: ClassVar[tuple[str, ...]] = ()
    learned_roles: ClassVar[tuple[str, ...]] = ()
    """The roles of the tensors that come from the model's constants.

    Roles in `optional_roles` come from the quantizers of these constants. An operator with any
    roles must state this fact, even if no role is learned.
    """
    input_count: ClassVar[int | None] = 1
    """The number of activations that the operator takes; None for one or more."""
    family: ClassVar[Family]
    scaling: ClassVar[Scaling]
    accumulates: ClassVar[bool]
    """Whether the result is a sum or product in full width, which must be requantized."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Raises an error for an operator that misses a fact."""
        super().__pydantic_init_subclass__(**kwargs)
        if not cls.__name__.startswith("_") and (problems := _missing_facts(cls)):
            raise OperatorError(
                f"the operator {cls.__name__} cannot be defined: {'; '.join(problems)}. State each "
                "of them in the operator's own class"
            )

    @classmethod
    def model_roles(cls) -> tuple[str, ...]:
        """Returns the roles of the tensors that the float model also has."""
        return tuple(role for role in cls.learned_roles if role in cls.parameter_roles)

    @classmethod
    def is_epilogue(cls) -> bool:
        """Tells whether the operator can be applied to each result of the step before as it leaves.

        It must compute one number from one number, and must not return a sum that another step has
        to requantize.
        """
        is_of_one = cls.family is Family.ELEMENTWISE and cls.input_count == 1
        return is_of_one and not cls.accumulates

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the output's shape for inputs of these shapes.

        Raises:
            ValueError: the operator cannot run on such inputs with such parameters.
        """
        raise NotImplementedError

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns an interval that holds the output and every partial sum.

        It holds for any order of summation, so an accumulator of this width never overflows.

        Raises:
            ValueError: the operator cannot run on such values with such parameters.
        """
        raise NotImplementedError

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes the oracle's result, written plainly and without the torch code.

        It takes and returns int64.
        """
        raise NotImplementedError

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns the fast implementation for inputs with these intervals.

        The returned function takes and returns tensors in the `carrier` dtypes of their intervals,
        which hold their integers exactly.
        """
        raise NotImplementedError

    def wrap_oracle(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns the oracle as a function of tensors, for sums that float64 cannot hold."""
        dtype = carrier(self.output_interval(inputs, parameters))
        name = type(self).__name__
        _LOG.debug("%s: sums may pass 2**53, so the slower oracle computes it", name)

        def run(*values: torch.Tensor) -> torch.Tensor:
            arrays = [value.to(torch.int64).cpu().numpy() for value in values]
            return torch.from_numpy(self.run_numpy(arrays, parameters)).to(device, dtype)

        return run

    def work(
        self, shapes: Sequence[Shape], parameters: Parameters
    ) -> MatrixProduct | LaneOperations:
        """Returns the work that one sample asks of a machine.

        Args:
            shapes: the shapes of the inputs.
            parameters: the constant tensors.

        Returns:
            The matrix product that the operator is, or its operations on single numbers.
        """
        raise NotImplementedError

    def multiply_accumulates(self, shapes: Sequence[Shape], parameters: Parameters) -> int:
        """Returns the multiply-accumulates of one sample, by weights or between activations."""
        work = self.work(shapes, parameters)
        return work.multiply_accumulates if isinstance(work, MatrixProduct) else 0

    def input_lane_axis(self, number: int, shape: Shape) -> int | None:
        """Returns the axis of an input that a machine needs along its lanes.

        Args:
            number: the number of the input.
            shape: the shape of the input.

        Returns:
            The axis of its channels, 0 if it has no channels, or None if any axis will do.
        """
        return {Family.MAP: 1, Family.ROW: len(shape) - 1}.get(self.family)

    def output_lane_axis(self, shapes: Sequence[Shape], output: Shape) -> int | None:
        """Returns the axis of the result that a machine writes along its lanes.

        Args:
            shapes: the shapes of the inputs.
            output: the shape of the result.

        Returns:
            The axis of its channels, 0 if it has no channels, or None if any axis will do.
        """
        return {Family.MAP: 1, Family.ROW: len(output) - 1}.get(self.family)

    def axis_before(self, axis: int, shape: Shape, output: Shape) -> int | None:
        """Returns the axis of an input that becomes a given axis of the result.

        Args:
            axis: the axis of the result.
            shape: the shape of the input.
            output: the shape of the result.

        Returns:
            The axis. It is negative if the input has fewer axes and none there. It is None if no
            axis of the input becomes this axis.
        """
        return axis - len(output) + len(shape) if self._aligns_axes() else None

    def axis_behind(self, axis: int, shape: Shape, output: Shape) -> int | None:
        """Returns the axis of the result that a given axis of an input becomes.

        Args:
            axis: the axis of the input.
            shape: the shape of the input.
            output: the shape of the result.

        Returns:
            The axis, or None if there is no such axis.
        """
        return axis + len(output) - len(shape) if self._aligns_axes() else None

    def _aligns_axes(self) -> bool:
        return self.family in (Family.ELEMENTWISE, Family.MOVE)


_METHODS = ("output_shape", "output_interval", "run_numpy", "compile_torch", "work")
"""The methods that every operator must define."""
_METHODS_OF_FAMILY = {
    Family.REDUCTION: ("input_lane_axis", "output_lane_axis"),
    Family.REARRANGEMENT: ("axis_before", "axis_behind"),
}
"""The methods that operators of a family must define, because no common rule gives the answer."""


def _missing_facts(operator: type[Operator]) -> list[str]:
    """Returns a problem for each fact that an operator does not state, or states wrongly."""
    kind = operator.model_fields.get("kind")
    problems = []
    if kind is None or not isinstance(kind.default, str):
        problems.append("`kind` must be a field, its name in JSON")
    for fact, words in (("family", Family), ("scaling", Scaling), ("accumulates", bool)):
        if not isinstance(getattr(operator, fact, None), words):
            problems.append(f"`{fact}` must be a class variable of type {words.__name__}")
    roles = {*operator.parameter_roles, *operator.optional_roles}
    if roles and not _states(operator, "learned_roles"):
        problems.append("`learned_roles` must say which of its roles come from the model")
    if unknown := set(operator.learned_roles) - roles:
        problems.append(
            f"`learned_roles` names {sorted(unknown)}, which are not roles of the operator"
        )
    family = getattr(operator, "family", None)
    needed = _METHODS + _METHODS_OF_FAMILY.get(family, ()) if family else _METHODS
    problems += [f"`{name}` must be defined" for name in needed if not _states(operator, name)]
    return problems


def _states(operator: type[Operator], fact: str) -> bool:
    """Tells whether a class, or a base between it and `Operator`, states a fact."""
    classes = operator.__mro__[: operator.__mro__.index(Operator)]
    return any(fact in vars(one) for one in classes)


def require(condition: bool, problem: str) -> None:
    """Raises an error with the given text if a condition does not hold.

    Raises:
        ValueError: the condition does not hold.
    """
    if not condition:
        raise ValueError(problem)
