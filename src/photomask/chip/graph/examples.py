"""Reads the example that a model is captured with, in all its forms."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from photomask.chip.data import LABEL_KEYS, as_tensor
from photomask.chip.graph.float_model import BY_NAME, forward_parameters
from photomask.chip.labels import label_tensor
from photomask.errors import DataError


def example_inputs(model: nn.Module, example: Any) -> tuple[list[Tensor], tuple[str, ...]]:
    """Returns one tensor for each input of a model, and the inputs' names where they were given.

    Labels are left out. In a pair `(inputs, labels)` they are the last entry, if it is one integer
    for each sample and `forward` does not need it. In a dictionary they are the keys `labels` and
    `label`, unless `forward` has such a parameter without a default.

    Args:
        model: the model.
        example: a tensor or an array, a tuple with one for each input, a dictionary by the names of
            `forward`'s parameters, or an iterable of batches such as a `DataLoader`, of which the
            first batch is taken.

    Raises:
        DataError: the example holds no tensors, or does not fit the parameters of `forward`.
    """
    if isinstance(example, Mapping):
        return _named(model, example)
    if (tensor := as_tensor(example)) is not None:
        return [tensor], ()
    if isinstance(example, (tuple, list)):
        return _in_order(model, list(example))
    if isinstance(example, Iterable) and not isinstance(example, (str, bytes)):
        first = next(iter(example), None)
        if first is not None:
            return example_inputs(model, first)
    raise DataError(
        "an example must be a tensor, a tuple with one tensor for each input, a dictionary of "
        f"tensors or a loader, got {type(example).__name__}"
    )


def _named(model: nn.Module, example: Mapping[Any, Any]) -> tuple[list[Tensor], tuple[str, ...]]:
    parameters = forward_parameters(model)
    names = [
        key
        for key in example
        if example[key] is not None and (key not in LABEL_KEYS or _is_needed(parameters, key))
    ]
    starred = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in names if name not in parameters]
    if unknown and parameters and not starred:
        raise DataError(
            f"the example has {unknown[0]!r}, which is no parameter of the model's forward "
            f"({', '.join(parameters)}); remove it"
        )
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in BY_NAME and _is_needed(parameters, name) and name not in names
    ]
    if missing:
        raise DataError(
            f"the example lacks {missing[0]!r}, which the model's forward needs; the example has "
            f"{', '.join(map(str, names)) or 'no inputs'}"
        )
    order = {name: place for place, name in enumerate(parameters)}
    names.sort(key=lambda name: order.get(name, len(order)))
    if not names:
        raise DataError(
            "the example must hold at least one input, but has "
            f"{', '.join(map(str, example)) or 'no keys'}"
        )
    return [_tensor(example[name], repr(name)) for name in names], tuple(map(str, names))


def _in_order(model: nn.Module, items: list[Any]) -> tuple[list[Tensor], tuple[str, ...]]:
    if items and isinstance(items[0], (tuple, list, Mapping)):  # (inputs, labels), or batches
        return example_inputs(model, items[0])
    if not items:
        raise DataError("the example holds no tensors; give one for each input of the model")
    last = as_tensor(items[-1])
    if last is None and isinstance(items[-1], (list, tuple)):
        whole = all(isinstance(x, int) for x in items[-1])
        last = label_tensor(items[-1], "the labels of the example") if whole else None
    if len(items) > 1 and last is not None and _is_label(last, as_tensor(items[0])):
        try:
            inspect.signature(model.forward).bind(*items[:-1])
        except (TypeError, ValueError):
            pass
        else:
            items = items[:-1]
    return [_tensor(item, f"entry {place}") for place, item in enumerate(items)], ()


def _is_label(last: Tensor, first: Tensor | None) -> bool:
    """Tells whether the last entry is one integer for each sample, which no input is."""
    samples = None if first is None or not first.ndim else len(first)
    return not last.is_floating_point() and last.ndim == 1 and len(last) == samples


def _is_needed(parameters: Mapping[str, inspect.Parameter], name: str) -> bool:
    found = parameters.get(name)
    return found is not None and found.default is inspect.Parameter.empty


def _tensor(value: Any, where: str) -> Tensor:
    tensor = as_tensor(value)
    if tensor is None:
        raise DataError(
            f"an example must hold tensors, but {where} of it is a {type(value).__name__}"
        )
    return tensor
