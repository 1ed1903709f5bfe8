"""Lowers operators that move elements and do not change them."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.chip.graph.batch_axis import reshape_with_batch
from photomask.chip.graph.builder import (
    BatchBehind,
    Call,
    CannotLower,
    EdgeName,
    Masked,
    Value,
)
from photomask.chip.graph.lowerings.masking import as_visible
from photomask.chip.graph.lowerings.reducing import as_index, positions
from photomask.chip.graph.lowerings.registry import lowers
from photomask.chip.graph.operations import Concatenate, Gather, Pad, Permute, Reshape, Slice


@lowers(
    "clone",
    "dropout",
    "feature_dropout",
    "alias",
    "contiguous",
    "detach",
    "lift_fresh_copy",
    "alpha_dropout",
    "feature_alpha_dropout",
    "native_dropout",
    "type_as",
    "_to_copy",
    "to",
)
def _identity(call: Call) -> Value:
    value = call.traced.meta["val"]
    given = call["self"] if "self" in call.arguments else call["input"]
    mask = as_visible(call, given)
    if mask is not None:
        if not value.is_floating_point() or mask.form not in ("seen", "hidden"):
            return given  # type: ignore[return-value]
        if not bool(mask.constant.all()):
            raise CannotLower("it converts a mask that was combined with another to numbers")
        return replace(mask, form="one_seen" if mask.form == "seen" else "one_hidden")
    elif isinstance(value, Tensor) and not value.is_floating_point():
        raise CannotLower(f"it converts activations to {value.dtype}; keep them floating point")
    if call.get("train") and "dropout" in str(call.traced.target):
        raise CannotLower("it drops elements at random")
    source: Any = call["self"] if "self" in call.arguments else call["input"]
    return source


@lowers(
    "view",
    "reshape",
    "_unsafe_view",
    "flatten",
    "unflatten",
    "squeeze",
    "unsqueeze",
    "view_as",
    "view_copy",
    "reshape_as",
    "ravel",
    "_reshape_copy",
    moves_masks=True,
)
def _reshape(call: Call) -> Value:
    given = call["self" if "self" in call.arguments else "input"]
    whole = tuple(call.traced.meta["val"].shape)
    if isinstance(given, Masked) and whole[-1] == call.builder.shapes[given.scores][-1]:
        return replace(given, view=call.result_shape)
    one = call.builder.batch > 1 and whole[:1] == (1,)
    if isinstance(given, BatchBehind) or (isinstance(given, EdgeName) and one):
        return reshape_with_batch(call, given, whole)
    edge = call.edge("self" if "self" in call.arguments else "input")
    shape = call.result_shape
    if shape == call.builder.shapes[edge]:
        return edge
    return call.emit(Reshape(shape[1:]), [edge])


@lowers(
    "permute",
    "transpose",
    "movedim",
    "t",
    "swapaxes",
    "swapdims",
    "moveaxis",
    "mT",
    moves_masks=True,
)
def _permute(call: Call) -> Value:
    edge, axes = _placed(call)
    arguments: Any = [call[name] for name in call.arguments if name != "self"]
    order = [axes[axis] for axis in _axis_order(call, len(axes), arguments)]
    batch_first = (0, *(axis for axis in order if axis))
    if batch_first != tuple(range(len(axes))):
        edge = call.emit(Permute(batch_first), [edge])
    return _batch_at(edge, order.index(0))


def _placed(call: Call) -> tuple[EdgeName, tuple[int, ...]]:
    """Returns the edge of `self`, and for each axis of the model's tensor the axis of the edge."""
    value = call["self"]
    if not isinstance(value, BatchBehind):
        edge = call.edge("self")
        return edge, tuple(range(len(call.builder.shapes[edge])))
    if value.outer > 1:
        raise CannotLower("it moves an axis that holds the batch together with other elements")
    axes = list(range(1, len(call.builder.shapes[value.edge])))
    axes.insert(value.axis, 0)
    return value.edge, tuple(axes)


