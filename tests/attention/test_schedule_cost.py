"""Building a schedule starts few operations and waits for the device once, whatever the prompt.

A GPU finishes each of these operations sooner than the host starts the next, so what a schedule
costs is their number, and every wait. On a GPU Triton computes the tables; its launches count too.
"""

import contextlib
import os
import sys

import pytest
import torch
from tests.attention import layouts
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from photomask.attention import schedule as schedules
from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule, SinkRule
from photomask.attention.schedule import build_schedule

if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"

aten = torch.ops.aten
NO_KERNEL = {aten.empty.memory_format, aten.lift_fresh.default, aten._local_scalar_dense.default}
READ_BY_HOST = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
    aten.equal.default,
}
COPIED_TO_HOST = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__}
RULES = [
    DenseRule(),
    DenseRule(window=64),
    DenseRule(bidirectional=True),
    DenseRule(bidirectional=True, window=64, window_spares_own_image=True),
]


class Operations(TorchDispatchMode):
    """Counts the operations that start work on the device, and those whose result the host needs.

    A tensor of the CPU is read without an operation, so the calls that do it are counted as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started = self.waits = 0
        self._calls = _Calls()

    def __enter__(self):
        self._calls.__enter__()
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        self._calls.__exit__(*raised)
        self.waits += self._calls.waits

    @contextlib.contextmanager
    def launch(self):
        """Counts one launch, whatever Triton's interpreter does instead."""
        counted = self.started + 1, self.waits, self._calls.waits
        yield
        self.started, self.waits, self._calls.waits = counted

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.started += not (operation.is_view or operation in NO_KERNEL)
        self.waits += operation in READ_BY_HOST or _picks_by_mask(operation, args)
        return operation(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        to_host = function is Tensor.to and "cpu" in map(str, (*args[1:], *kwargs.values()))
        self.waits += function in COPIED_TO_HOST or to_host
        return function(*args, **kwargs)


def _picks_by_mask(operation, args) -> bool:
    picks = operation in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
    return picks and any(each is not None and each.dtype == torch.bool for each in args[1])


class Launched:
    """A Triton kernel whose launches are counted."""

    def __init__(self, kernel, operations: Operations) -> None:
        self._kernel, self._operations = kernel, operations

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            with self._operations.launch():
                self._kernel[grid](*args, **kwargs)

        return launch


def count(layout: PromptLayout, rule: DenseRule, start: int = 0) -> Operations:
    with Operations() as operations:
        build_schedule(layout, SinkRule(), rule, start)
    return operations


@pytest.fixture
def count_triton(monkeypatch):
    """Counts what a schedule takes where Triton computes the tables, on a GPU or not."""
    pytest.importorskip("triton")
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton was imported without its interpreter")
    from photomask.attention import triton_tables as module

    kernels = {name: getattr(module, name) for name in ("_mark", "_tabulate")}
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def count(layout: PromptLayout, rule: DenseRule, start: int = 0) -> Operations:
        layout = PromptLayout(*(field.to(device) for field in vars(layout).values()))
        with monkeypatch.context() as patched, Operations() as operations:
            patched.setattr(schedules, "_choose", lambda device: module.triton_tables)
            for name, kernel in kernels.items():
                patched.setattr(module, name, Launched(kernel, operations))
            build_schedule(layout, SinkRule(), rule, start)
        return operations

    return count


@pytest.mark.parametrize(
    "read",
    [
        lambda tensor: tensor[0].item(),
        lambda tensor: int(tensor[0]),
        lambda tensor: bool(tensor[0] > 1),
        lambda tensor: tensor.tolist(),
        lambda tensor: tensor.cpu(),
        lambda tensor: tensor.to("cpu"),
        lambda tensor: tensor.to(device=torch.device("cpu")),
        lambda tensor: tensor.numpy(),
        lambda tensor: tensor.nonzero(),
        lambda tensor: tensor[tensor > 1],
        lambda tensor: tensor.unique(),
        lambda tensor: torch.equal(tensor, tensor),
        lambda tensor: torch.repeat_interleave(tensor),
    ],
)
def test_whatever_waits_for_a_device_is_counted(read):
    with Operations() as operations:
        read(torch.arange(3))
    assert operations.waits == 1


def test_views_are_not_counted():
    with Operations() as operations:
        torch.arange(6).view(2, 3)[:, 1:].unbind(0)
    assert (operations.started, operations.waits) == (1, 0)


def test_plain_pytorch_starts_at_most_100_operations():
    assert count(layouts.regular(3, 400, 40), DenseRule()).started <= 100


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("start", [0, 50])
def test_triton_starts_at_most_10_operations_to_take_less_than_a_millisecond(
    count_triton, rule, start
):
    """A slow host starts an operation in 25 µs, a kernel of Triton in 100 µs; there are two."""
    found = count_triton(layouts.regular(3, 40, 4), rule, start)
    assert (found.started <= 10, found.waits) == (True, 1)


@pytest.mark.parametrize("rule", RULES)
def test_triton_starts_at_most_13_operations_for_part_of_a_padded_batch(count_triton, rule):
    prompt = layouts.prompt(images=[30, 40], texts=[5, 6, 7], delimited=True)
    shorter = layouts.prompt(images=[30], texts=[5, 6], delimited=True)
    layout = layouts.batch([prompt, shorter], left=True).tail(2)
    assert not layout.kind.is_contiguous()
    found = count_triton(layout, rule, start=20)
    assert (found.started <= 13, found.waits) == (True, 1)


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_starts_more_than_120_operations(rule):
    prompt = layouts.prompt(images=[30, 40], texts=[5, 6, 7], delimited=True)
    shorter = layouts.prompt(images=[30], texts=[5, 6], delimited=True)
    layout = layouts.batch([prompt, shorter], left=True)
    assert count(layout, rule, start=20).started <= 120


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("start", [0, 50])
def test_a_schedule_waits_for_the_device_once(rule, start):
    assert count(layouts.regular(3, 40, 4), rule, start).waits == 1


@pytest.mark.parametrize("rule", RULES)
def test_the_cost_grows_neither_with_images_nor_with_tokens(rule):
    prompts = [layouts.regular(3, 40, 4), layouts.regular(60, 40, 4), layouts.regular(3, 4000, 40)]
    found = [count(prompt, rule) for prompt in prompts]
    assert len({(each.started, each.waits) for each in found}) == 1
