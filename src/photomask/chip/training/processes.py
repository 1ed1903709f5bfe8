"""One process, or many that train together: what the loop asks of them."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from photomask.dependencies import OptionalPackage
from photomask.errors import UsageError


class Processes:
    """This process alone.

    Args:
        device: where it computes; the first GPU, or the CPU, if None.

    Raises:
        UsageError: there is no such device.

    Attributes:
        device: of this process.
        index: of this process, from 0.
        count: how many train together.
    """

    index = 0
    count = 1

    def __init__(self, device: torch.device | str | None = None):
        usual = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device if device is not None else usual)
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"cannot train on {device!r}: {str(error).splitlines()[0]}") from error

    def part_of(self, batch_size: int) -> int:
        """Returns how many samples of a batch are this process's.

        Raises:
            UsageError: the batch cannot be split evenly.
        """
        if batch_size % self.count:
            raise UsageError(f"{self.count} processes cannot split a batch of {batch_size} evenly")
        return batch_size // self.count

    def average(self, tensors: list[Tensor]) -> None:
        """Replaces tensors by their means over all processes."""

    def broadcast(self, module: nn.Module) -> None:
        """Gives a module of every process the parameters and buffers of the first."""

    def wait(self) -> None:
        """Returns when all processes have come here."""


class LaunchedProcesses(Processes):
    """Processes that `accelerate launch` or `torchrun` started, on one machine or on many.

    Gradients are averaged once a step, all in one message. No wrapper stands around the model, so
    that quantizers may be refitted and parameters frozen while training runs.

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
        """Gives a module of every process the parameters and buffers of the first."""
        from accelerate.utils import broadcast

        for tensor in (*module.parameters(), *module.buffers()):
            broadcast(tensor.data, from_process=0)

    def wait(self) -> None:
        """Returns when all processes have come here."""
        # accelerate's own barrier names a GPU even where processes compute on the CPU.
        float(self._accelerator.reduce(torch.zeros((), device=self.device)))


def find_processes(
    accelerator: Any | None = None, device: torch.device | str | None = None
) -> Processes:
    """Returns the processes that train together.

    Args:
        accelerator: the user's own `accelerate.Accelerator`; None makes one where a launcher has
            started several processes.
        device: where one process alone computes.

    Raises:
        MissingDependencyError: several processes were launched, and accelerate is not installed.
        UsageError: both an accelerator and a device.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if accelerator is None and not launched:
        return Processes(device)
    if device is not None:
        raise UsageError("where processes were launched, their launcher chooses the devices")
    if accelerator is None:
        with OptionalPackage("accelerate", "training", "training in many processes"):
            from accelerate import Accelerator

        accelerator = Accelerator()
    return LaunchedProcesses(accelerator)


def is_first_process() -> bool:
    """Tells whether this is the process that writes files, of all that a launcher started."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds PyTorch's generators inside, and leaves them outside as they were."""
    devices: Iterable[torch.device] = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
