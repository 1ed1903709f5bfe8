"""Reports a training as a document and as a table."""

from typing import Literal

from photomask.chip.training.settings import Schedule, TrainingSettings
from photomask.documents import Document
from photomask.report import Shown, Table


class EpochRecord(Document):
    """The record of one epoch.

    Attributes:
        epoch: the epoch, counted from 0.
        loss: the mean loss over the steps.
        learning_rate: the learning rate of the weights in the first step.
        least_bits: the width of the narrowest quantizer; None for a float model.
        seconds: the duration in seconds.
    """

    epoch: int
    loss: float
    learning_rate: float
    least_bits: int | None
    seconds: float


class TrainingReport(Shown, Document):
    """The report of a training.

    Attributes:
        recipe: the recipe as printed; where a float model was trained, what was trained.
        data: a description of the training data.
        device: the device of the training.
        processes: the number of processes that trained together.
        parameters: the number of scalar parameters of the model.
        settings: the settings of the training.
        epochs: a record for each epoch.
    """

    schema_version: Literal[1] = 1
    recipe: str
    data: str
    device: str
    processes: int
    parameters: int
    settings: Schedule | TrainingSettings
    epochs: tuple[EpochRecord, ...]

    def shown(self) -> Table:
        """Returns a table of the epochs."""
        rows = [("epoch", "loss", "learning rate", "least bits", "seconds")]
        rows += [
            (
                str(record.epoch),
                f"{record.loss:.4f}",
                f"{record.learning_rate:.3g}",
                "–" if record.least_bits is None else str(record.least_bits),
                f"{record.seconds:.1f}",
            )
            for record in self.epochs
        ]
        first = self.recipe.partition("\n")[0]
        head = f"{first}: {self.parameters:,} parameters, {self.data}, {self.device}"
        return Table(head, rows)
