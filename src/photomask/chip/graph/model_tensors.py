"""Finds out which tensors of the model a constant of the graph was made of."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModelView:
    """Elements of one tensor of the model, in the order of a constant of the graph.

    Attributes:
        tensor: the name of the parameter or buffer in the model's `state_dict`.
        shape: the shape of the constant.
        stride: the distances in memory between neighbours along each axis of the constant.
        offset: the place in memory of the constant's first element, from that of the tensor.
        tensor_shape: the shape of the tensor of the model.
        tensor_stride: the distances in memory between neighbours along each axis of that tensor.
    """

    tensor: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    tensor_shape: tuple[int, ...]
    tensor_stride: tuple[int, ...]

    def elements(self) -> Tensor:
        """Returns for each element of the constant its place in the flattened model tensor."""
        reach = 1 + sum(
            (n - 1) * s for n, s in zip(self.tensor_shape, self.tensor_stride, strict=True)
        )
        memory = torch.zeros(reach, dtype=torch.int64)
        places = torch.arange(math.prod(self.tensor_shape))
        memory.as_strided(self.tensor_shape, self.tensor_stride).copy_(
            places.reshape(self.tensor_shape)
        )
        return memory.as_strided(self.shape, self.stride, self.offset)

    def line(self, axis: int) -> tuple[int, Tensor] | None:
        """Returns what an axis of the constant is in the model's tensor.

        Returns:
            The axis of the model's tensor and the index there for each index of the constant's
            axis; None if the constant's axis is none of the tensor's, as in a reshaped weight.
        """
        places = self.offset + torch.arange(self.shape[axis]) * self.stride[axis]
        found = torch.zeros(len(self.tensor_shape), len(places), dtype=torch.int64)
        order = sorted(
            (i for i, size in enumerate(self.tensor_shape) if size > 1),
            key=lambda i: -self.tensor_stride[i],
        )
        for i in order:
            found[i] = places // self.tensor_stride[i]
            places = places % self.tensor_stride[i]
        moving = [i for i in order if bool((found[i] != found[i, :1]).any())]
        if len(moving) == 1:
            return moving[0], found[moving[0]]
        if moving or self.shape[axis] != 1:
            return None
        # One element along the axis: the tensor's axis of one element at the same place.
        same = axis < len(self.tensor_shape) and self.tensor_shape[axis] == 1
        return (axis, found[axis]) if same else None


Made = Mapping[str, "tuple[ModelView, ...] | None"]
"""By constant, the model's tensors that each of its elements is computed from, elementwise.

An empty tuple stands for a constant that a lowering made itself, such as the bias of a layer that
has none. None stands for a constant that the model computes in another way.
"""


def views_of(given: Mapping[str, Sequence[Tensor]], tensors: Mapping[str, Tensor]) -> Made:
    """Finds the constants' parts in the memory of the model's tensors.

    Args:
        given: by constant, the tensors that it was made of.
        tensors: the parameters and buffers of the model by name; of tied ones, the first counts.
    """
    owners: dict[int, list[tuple[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.numel():
            owners.setdefault(tensor.untyped_storage().data_ptr(), []).append((name, tensor))
    made: dict[str, tuple[ModelView, ...] | None] = {}
    for constant, parts in given.items():
        views = [
            _view_of(part, owners.get(part.untyped_storage().data_ptr(), [])) for part in parts
        ]
        found = tuple(view for view in views if view is not None)
        made[constant] = found if len(found) == len(views) else None
    return made


def _view_of(part: Tensor, owners: Iterable[tuple[str, Tensor]]) -> ModelView | None:
    for name, tensor in owners:
        start = int(part.storage_offset()) - int(tensor.storage_offset())
        reach = sum((n - 1) * s for n, s in zip(part.shape, part.stride(), strict=True))
        whole = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        if start >= 0 and start + reach <= whole:
            return ModelView(
                name,
                tuple(part.shape),
                tuple(part.stride()),
                start,
                tuple(tensor.shape),
                tuple(tensor.stride()),
            )
    return None
