"""The order in which the elements of a tensor lie in memory."""

from dataclasses import dataclass

import numpy as np

from photomask.chip.program import IntegerProgram, Step
from photomask.chip.program.feature_maps import feature_maps

SPATIAL_NAMES = {1: "W", 2: "HW", 3: "DHW"}


@dataclass(frozen=True)
class ElementOrder:
    """A memory order: a permutation of a tensor's axes, with a name."""

    name: str
    """The letters of the axes from the slowest to the fastest, such as "NHWC", or "row_major"."""
    axes: tuple[int, ...]
    """The numbers of the tensor's own axes, from the slowest to the fastest."""

    def flatten(self, tensor: np.ndarray) -> np.ndarray:
        """Returns the tensor's elements in memory order."""
        return np.ascontiguousarray(tensor.transpose(self.axes)).reshape(-1)

    def restore(self, flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the tensor of `shape` whose elements lie in `flat` in memory order."""
        permuted = flat.reshape([shape[axis] for axis in self.axes])
        return permuted.transpose(np.argsort(self.axes))

    def coordinate(self, position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the index, in the tensor's own axes, of the element at `position`."""
        permuted = np.unravel_index(position, [shape[axis] for axis in self.axes])
        index = dict(zip(self.axes, permuted, strict=True))
        return tuple(int(index[axis]) for axis in range(len(shape)))


def row_major(shape: tuple[int, ...]) -> ElementOrder:
    """Returns the order in which the last axis is the fastest."""
    return ElementOrder("row_major", tuple(range(len(shape))))


def tensor_order(program: IntegerProgram, step: Step, role: str) -> ElementOrder:
    """Returns the memory order of a constant tensor of a step.

    Weights have the order `target.weight_layout`; all other tensors are row major. A weight has the
    shape [outputs, inputs, *kernel], so its layout is OIHW, OHWI or HWIO.
    """
    shape = program.tensors[step.tensors[role]].shape
    if role != "weight":
        return row_major(shape)
    kernel = tuple(range(2, len(shape)))
    axes = {
        "output_input_kernel": (0, 1, *kernel),
        "output_kernel_input": (0, *kernel, 1),
        "kernel_input_output": (*kernel, 1, 0),
    }[program.target.weight_layout]
    return ElementOrder(_named(axes, "OI"), axes)


def edge_orders(program: IntegerProgram) -> dict[str, ElementOrder]:
    """Returns the memory order of every edge.

    Feature maps have the order `target.activation_layout`; all other edges are row major.
    """
    maps = feature_maps(program)
    last = program.target.activation_layout == "channels_last"
    orders = {}
    for name, edge in program.edges.items():
        spatial = tuple(range(2, len(edge.shape)))
        axes = (0, *spatial, 1) if last else (0, 1, *spatial)
        orders[name] = (
            ElementOrder(_named(axes, "NC"), axes) if name in maps else row_major(edge.shape)
        )
    return orders


def axis_names(order: ElementOrder, rank: int) -> tuple[str, ...]:
    """Returns a lower-case letter for each of a tensor's own axes.

    A row-major tensor has the names `axis0`, `axis1`, and so on.
    """
    if order.name == "row_major":
        return tuple(f"axis{axis}" for axis in range(rank))
    letters = dict(zip(order.axes, order.name.lower(), strict=True))
    return tuple(letters[axis] for axis in range(rank))


def _named(axes: tuple[int, ...], leading: str) -> str:
    letters = leading + (SPATIAL_NAMES[len(axes) - 2] if len(axes) > 2 else "")
    return "".join(letters[axis] for axis in axes)
