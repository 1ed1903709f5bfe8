"""Where the time of one prefill goes: marks around attention and around the linear layers.

On a GPU marks are events between its kernels, which cost nothing that can be measured; elsewhere
they are readings of the clock.
"""

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ours import RedGateError
from prefill_contenders import Contender
from random_qwen import LongPrompt

PARTS = ("attention", "linear layers", "schedule", "rest")
"""What a pass is made of: `schedule` is what the first layer's attention takes beyond the others',
and `rest` norms, rotary embedding, residuals, activations, cache, embedding and the hooks."""

Span = tuple[Any, Any]


class Clock:
    """Marks moments on a device."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"

    def mark(self) -> Any:
        """Returns now, as the device sees it."""
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, span: Span) -> float:
        """Returns how long a span took; the device must have finished."""
        start, stop = span
        return start.elapsed_time(stop) if self._cuda else 1000 * (stop - start)


def parts_of(contender: Contender, prompt: LongPrompt) -> dict[str, float]:
    """Runs a prefill once and returns the milliseconds of each of `PARTS`.

    Raises:
        RedGateError: dense attention was given a mask that somebody wrote out.
    """
    device = prompt.ids.device
    clock = Clock(device)
    attention = list[Span]()
    linear = list[Span]()
    tower = contender.model.model.language_model
    with (
        _marked_attention(contender.attention, clock, attention),
        _marked_modules([*_linear_layers(tower), contender.model.lm_head], clock, linear),
    ):
        started = clock.mark()
        contender.prefill(prompt)
        whole = (started, clock.mark())
    if device.type == "cuda":
        torch.cuda.synchronize()
    layers = [clock.milliseconds(span) for span in attention]
    if len(layers) != len(tower.layers):
        raise RedGateError(f"{len(layers)} calls of attention in {len(tower.layers)} layers")
    ours = contender.package == "photomask"
    first = max(0.0, layers[0] - statistics.median(layers[1:] or layers)) if ours else 0.0
    found = {
        "attention": sum(layers) - first,
        "linear layers": sum(clock.milliseconds(span) for span in linear),
        "schedule": first,
    }
    return {**found, "rest": clock.milliseconds(whole) - sum(found.values())}


def _linear_layers(tower: nn.Module) -> list[nn.Module]:
    return [module for module in tower.modules() if isinstance(module, nn.Linear)]


@contextlib.contextmanager
def _marked_attention(name: str, clock: Clock, spans: list[Span]) -> Iterator[None]:
    """Marks every call of an attention function that transformers knows."""
    from transformers import AttentionInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    function = ALL_ATTENTION_FUNCTIONS[name]

    def marked(module: nn.Module, *tensors: Any, **options: Any) -> Any:
        if isinstance(tensors[3], torch.Tensor):
            raise RedGateError(f"{name} was given a mask of {list(tensors[3].shape)}")
        start = clock.mark()
        output = function(module, *tensors, **options)
        spans.append((start, clock.mark()))
        return output

    AttentionInterface.register(name, marked)
    try:
        yield
    finally:
        AttentionInterface.register(name, function)


@contextlib.contextmanager
def _marked_modules(modules: list[nn.Module], clock: Clock, spans: list[Span]) -> Iterator[None]:
    """Marks every call of modules that do not call each other."""
    started: list[Any] = []

    def before(*_: Any) -> None:
        started.append(clock.mark())

    def behind(*_: Any) -> None:
        spans.append((started.pop(), clock.mark()))

    handles = [module.register_forward_pre_hook(before) for module in modules]
    handles += [module.register_forward_hook(behind) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
