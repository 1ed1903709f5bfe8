"""Wraps a float model with one way to call it and one dtype, for capture and comparison."""

import copy
import inspect
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves, tree_unflatten

from photomask.chip.default_dtype import float32_by_default
from photomask.errors import CaptureError, UsageError


class FloatModel:
    """A model in evaluation mode and in float32 that is called with a list of tensors.

    The given model is not changed. It is copied if it is in training mode, has another dtype, or
    must be moved to another device.

    Args:
        model: a module, or an exported program.
        names: the names of the inputs. If `forward` has parameters of these names, the model is
            called by name, otherwise by position.
        device: the device of the model; None for its own.

    Attributes:
        module: the module that is called.
        batch: the number of samples that an exported program is specialized to; None if any number
            works. A call with another number is split into pieces of that size.

    Raises:
        UsageError: the model is neither a module nor an exported program.
        CaptureError: the model cannot be copied.
    """

    def __init__(
        self,
        model: nn.Module | ExportedProgram,
        names: Sequence[str] = (),
        device: str | None = None,
    ):
        module = as_module(model)
        self._structure: Any = getattr(module, "_in_spec", None) if _is_exported(module) else None
        self.batch = None if self._structure is None else _static_batch(module)
        self.module = _prepared(module, device, evaluation=self._structure is None)
        tensor = next(iter((*self.module.parameters(), *self.module.buffers())), None)
        self.device = torch.device("cpu") if tensor is None else tensor.device
        self.names = tuple(names) if names and takes_names(self.module, names) else None

    def arguments(self, inputs: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the positional and named arguments of a call."""
        if self._structure is not None:
            if len(inputs) != self._structure.num_leaves:
                raise UsageError(
                    f"the exported program takes {self._structure.num_leaves} tensors, "
                    f"got {len(inputs)}; give one for each input of the export"
                )
            return tree_unflatten(list(inputs), self._structure)
        if self.names is None:
            return tuple(inputs), {}
        return (), dict(zip(self.names, inputs, strict=True))

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns the model's output tensors in order, on the model's device."""
        moved = [x.to(self.device) for x in inputs]
        if self.batch is None or len(moved[0]) == self.batch:
            return self._run(moved)
        count = len(moved[0])
        pieces = [self._run(piece) for piece in _pieces(moved, self.batch)]
        return [torch.cat(parts)[:count] for parts in zip(*pieces, strict=True)]

    def _run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        args, kwargs = self.arguments([x.clone() for x in inputs])
        with torch.no_grad(), float32_by_default():
            return flat(self.module(*args, **kwargs))


def as_module(model: object) -> nn.Module:
    """Returns a model as a module; a compiled module becomes the module before compilation.

    Raises:
        UsageError: the model is neither a module nor an exported program.
    """
    if isinstance(model, ExportedProgram):
        return model.module()
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"a model must be a torch.nn.Module or an ExportedProgram, got {type(model).__name__}; "
            "call a function in the forward of a module"
        )
    compiled = getattr(model, "_orig_mod", None)
    return compiled if isinstance(compiled, nn.Module) else model


def takes_names(model: nn.Module, names: Sequence[str]) -> bool:
    """Tells whether a model's `forward` accepts each of these names as a keyword argument."""
    parameters = forward_parameters(model)
    kinds = {parameter.kind: name for name, parameter in parameters.items()}
    named = [name for name, p in parameters.items() if p.kind in BY_NAME]
    others = [name for name in names if name not in named]
    if not others or inspect.Parameter.VAR_KEYWORD not in kinds:
        return not others
    # torch.export names the arguments in `*args` `args_0`, `args_1` and so on.
    starred = kinds.get(inspect.Parameter.VAR_POSITIONAL)
    return starred is None or not any(name.startswith(f"{starred}_") for name in others)


BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
"""The kinds of parameters that a call can pass by name."""


def forward_parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a model's `forward` by name; none if they are unknown."""
    try:
        return inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return {}


def flat(outputs: object) -> list[Tensor]:
    """Returns a model's output tensors as a list, also from tuples, lists and dictionaries."""
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _prepared(module: nn.Module, device: str | None, *, evaluation: bool) -> nn.Module:
    """Returns the module, or a copy if its mode, dtype or device must change.

    Raises:
        CaptureError: the module holds no values, or cannot be copied.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise CaptureError(
            f"{type(module).__name__} is on the meta device, which holds no values; load its "
            "weights first"
        )
    training = evaluation and any(part.training for part in module.modules())
    other = any(t.is_floating_point() and t.dtype != torch.float32 for t in tensors)
    if device is None and not training and not other:
        return module
    # Weights that a hook computed are no autograd leaves. They are detached, because deepcopy
    # refuses tensors that are no leaves.
    computed = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        with warnings.catch_warnings():
            # PyTorch warns of deprecations in its own code when an exported program is copied.
            warnings.simplefilter("ignore", FutureWarning)
            copied = copy.deepcopy(module, computed).float().requires_grad_(False)
        copied = copied if device is None else copied.to(device)
        return copied.eval() if evaluation else copied
    except Exception as error:
        raise CaptureError(f"{type(module).__name__} cannot be copied: {error}") from error


def _is_exported(module: nn.Module) -> bool:
    """Tells whether a module is the result of an exported program's `module()`."""
    return isinstance(module, torch.fx.GraphModule) and hasattr(module, "_in_spec")


def _static_batch(module: Any) -> int | None:
    """Returns the fixed number of samples of an exported program, or None if it is free."""
    values = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
    sizes = [v.shape[0] for v in values if isinstance(v, Tensor) and v.ndim]
    fixed = {int(size) for size in sizes if not isinstance(size, torch.SymInt)}
    if len(fixed) > 1:
        raise CaptureError(
            f"the exported program's inputs have {sorted(fixed)} samples; axis 0 of every input "
            "must be the batch"
        )
    return fixed.pop() if fixed else None


def _pieces(inputs: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Yields pieces of equal size; the last one is filled up with repeated samples."""
    count = len(inputs[0])
    rows = torch.arange(math.ceil(count / size) * size).remainder(count)
    for places in rows.split(size):
        yield [x[places.to(x.device)] for x in inputs]
