"""The float model as it is captured and compared with: one way to call it, and one dtype."""

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
    """A model in evaluation mode, in float32, that is called with a list of tensors.

    The model that was given is not changed; it is copied where it is in training mode, of another
    dtype, or must be moved.

    Args:
        model: a module, or what `torch.export.export` made of one.
        names: of the model's inputs. Where its `forward` has parameters of these names it is called
            by name, else by position.
        device: where it computes; where it is if None.

    Attributes:
        module: what is called.
        batch: how many samples an exported program was specialised to; None where any number works.
            A call with another number is cut into pieces of that size.

    Raises:
        UsageError: it is no model.
        CaptureError: it cannot be copied.
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
                    f"got {len(inputs)}"
                )
            return tree_unflatten(list(inputs), self._structure)
        if self.names is None:
            return tuple(inputs), {}
        return (), dict(zip(self.names, inputs, strict=True))

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns the model's output tensors, in order, where the model is."""
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
    """Returns a module: an exported program as a module, a compiled module as what was compiled.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(model, ExportedProgram):
        return model.module()
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"a model must be a torch.nn.Module or an ExportedProgram, got {type(model).__name__}; "
            "put a function into the forward of a module"
        )
    compiled = getattr(model, "_orig_mod", None)
    return compiled if isinstance(compiled, nn.Module) else model


def takes_names(model: nn.Module, names: Sequence[str]) -> bool:
    """Tells whether the `forward` of a model takes each of these names as a keyword."""
    parameters = forward_parameters(model)
    kinds = {parameter.kind: name for name, parameter in parameters.items()}
    named = [name for name, p in parameters.items() if p.kind in BY_NAME]
    others = [name for name in names if name not in named]
    if not others or inspect.Parameter.VAR_KEYWORD not in kinds:
        return not others
    # torch.export calls what `*args` holds `args_0`, `args_1`, …
    starred = kinds.get(inspect.Parameter.VAR_POSITIONAL)
    return starred is None or not any(name.startswith(f"{starred}_") for name in others)


BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
"""The kinds of parameters that a call can give by name."""


def forward_parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a model's `forward` by name; none where it does not say."""
    try:
        return inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return {}


def flat(outputs: object) -> list[Tensor]:
    """Returns the tensors that a model returned, alone or in tuples, lists and dictionaries."""
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _prepared(module: nn.Module, device: str | None, *, evaluation: bool) -> nn.Module:
    """Returns the module, or a copy where something must change: mode, dtype or device."""
    tensors = [*module.parameters(), *module.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise CaptureError(
            f"{type(module).__name__} is on the meta device, which holds no values: load its "
            "weights first"
        )
    training = evaluation and any(part.training for part in module.modules())
    other = any(t.is_floating_point() and t.dtype != torch.float32 for t in tensors)
    if device is None and not training and not other:
        return module
    # Weights that a hook computed are no leaves, which deepcopy refuses: they are detached.
    computed = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        with warnings.catch_warnings():
            # Copying an exported program warns of PyTorch's own deprecations.
            warnings.simplefilter("ignore", FutureWarning)
            copied = copy.deepcopy(module, computed).float().requires_grad_(False)
        copied = copied if device is None else copied.to(device)
        return copied.eval() if evaluation else copied
    except Exception as error:
        raise CaptureError(f"{type(module).__name__} cannot be copied: {error}") from error


def _is_exported(module: nn.Module) -> bool:
    """Tells whether a module is the `.module()` of an exported program."""
    return isinstance(module, torch.fx.GraphModule) and hasattr(module, "_in_spec")


def _static_batch(module: Any) -> int | None:
    """Returns the number of samples that an exported program takes, where it is fixed."""
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
    """Yields pieces of one size; the last is filled up with samples that come again."""
    count = len(inputs[0])
    rows = torch.arange(math.ceil(count / size) * size).remainder(count)
    for places in rows.split(size):
        yield [x[places.to(x.device)] for x in inputs]
