"""Lowers operators of transformers: softmax, attention, norms and embeddings."""

import math
from typing import Any

import torch
from torch import Tensor

from photomask.chip.graph.builder import (
    Call,
    CannotLower,
    EdgeName,
    Masked,
    Value,
    Visible,
)
from photomask.chip.graph.lowerings.masking import HIDDEN, as_visible
from photomask.chip.graph.lowerings.registry import BatchAxis, lowers
from photomask.chip.graph.operations import (
    Add,
    Constant,
    Embedding,
    Gather,
    Matmul,
    Normalize,
    Permute,
    Reshape,
    Softmax,
)


@lowers("softmax.int", "_softmax", batch=BatchAxis.NOT_LAST)
def _softmax(call: Call) -> Value:
    shape = call.result_shape
    axis = int(call["dim"]) % len(shape)  # type: ignore[call-overload]
    if axis == 0:
        raise CannotLower("it runs over the batch axis")
    given = call["self"]
    if isinstance(given, Masked):
        if axis != len(shape) - 1:
            raise CannotLower("its scores are masked, so it must run over the last axis")
        constants = {} if given.seen is None else {"mask": given.seen.float()}
        edges = [given.scores] if given.edge is None else [given.scores, given.edge]
        shares = call.emit(Softmax(), edges, constants)
        return shares if given.view is None else call.emit(Reshape(given.view[1:]), [shares])
    if axis == len(shape) - 1:
        return call.emit(Softmax(), [call.edge("self")])
    order = tuple(len(shape) - 1 if i == axis else axis if i == len(shape) - 1 else i
                  for i in range(len(shape)))  # fmt: skip
    swapped = call.emit(Permute(order), [call.edge("self")])
    return call.emit(Permute(order), [call.emit(Softmax(), [swapped])])


