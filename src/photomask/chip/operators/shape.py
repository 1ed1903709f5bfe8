"""Operators that move integers and never change one."""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import (
    DataAxis,
    Int64,
    Operator,
    Parameters,
    Shape,
    TorchFunction,
    require,
)
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations


class _Move(Operator):
    """A base for operators whose output has the input's interval."""

    family: ClassVar[Family] = Family.MOVE
    scaling: ClassVar[Scaling] = Scaling.KEPT
    accumulates: ClassVar[bool] = False

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the input's interval."""
        return inputs[0]

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one move for each element, because each is written to a new place."""
        return LaneOperations(moves=math.prod(self.output_shape(shapes, parameters)))


class Reshape(_Move):
    """Keeps the elements and their order; `shape` holds all axes after the first."""

    kind: Literal["reshape"] = "reshape"
    shape: tuple[Annotated[int, Field(ge=1)], ...]
    family: ClassVar[Family] = Family.REARRANGEMENT

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the new shape; the first axis takes the remaining size and follows the batch."""
        rows, rest = divmod(math.prod(shapes[0]), math.prod(self.shape))
        require(
            rest == 0, f"the shape {shapes[0]} cannot be divided into rows of shape {self.shape}"
        )
        return (rows, *self.shape)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Returns a view."""
        return inputs[0].reshape(-1, *self.shape)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function that returns a view, or a copy if the memory order differs."""

        def run(x: torch.Tensor) -> torch.Tensor:
            return x.reshape(-1, *self.shape)

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns no operations, because the elements are already in their places."""
        return LaneOperations()

    def axis_before(self, axis: int, shape: Shape, output: Shape) -> int | None:
        """Returns the axis of the input with as many elements and as many rows of them."""
        return _same_axis(output, axis, shape)

    def axis_behind(self, axis: int, shape: Shape, output: Shape) -> int | None:
        """Returns the axis of the result with as many elements and as many rows of them."""
        return _same_axis(shape, axis, output)


def _same_axis(shape: Shape, axis: int, other: Shape) -> int | None:
    """Returns the axis of another shape with as many elements and as many rows of them."""
    rows = math.prod(shape[:axis])
    for candidate, size in enumerate(other):
        if size == shape[axis] and math.prod(other[:candidate]) == rows:
            return candidate
    return None


class Permute(_Move):
    """Reorders the axes: `y.shape[i] = x.shape[order[i]]`. The batch stays first."""

    kind: Literal["permute"] = "permute"
    order: tuple[int, ...]
    family: ClassVar[Family] = Family.REARRANGEMENT

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the sizes of the axes in their new order."""
        require(
            self.order[:1] == (0,) and sorted(self.order) == list(range(len(shapes[0]))),
            f"{self.order} is not a permutation of the axes of {shapes[0]} that keeps the batch "
            "first",
        )
        return tuple(shapes[0][axis] for axis in self.order)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Returns a view."""
        return inputs[0].transpose(self.order)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function that returns a view."""

        def run(x: torch.Tensor) -> torch.Tensor:
            return x.permute(self.order)

        return run

    def axis_before(self, axis: int, shape: Shape, output: Shape) -> int | None:
        """Returns the axis of the input that `order` moves to this axis."""
        return self.order[axis]

    def axis_behind(self, axis: int, shape: Shape, output: Shape) -> int | None:
        """Returns the axis of the result that `order` moves this axis to."""
        return self.order.index(axis)


