"""What every integer operator says about itself."""

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
"""Of a tensor, the batch at axis 0."""
Parameters = Mapping[str, np.ndarray]
"""Constant int64 tensors by role."""
TorchFunction = Callable[..., torch.Tensor]
"""What an operator becomes on a device: tensors in carrier dtypes in, one out."""

Int64 = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]
"""A number that the hardware and NumPy can hold."""
Extent = Annotated[int, Field(ge=1, le=1 << 20)]
"""Elements along a kernel, a stride, a dilation or an output axis."""
Margin = Annotated[int, Field(ge=0, le=1 << 20)]
"""Elements of padding."""
DataAxis = Annotated[int, Field(ge=1, le=64)]
"""An axis that is not the batch."""


class Operator(Document):
    """One integer operator: a function from integers to integers, with constant parameters.

    Shapes carry the batch at axis 0 and are stated for one sample; engines take any batch.
    Parameters are int64 NumPy arrays by role (`bias`, `multiplier`, …); `weight` is [outputs,
    inputs, *kernel] in every operator.

    Everything that the rest of the house must know about an operator is a fact here, which the
    operator states in its own file. A class without one of them cannot be defined; only a class
    whose name begins with an underscore, a base of others, may leave facts to those.

    Raises:
        OperatorError: at the definition of a class; names the facts that it misses.
    """

    parameter_roles: ClassVar[tuple[str, ...]] = ()
    """Roles that must be present."""
    optional_roles: ClassVar[tuple[str, ...]] = ()
    learned_roles: ClassVar[tuple[str, ...]] = ()
    """Roles whose tensors come from the model's constants, those in `optional_roles` from their
    quantizer. An operator with any roles states it, even if none is learned."""
    input_count: ClassVar[int | None] = 1
    """How many activations it takes; None for one or more."""
    family: ClassVar[Family]
    scaling: ClassVar[Scaling]
    accumulates: ClassVar[bool]
    """Whether its result is a sum or a product in full width, which a requantization follows."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuses an operator that misses a fact."""
        super().__pydantic_init_subclass__(**kwargs)
        if not cls.__name__.startswith("_") and (problems := _missing_facts(cls)):
            raise OperatorError(
                f"the operator {cls.__name__} cannot be defined: {'; '.join(problems)}. State each "
                "in the operator's own class"
            )

    @classmethod
    def model_roles(cls) -> tuple[str, ...]:
        """Returns the roles of the tensors that the model has too, in floating point."""
        return tuple(role for role in cls.learned_roles if role in cls.parameter_roles)

    @classmethod
    def is_epilogue(cls) -> bool:
        """Tells whether it can be done to each result of the step before, as that leaves.

        It makes one number of one number, and no sum that another step must bring back to few bits.
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
        """Returns integers between which the output and every partial sum must lie.

        Holds for any order of summation, so an accumulator of this width never overflows.

        Raises:
            ValueError: the operator cannot run on such values with such parameters.
        """
        raise NotImplementedError

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """The oracle: int64 in, int64 out, written plainly and without the torch code."""
        raise NotImplementedError

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns the fast implementation for inputs of these intervals.

        Tensors travel in the `carrier` dtype of their interval, which holds them exactly; the
        function returned takes and gives such tensors.
        """
        raise NotImplementedError

    def wrap_oracle(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns the oracle itself, for sums beyond 2**53, which no float64 holds."""
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
        """Returns what one sample asks of a machine.

        Args:
            shapes: of the inputs.
            parameters: the constant tensors.

        Returns:
            The product of matrices that the operator is, or its operations on single numbers.
        """
        raise NotImplementedError

    def multiply_accumulates(self, shapes: Sequence[Shape], parameters: Parameters) -> int:
        """Multiplications by weights, or between activations, for one sample."""
        work = self.work(shapes, parameters)
        return work.multiply_accumulates if isinstance(work, MatrixProduct) else 0

    def input_lane_axis(self, number: int, shape: Shape) -> int | None:
        """Returns the axis of an input along which a machine wants its lanes.

        Args:
            number: of the input.
            shape: of the input.

        Returns:
            The axis of its channels; 0 where it has none; None where any axis will do.
        """
        return {Family.MAP: 1, Family.ROW: len(shape) - 1}.get(self.family)

    def output_lane_axis(self, shapes: Sequence[Shape], output: Shape) -> int | None:
        """Returns the axis of the result along which a machine writes its lanes.

        Args:
            shapes: of the inputs.
            output: shape of the result.

        Returns:
            The axis of its channels; 0 where it has none; None where any axis will do.
        """
        return {Family.MAP: 1, Family.ROW: len(output) - 1}.get(self.family)

    def axis_before(self, axis: int, shape: Shape, output: Shape) -> int | None:
        """Returns the axis of an input that becomes an axis of the result.

        Args:
            axis: of the result.
            shape: of the input.
            output: shape of the result.

        Returns:
            The axis, negative where the input has none there; None if there is no such axis.
        """
        return axis - len(output) + len(shape) if self._aligns_axes() else None

    def axis_behind(self, axis: int, shape: Shape, output: Shape) -> int | None:
        """Returns the axis of the result that an axis of an input becomes.

        Args:
            axis: of the input.
            shape: of the input.
            output: shape of the result.

        Returns:
            The axis; None if there is no such axis.
        """
        return axis + len(output) - len(shape) if self._aligns_axes() else None

    def _aligns_axes(self) -> bool:
        return self.family in (Family.ELEMENTWISE, Family.MOVE)


_METHODS = ("output_shape", "output_interval", "run_numpy", "compile_torch", "work")
"""What every operator defines."""
_METHODS_OF_FAMILY = {
    Family.REDUCTION: ("input_lane_axis", "output_lane_axis"),
    Family.REARRANGEMENT: ("axis_before", "axis_behind"),
}
"""What no rule for all operators of a family can say."""


def _missing_facts(operator: type[Operator]) -> list[str]:
    """Returns what an operator does not say, or does not say right, about itself."""
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
        problems.append(f"`learned_roles` names {sorted(unknown)}, which are no roles of it")
    family = getattr(operator, "family", None)
    needed = _METHODS + _METHODS_OF_FAMILY.get(family, ()) if family else _METHODS
    problems += [f"`{name}` must be defined" for name in needed if not _states(operator, name)]
    return problems


def _states(operator: type[Operator], fact: str) -> bool:
    """Tells whether a class says something itself, or a base between it and `Operator` does."""
    classes = operator.__mro__[: operator.__mro__.index(Operator)]
    return any(fact in vars(one) for one in classes)


def require(condition: bool, problem: str) -> None:
    """Refuses an operator that cannot run.

    Raises:
        ValueError: the condition does not hold.
    """
    if not condition:
        raise ValueError(problem)