def _batch_at(edge: EdgeName, axis: int) -> Value:
    return BatchBehind(edge, axis) if axis else edge


def _axis_order(call: Call, rank: int, arguments: list[object]) -> tuple[int, ...]:
    """Returns the order of axes that the operator makes.

    The operator is applied to a tensor whose axis `i` has the size `i + 1`, so that the sizes of
    the result tell the order.
    """
    target: Any = call.traced.target
    moved = target(torch.empty(list(range(1, rank + 1)), device="meta"), *arguments)
    return tuple(size - 1 for size in moved.shape)


@lowers("slice", "narrow", "select", moves_masks=True)
def _slice(call: Call) -> Value:
    edge, axes = _placed(call)
    shape = call.builder.shapes[edge]
    dim: Any = call["dim"]
    at = dim % len(shape)
    axis = axes[at]
    size = shape[axis] if axis else shape[axis] * call.builder.batch
    if "select" in str(call.traced.target):
        index: Any = call["index"]
        start = index % size
        stop = index % size + 1
        step = 1
    elif "narrow" in str(call.traced.target):
        begin: Any = call["start"]
        length: Any = call["length"]
        start = begin
        stop = begin + length
        step = 1
    else:
        start, stop, step = slice(call["start"], call["end"], call["step"]).indices(size)
    if (start, stop, step) != (0, size, 1):
        if axis == 0:
            raise CannotLower("it selects along the batch axis")
        edge = call.emit(Slice(axis, start, max(start, stop), step), [edge])
    batch = axes.index(0)
    if "select" in str(call.traced.target):
        edge, batch = _without(call, edge, axis), batch - (at < batch)
    return _batch_at(edge, batch)


def _without(call: Call, edge: EdgeName, axis: int) -> EdgeName:
    """Returns an edge with an axis of one element removed."""
    shape = call.builder.shapes[edge]
    return call.emit(Reshape((*shape[1:axis], *shape[axis + 1 :])), [edge])


@lowers("split", "split_with_sizes", "chunk", "unbind", "unsafe_split", "unsafe_chunk")
def _split(call: Call) -> Value:
    edge, axes = _placed(call)
    dim: Any = call["dim"]
    at = dim % len(axes)
    axis, batch = axes[at], axes.index(0)
    if axis == 0:
        raise CannotLower("it splits the batch axis")
    unbinds = "unbind" in str(call.traced.target)
    pieces: list[Value] = []
    start = 0
    for result in call.traced.meta["val"]:
        length = 1 if unbinds else result.shape[at]
        piece = call.emit(Slice(axis, start, start + length, 1), [edge])
        piece = _without(call, piece, axis) if unbinds else piece
        pieces.append(_batch_at(piece, batch - (unbinds and at < batch)))
        start += length
    return tuple(pieces)


@lowers("stack")
def _stack(call: Call) -> Value:
    shape = call.result_shape
    dim: Any = call["dim"]
    axis = dim % len(shape)
    items: Any = call["tensors"]
    if axis == 0 or not all(isinstance(item, EdgeName) for item in items):
        raise CannotLower("it stacks along the batch axis or with a constant")
    widened = (*shape[1:axis], 1, *shape[axis + 1 :])
    return call.emit(Concatenate(axis), [call.emit(Reshape(widened), [item]) for item in items])


@lowers("expand", "expand_as", "broadcast_to", moves_masks=True)
def _expand(call: Call) -> Value:
    if call.traced.meta["val"].dtype is torch.bool:  # a mask needs no copies, since it broadcasts
        mask: Any = call["self"]
        return mask
    edge, shape = call.edge("self"), call.result_shape
    old = call.builder.shapes[edge]
    if len(old) != len(shape) or old[0] != shape[0]:
        raise CannotLower("it adds axes or repeats the batch")
    for axis, (before, after) in enumerate(zip(old, shape, strict=True)):
        if before != after:
            edge = call.emit(Gather(axis, (0,) * after), [edge])
    return edge


