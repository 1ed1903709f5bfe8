"""What a training did, as a document and as a table."""

from typing import Literal

from photomask.chip.training.settings import TrainingSettings
from photomask.documents import Document
from photomask.report import Shown, Table


class EpochRecord(Document):
    """One epoch.

    Attributes:
        epoch: counted from 0.
        loss: mean over the steps.
        learning_rate: of the weights, in the first step.
        least_bits: the narrowest quantizer.
        seconds: that it took.
    """

    epoch: int
    loss: float
    learning_rate: float
    least_bits: int
    seconds: float


class TrainingReport(Shown, Document):
    """What a training did.

    Attributes:
        recipe: the recipe, as it prints itself.
        data: the training data, in words.
        device: where.
        processes: how many trained together.
        parameters: how many numbers were trained.
        settings: the schedule.
        epochs: one record each.
    """

    schema_version: Literal[1] = 1
    recipe: str
    data: str
    device: str
    processes: int
    parameters: int
    settings: TrainingSettings
    epochs: tuple[EpochRecord, ...]

    def shown(self) -> Table:
        """Returns a table of the epochs."""
        rows = [("epoch", "loss", "learning rate", "least bits", "seconds")]
        rows += [
            (
                str(record.epoch),
                f"{record.loss:.4f}",
                f"{record.learning_rate:.3g}",
                str(record.least_bits),
                f"{record.seconds:.1f}",
            )
            for record in self.epochs
        ]
        first = self.recipe.partition("\n")[0]
        head = f"{first}: {self.parameters:,} parameters, {self.data}, {self.device}"
        return Table(head, rows)