@lowers("scaled_dot_product_attention")
def _attention(call: Call) -> Value:
    """Lowers attention to `softmax(scale * Q Kᵀ + mask) V`, with an operation for each product."""
    if call["dropout_p"]:
        raise CannotLower("it drops elements at random")
    query, key, value = (call.edge(name) for name in ("query", "key", "value"))
    shape, heads = call.shape("query"), call.shape("key")[-3]
    if call.get("enable_gqa") and shape[-3] != heads:
        index = tuple(head // (shape[-3] // heads) for head in range(shape[-3]))
        key, value = (call.emit(Gather(len(shape) - 3, index), [edge]) for edge in (key, value))
    rank = len(shape)
    order = (*range(rank - 2), rank - 1, rank - 2)
    given: Any = call["scale"]
    scale = float(given) if given is not None else 1 / math.sqrt(shape[-1])
    scores = call.emit(Matmul(scale), [query, call.emit(Permute(order), [key])])
    plain = call.builder.shapes[scores][1:]
    given = call["attn_mask"]
    if isinstance(given, (EdgeName, Visible)):
        weights = _seen(call, scores, given)
    else:
        scores, constants = _masked(call, scores)
        weights = call.emit(Softmax(), [scores], constants)
    if call.builder.shapes[weights][1:] != plain:
        weights = call.emit(Reshape(plain), [weights])
    return call.emit(Matmul(), [weights, value])


def _seen(call: Call, scores: EdgeName, given: EdgeName | Visible) -> EdgeName:
    """Returns the softmax of scores that are masked by an integer input."""
    visible = as_visible(call, given)
    if visible is None:
        raise CannotLower(
            "its mask depends on the input and is no integer input, so the numbers that it adds to "
            "scores are not proven to be 0 or to hide elements"
        )
    if visible.form == "hidden":
        raise CannotLower("its mask must be true where elements are visible, not where it hides")
    constants, mask = {}, visible.constant
    if not bool(mask.all()):
        shape = call.builder.shapes[scores]
        constants["mask"] = mask.reshape(mask.shape[mask.ndim - len(shape) + 1 :]).float()
    return call.emit(Softmax(), [scores, visible.edge], constants)


@lowers("__and__", "bitwise_and", "logical_and")
def _and(call: Call) -> Value:
    """Lowers the conjunction of an integer input and a constant, as masks."""
    first, second = call["self"], call["other"]
    known, edge = (first, second) if isinstance(first, Tensor) else (second, first)
    if not isinstance(known, Tensor) or not isinstance(edge, (EdgeName, Visible)):
        raise CannotLower("one of the two masks must be constant")
    if isinstance(edge, EdgeName) and edge not in call.builder.rows:
        raise CannotLower("it is a logical operation on activations; only masks may be combined")
    if known.ndim and len(known) == call.builder.batch and bool((known == known[:1]).all()):
        known = known[:1]
    if isinstance(edge, Visible):
        return Visible(edge.edge, edge.constant & known)
    return edge if bool(known.all()) else Visible(edge, known)


def _masked(call: Call, scores: EdgeName) -> tuple[EdgeName, dict[str, Tensor]]:
    """Returns the scores with their constant addend, and a constant mask if elements are hidden.

    Where each of several parts of a sample, such as windows, has its own mask, the parts become an
    axis.
    """
    shape = call.builder.shapes[scores]
    given: Any = call["attn_mask"]
    if call["is_causal"]:
        return scores, {"mask": torch.ones(shape[-2:]).tril()}
    if given is None:
        return scores, {}
    if not isinstance(given, Tensor):
        raise CannotLower("its mask depends on the input")
    mask = given.reshape((1,) * (len(shape) - given.ndim) + tuple(given.shape))
    batch = call.builder.batch
    if len(mask) == batch * shape[0]:
        mask = mask.reshape(batch, shape[0], *mask.shape[1:])
        if not bool((mask == mask[:1]).all()):
            raise CannotLower("its mask differs from sample to sample")
        mask = mask[0]
    parts = len(mask) > 1
    if parts:
        scores = call.emit(Reshape(shape), [scores])
    mask = mask if parts else mask[0]
    if mask.dtype is torch.bool:
        return scores, {} if bool(mask.all()) else {"mask": mask.float()}
    return add_scores(call, scores, mask)


def add_scores(call: Call, scores: EdgeName, added: Tensor) -> tuple[EdgeName, dict[str, Tensor]]:
    """Splits the addend of each sample's scores into a mask and a remaining constant.

    Returns:
        The scores with the remaining constant added, and the mask as a constant if it is needed.
    """
    hides = added <= HIDDEN
    left = added.masked_fill(hides, 0.0)
    if bool(left.any()):
        value = left.reshape((1,) * (len(call.builder.shapes[scores]) - left.ndim) + left.shape)
        bias = call.emit(Constant(), [], {"value": value})
        scores = call.emit(Add((1, 1)), [scores, bias])
    return scores, {"mask": (~hides).float()} if bool(hides.any()) else {}


@lowers("embedding", batch=BatchAxis.NOT_LAST)
def _embedding(call: Call) -> Value:
    return call.emit(Embedding(), [call.edge("indices")], {"table": call.constant("weight")})


@lowers("layer_norm", "native_layer_norm", batch=BatchAxis.NOT_LAST)
def _layer_norm(call: Call) -> Value:
    sizes: Any = call["normalized_shape"]
    if len(sizes) != 1:
        raise CannotLower("it normalizes several axes at once; only the last one is supported")
    edge = _normalized(call, centred=True, epsilon=call["eps"])
    return (edge,) if "native" in str(call.traced.target) else edge


@lowers("rms_norm", batch=BatchAxis.NOT_LAST)
def _rms_norm(call: Call) -> Value:
    sizes: Any = call["normalized_shape"]
    if len(sizes) != 1:
        raise CannotLower("it normalizes several axes at once; only the last one is supported")
    epsilon: Any = call["eps"]
    epsilon = torch.finfo(torch.float32).eps if epsilon is None else epsilon
    return _normalized(call, centred=False, epsilon=epsilon)


def _normalized(call: Call, *, centred: bool, epsilon: Any) -> EdgeName:
    edge = call.edge("input")
    channels = call.builder.shapes[edge][-1]
    given = call["weight"], call.get("bias")
    gain, bias = (
        tensor.detach() if isinstance(tensor, Tensor) else torch.full((channels,), default)
        for tensor, default in zip(given, (1.0, 0.0), strict=True)
    )
    made_of: dict[str, tuple[Tensor, ...]] = {
        role: ()
        for role, tensor in zip(("gain", "bias"), given, strict=True)
        if not isinstance(tensor, Tensor)
    }
    constants = {"gain": gain, "bias": bias}
    return call.emit(Normalize(centred, float(epsilon)), [edge], constants, made_of)