@lowers("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d")
@lowers("replication_pad1d", "replication_pad2d", "_pad_circular")
def _pad(call: Call) -> Value:
    shape = call.shape("self")
    amounts: Any = call["pad"] if "pad" in call.arguments else call["padding"]
    name = str(call.traced.target)
    mode = call.get("mode") or (
        "reflect"
        if "reflection" in name
        else "replicate"
        if "replication" in name
        else "circular"
        if "circular" in name
        else "constant"
    )
    pairs = [(0, 0)] * len(shape)
    for axis, pair in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        pairs[len(shape) - 1 - axis] = pair
    if pairs[0] != (0, 0):
        raise CannotLower("it pads the batch axis")
    edge = call.edge("self")
    if mode == "constant":
        value: Any = call.get("value")
        return call.emit(Pad(tuple(pairs), float(value or 0.0)), [edge])
    torch_mode: Any = mode
    for axis, (before, after) in enumerate(pairs):
        if (before, after) != (0, 0):
            padded = F.pad(positions(shape[axis]), (before, after), mode=torch_mode)
            edge = call.emit(Gather(axis, as_index(padded)), [edge])
    return edge


@lowers("pixel_shuffle")
def _pixel_shuffle(call: Call) -> Value:
    _, channels, height, width = call.shape("self")
    factor: Any = call["upscale_factor"]
    edge = call.emit(
        Reshape((channels // factor**2, factor, factor, height, width)), [call.edge("self")]
    )
    edge = call.emit(Permute((0, 1, 4, 2, 5, 3)), [edge])
    return call.emit(Reshape(call.result_shape[1:]), [edge])


@lowers("pixel_unshuffle")
def _pixel_unshuffle(call: Call) -> Value:
    _, channels, height, width = call.shape("self")
    factor: Any = call["downscale_factor"]
    edge = call.emit(
        Reshape((channels, height // factor, factor, width // factor, factor)), [call.edge("self")]
    )
    edge = call.emit(Permute((0, 1, 3, 5, 2, 4)), [edge])
    return call.emit(Reshape(call.result_shape[1:]), [edge])


@lowers("channel_shuffle")
def _channel_shuffle(call: Call) -> Value:
    _, channels, *_ = call.shape("self")
    groups: Any = call["groups"]
    index = torch.arange(channels).reshape(groups, channels // groups).t().reshape(-1)
    return call.emit(Gather(1, tuple(int(i) for i in index)), [call.edge("self")])


@lowers("flip", "roll", "index_select")
def _permuted_elements(call: Call) -> Value:
    shape = call.shape("self")
    target: Any = call.traced.target
    edge = call.edge("self")
    if "index_select" in str(target):
        dim: Any = call["dim"]
        if dim % len(shape) == 0:
            raise CannotLower("it selects along the batch axis")
        index = tuple(int(i) for i in call.constant("index"))
        return call.emit(Gather(dim % len(shape), index), [edge])
    dims: Any = call["dims"]
    if not dims or any(dim % len(shape) == 0 for dim in dims):
        raise CannotLower("it moves elements along the batch axis")
    shifts: Any = call.get("shifts") or [None] * len(dims)
    for dim, shift in zip(dims, shifts, strict=True):
        places = torch.arange(shape[dim % len(shape)])
        moved = places.flip(0) if shift is None else places.roll(shift)
        edge = call.emit(Gather(dim % len(shape), tuple(int(i) for i in moved)), [edge])
    return edge


@lowers("index")
def _index(call: Call) -> Value:
    """Lowers an index that is one list of positions along one axis, as in `x[:, [2, 0, 1]]`.

    The index may also name every sample, as in `x[samples[:, None], positions]`.
    """
    indices: Any = call["indices"]
    given = [axis for axis, index in enumerate(indices) if index is not None]
    if given == [0, 1] and _names_every_sample(call, indices):
        gathered = call.emit(Gather(1, as_index(indices[1])), [call.edge("self")])
        return call.emit(Reshape(call.result_shape[1:]), [gathered])
    index = indices[given[0]]
    if len(given) != 1 or given[0] == 0 or not isinstance(index, Tensor) or index.ndim != 1:
        raise CannotLower("its index must be one constant list along one axis besides the batch")
    places = torch.arange(call.shape("self")[given[0]])[index]
    return call.emit(Gather(given[0], as_index(places)), [call.edge("self")])


def _names_every_sample(call: Call, indices: Any) -> bool:
    """Tells whether `x[samples, places]` is `x[:, places]`."""
    samples, places = indices[:2]
    if not (isinstance(samples, Tensor) and isinstance(places, Tensor)):
        return False
    batch = call.builder.batch
    return samples.numel() == len(samples) == batch and (
        samples.ndim == places.ndim
        and places.shape[0] == 1
        and bool((samples.reshape(-1) == torch.arange(batch)).all())
    )


@lowers("copy")
def _copy(call: Call) -> Value:
    """Lowers an assignment to a whole tensor, whose result is the assigned tensor."""
    source = call.edge("src")
    if call.builder.shapes[source] != call.result_shape:
        raise CannotLower("it broadcasts the assigned tensor; assign one of the full shape")
    return source


@lowers("slice_scatter", "select_scatter")
def _scatter(call: Call) -> Value:
    """Lowers `x[:, :2] = y` to a concatenation of `y` with the parts of `x` before and after it."""
    shape = call.shape("self")
    dim: Any = call["dim"]
    axis = dim % len(shape)
    source, target = call.edge("src"), call.edge("self")
    if axis == 0:
        raise CannotLower("it assigns along the batch axis")
    if "select" in str(call.traced.target):
        index: Any = call["index"]
        start = index % shape[axis]
        stop = index % shape[axis] + 1
        step = 1
        source = call.emit(Reshape((*shape[1:axis], 1, *shape[axis + 1 :])), [source])
    else:
        start, stop, step = slice(call["start"], call["end"], call["step"]).indices(shape[axis])
    if (start, stop, step) == (0, shape[axis], 1):
        return source
    if start >= stop:
        return target
    if step != 1:
        raise CannotLower("it assigns with a step; only steps of 1 are supported")
    parts = [source]
    if start > 0:
        parts.insert(0, call.emit(Slice(axis, 0, start, 1), [target]))
    if stop < shape[axis]:
        parts.append(call.emit(Slice(axis, stop, shape[axis], 1), [target]))
    return call.emit(Concatenate(axis), parts)


@lowers("repeat_interleave.self_int")
def _repeat_interleave(call: Call) -> Value:
    dim: Any = call["dim"]
    shape = call.shape("self")
    if dim is None or dim % len(shape) == 0:
        raise CannotLower("it repeats along the batch axis")
    repeats: Any = call["repeats"]
    places = torch.arange(shape[dim % len(shape)]).repeat_interleave(repeats)
    return call.emit(Gather(dim % len(shape), as_index(places)), [call.edge("self")])


@lowers("repeat", "tile")
def _repeat(call: Call) -> Value:
    edge = call.edge("self")
    shape = call.builder.shapes[edge]
    repeats: Any = call["repeats"] if "repeats" in call.arguments else call["dims"]
    repeats = [1] * (len(shape) - len(repeats)) + list(repeats)
    if len(repeats) != len(shape) or repeats[0] != 1:
        raise CannotLower("it adds axes or repeats the batch")
    for axis, amount in enumerate(repeats):
        if amount != 1:
            edge = call.emit(Gather(axis, tuple(range(shape[axis])) * amount), [edge])
    return edge