class Slice(_Move):
    """Takes a part of one axis: `y = x[..., start:stop:step, ...]` along `axis`."""

    kind: Literal["slice"] = "slice"
    axis: DataAxis
    start: Int64
    stop: Int64
    step: Annotated[int, Field(ge=1)]

    def _index(self) -> tuple[slice, ...]:
        return (*(slice(None),) * self.axis, slice(self.start, self.stop, self.step))

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the shape with the number of kept elements along `axis`."""
        kept = list(shapes[0])
        kept[self.axis] = len(
            range(*slice(self.start, self.stop, self.step).indices(kept[self.axis]))
        )
        return tuple(kept)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Returns a view."""
        return inputs[0][self._index()]

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function that returns a view."""
        index = self._index()

        def run(x: torch.Tensor) -> torch.Tensor:
            return x[index]

        return run


class Pad(_Move):
    """Adds constant elements before and after each axis; negative amounts crop."""

    kind: Literal["pad"] = "pad"
    amounts: tuple[tuple[Int64, Int64], ...]
    """One pair for every axis. The pair of the batch axis is (0, 0)."""
    value: Int64

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the shape with each axis changed by its pair."""
        require(
            self.amounts[0] == (0, 0)
            and all(
                size + min(before, 0) + min(after, 0) > 0
                for size, (before, after) in zip(shapes[0], self.amounts, strict=True)
            ),
            f"the amounts {self.amounts} crop an axis of {shapes[0]} completely, or change the "
            "batch axis",
        )
        return tuple(
            size + before + after
            for size, (before, after) in zip(shapes[0], self.amounts, strict=True)
        )

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the interval of the input and the constant."""
        return inputs[0].union(Interval(self.value, self.value))

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Crops the input first, then pads it."""
        x = inputs[0]
        crop = tuple(
            slice(max(0, -before), size - max(0, -after))
            for size, (before, after) in zip(x.shape, self.amounts, strict=True)
        )
        grow = [(max(0, before), max(0, after)) for before, after in self.amounts]
        return np.pad(x[crop], grow, constant_values=self.value)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function that pads in the dtype that also holds the constant."""
        dtype = carrier(self.output_interval(inputs, parameters))
        margins = [amount for pair in reversed(self.amounts) for amount in pair]

        def run(x: torch.Tensor) -> torch.Tensor:
            return torch.constant_pad_nd(x.to(dtype), margins, self.value)

        return run


class Gather(_Move):
    """Reads places of an axis: `y[..., j, ...] = x[..., index[j], ...]` along `axis`.

    It expresses upsampling, flips and reflections.
    """

    kind: Literal["gather"] = "gather"
    axis: DataAxis
    parameter_roles: ClassVar[tuple[str, ...]] = ("index",)
    learned_roles: ClassVar[tuple[str, ...]] = ()

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the shape with the length of the index along `axis`."""
        taken, index = list(shapes[0]), parameters["index"]
        require(
            index.ndim == 1
            and index.size > 0
            and 0 <= index.min() <= index.max() < taken[self.axis],
            f"the index is empty or reads outside axis {self.axis} of the shape {shapes[0]}",
        )
        taken[self.axis] = len(index)
        return tuple(taken)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Returns a copy."""
        return np.take(inputs[0], parameters["index"], axis=self.axis)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function that returns a copy."""
        index = torch.from_numpy(parameters["index"]).to(device)

        def run(x: torch.Tensor) -> torch.Tensor:
            return x.index_select(self.axis, index)

        return run


class Constant(Operator):
    """Integers that depend on no input and are the same for every sample of a batch."""

    kind: Literal["constant"] = "constant"
    input_count: ClassVar[int | None] = 0
    parameter_roles: ClassVar[tuple[str, ...]] = ("value",)
    learned_roles: ClassVar[tuple[str, ...]] = ("value",)
    family: ClassVar[Family] = Family.CONSTANT
    scaling: ClassVar[Scaling] = Scaling.OWN
    accumulates: ClassVar[bool] = False

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the constant's shape, whose first axis is 1 and broadcasts over the batch."""
        shape = parameters["value"].shape
        require(shape[:1] == (1,), f"the first axis of a constant must be 1, got the shape {shape}")
        return shape

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the range of the constant's values."""
        value = parameters["value"]
        return Interval(int(value.min()), int(value.max()))

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Returns a copy of the constant."""
        return parameters["value"].copy()

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function that returns the constant."""
        dtype = carrier(self.output_interval(inputs, parameters))
        value = torch.from_numpy(parameters["value"]).to(device, dtype)

        def run() -> torch.Tensor:
            return value.clone()

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns no operations, because the constant is in memory from the start."""
        return LaneOperations()
