"""Provides the training loop with one process, or with many that train together."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from photomask.dependencies import OptionalPackage
from photomask.errors import UsageError


class Processes:
    """A training in this process alone.

    Args:
        device: the device; None for the first GPU, or the CPU where there is no GPU.

    Raises:
        UsageError: the device does not exist.

    Attributes:
        device: the device of this process.
        index: the index of this process, from 0.
        count: the number of processes that train together.
    """

    index = 0
    count = 1

    def __init__(self, device: torch.device | str | None = None):
        usual = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device if device is not None else usual)
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(
                f"cannot train on the device {device!r}: {str(error).splitlines()[0]}"
            ) from error

    def part_of(self, batch_size: int) -> int:
        """Returns the number of samples of a batch that this process takes.

        Raises:
            UsageError: the batch cannot be split evenly.
        """
        if batch_size % self.count:
            raise UsageError(
                f"{self.count} processes cannot split a batch of {batch_size} evenly; choose a "
                "batch_size that is a multiple of the number of processes"
            )
        return batch_size // self.count

    def average(self, tensors: list[Tensor]) -> None:
        """Replaces tensors by their means over all processes."""

    def broadcast(self, module: nn.Module) -> None:
        """Copies the parameters and buffers of the first process's module to all processes."""

    def wait(self) -> None:
        """Waits until all processes have called it."""


class LaunchedProcesses(Processes):
    """A training in processes that `accelerate launch` or `torchrun` started, on any machines.

    Gradients are averaged once per step, in one message. The model has no wrapper, so that
    quantizers can be refitted and parameters can be frozen while training runs.

    Args:
        accelerator: an `accelerate.Accelerator`.
    """

    def __init__(self, accelerator: Any):
        super().__init__(accelerator.device)
        self._accelerator = accelerator
        self.index = accelerator.process_index
        self.count = accelerator.num_processes

    def average(self, tensors: list[Tensor]) -> None:
        """Replaces tensors by their means over all processes."""
        if not tensors:
            return
        joined = torch.cat([tensor.reshape(-1) for tensor in tensors])
        joined = self._accelerator.reduce(joined, reduction="mean")
        parts = joined.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.reshape(tensor.shape))

    def broadcast(self, module: nn.Module) -> None:
        """Copies the parameters and buffers of the first process's module to all processes."""
        from accelerate.utils import broadcast

        for tensor in (*module.parameters(), *module.buffers()):
            broadcast(tensor.data, from_process=0)

    def wait(self) -> None:
        """Waits until all processes have called it."""
        # The barrier of accelerate uses a GPU even where the processes compute on the CPU.
        float(self._accelerator.reduce(torch.zeros((), device=self.device)))


def find_processes(
    accelerator: Any | None = None, device: torch.device | str | None = None
) -> Processes:
    """Returns the processes that train together.

    Args:
        accelerator: an `accelerate.Accelerator` of the user; None makes one where a launcher has
            started several processes.
        device: the device of a process that trains alone.

    Raises:
        MissingDependencyError: several processes were launched, and accelerate is not installed.
        UsageError: a device is given although an accelerator or a launcher decides it.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if accelerator is None and not launched:
        return Processes(device)
    if device is not None:
        raise UsageError(
            "where processes were launched, their launcher chooses the devices, found device "
            f"{device!r}; leave it out"
        )
    if accelerator is None:
        with OptionalPackage("accelerate", "training", "training in many processes"):
            from accelerate import Accelerator

        accelerator = Accelerator()
    return LaunchedProcesses(accelerator)


def is_first_process() -> bool:
    """Tells whether this is the first of the launched processes, which writes the files."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds PyTorch's generators inside a context, and restores their state after it."""
    devices: Iterable[torch.device] = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
