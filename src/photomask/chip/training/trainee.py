"""Defines what the training loop needs to know about the model that it trains."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.training.data import TrainingData
from photomask.chip.training.objective import Objective
from photomask.chip.training.processes import Processes
from photomask.documents import SealedDocument


class Trainee(ABC):
    """A model as the training loop sees it, with everything that depends on its kind.

    The loop itself has the optimizer, the schedule, the order of the data, the average, the
    checkpoints and the processes. It is the same for every kind of model.

    Attributes:
        module: the module that learns. The loop moves it, checkpoints its state dict, and gives it
            to callbacks.
        description: what is trained, as printed in the report.
        remedy: what the message about a divergence advises.
        pruner: the pruner as printed, or empty; a checkpoint belongs to one pruner.
    """

    module: nn.Module
    description: str
    remedy: str
    pruner: str = ""

    @property
    def least_bits(self) -> int | None:
        """The width of the narrowest quantizer, or None for a float model."""
        return None

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns the parameters in groups for an optimizer, with `lr` also as `initial_lr`."""

    @abstractmethod
    def objective(self, device: torch.device) -> Objective:
        """Returns the function that computes the loss of a batch on the training device."""

    def check(self) -> None:  # noqa: B027 - not every kind has something to check
        """Raises an error if a new training cannot start with the model as it is."""

    def resume(self) -> None:  # noqa: B027
        """Adapts to a state that a checkpoint has put into the module."""

    def start_epoch(self, epoch: int, data: TrainingData, processes: Processes) -> bool:
        """Makes the changes that the schedule plans for an epoch.

        Returns:
            True if they replaced values that the optimizer and the average have followed so far.
        """
        return False

    def check_batch(self, inputs: Sequence[Tensor], labels: Tensor | None) -> None:  # noqa: B027
        """Raises a DataError if a batch does not suit the objective."""

    def before_step(self, step: int) -> None:  # noqa: B027
        """Changes the gradients of a step before the optimizer gets them.

        Args:
            step: the step, counted from 0 over all epochs.
        """

    def end_step(self) -> None:  # noqa: B027
        """Restores what a step of the optimizer may have violated."""

    @abstractmethod
    def statistics(self) -> list[Tensor]:
        """Returns the tensors that batches change, which processes average after each epoch."""

    def end_epoch(self) -> None:  # noqa: B027
        """Raises an error if the epoch has left a model that cannot go on."""

    def settle(self) -> None:  # noqa: B027
        """Records that the state is whole, before a checkpoint of it is written."""

    @abstractmethod
    def finish(self, data: TrainingData, processes: Processes) -> None:
        """Makes the module ready for use after the last epoch."""

    @abstractmethod
    def last_in_order(self, parameters: list[str]) -> str:
        """Returns the one of some parameters that the model uses last, by a readable name."""

    @abstractmethod
    def first_bad_place(self, inputs: Sequence[Tensor]) -> str:
        """Computes a batch again, and says where the first number that is not finite arises."""

    @abstractmethod
    def write(self, folder: Path) -> SealedDocument:
        """Writes the pair of files of the model for a checkpoint, and returns the document."""

    @abstractmethod
    def read(self, folder: Path) -> tuple[SealedDocument, dict[str, Tensor]]:
        """Returns the checked content of the pair of files that `write` wrote."""

    @abstractmethod
    def put(self, document: SealedDocument, tensors: Mapping[str, Tensor], folder: Path) -> None:
        """Puts the content that `read` returned into the module."""
