"""Defines the settings and the report of a reconstruction."""

from typing import Literal

from pydantic import Field, model_validator

from photomask.chip.reconstruction.blocks import Granularity
from photomask.documents import Document
from photomask.report import Shown, Table


class ReconstructionSettings(Document):
    """The settings of a reconstruction; a checkpoint can be resumed only with its own.

    Attributes:
        granularity: the part that is optimized at a time: a `layer` (AdaRound), a `block` (BRECQ)
            or the whole `network`.
        iterations: the number of Adam steps for each block.
        batch_size: the number of samples of a step. Samples are drawn without repetition until all
            were used.
        rounding_rate: the learning rate of the roundings, in units of `alpha`.
        scale_rate: the learning rate of the activations' scales, relative to the scale. It falls to
            0 along half a cosine. With 0 the scales stay as calibrated.
        bias_rate: the learning rate of biases, relative to the mean norm of the weight rows of
            their layer. It falls in the same way. With 0 the biases stay unchanged.
        keep_probability: the probability that an activation is quantized in a step (QDrop); with 1
            all are.
        regularization: the weight of the rounding regularizer. With 1, a block whose roundings are
            all undecided has the same loss as the block rounded to nearest.
        warm_up: the share of the steps, at the start, without the regularizer.
        beta_start: the sharpness of the regularizer at its start.
        beta_end: the sharpness of the regularizer at its end.
        seed: the seed of the sample order and of the dropping.

    Source: Nagel et al. 2020, section 3.2, arXiv:2004.10568; Li et al. 2021, section 3.2,
    arXiv:2102.05426; Wei et al. 2022, section 4.2, arXiv:2203.05740.
    """

    granularity: Granularity = "block"
    iterations: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=32, ge=1)
    rounding_rate: float = Field(default=0.03, gt=0)
    scale_rate: float = Field(default=1e-3, ge=0)
    bias_rate: float = Field(default=1e-3, ge=0)
    keep_probability: float = Field(default=0.5, gt=0, le=1)
    regularization: float = Field(default=10.0, gt=0)
    warm_up: float = Field(default=0.2, ge=0, lt=1)
    beta_start: float = Field(default=20.0, ge=1)
    beta_end: float = Field(default=2.0, ge=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_beta(self) -> "ReconstructionSettings":
        if self.beta_end > self.beta_start:
            raise ValueError(
                f"beta_end must not exceed beta_start, found {self.beta_end} and {self.beta_start}"
            )
        return self


class BlockReport(Document):
    """The report of one block; both SQNRs are those of weights rounded to codes.

    Attributes:
        name: the names of the block's first and last layer.
        layers: the number of layers in the block.
        weights: the number of weights whose rounding was learned.
        scales: the number of activations whose scales were learned.
        changed: the share of the weights whose code differs from the nearest code.
        sqnr_before_db: the SQNR of the block's outputs against the float model, in dB, before its
            reconstruction. The inputs come from the blocks before, which are reconstructed already.
        sqnr_after_db: the same SQNR after the reconstruction, in dB.
        kept: False if the block did not improve and was left unchanged.
    """

    name: str
    layers: int
    weights: int
    scales: int
    changed: float
    sqnr_before_db: float
    sqnr_after_db: float
    kept: bool


class ReconstructionReport(Shown, Document):
    """The report of a reconstruction; every SQNR is that of weights rounded to codes.

    Attributes:
        recipe: the name of the recipe.
        samples: the number of samples, which serve for learning and for measuring.
        settings: the settings of the reconstruction.
        blocks: a report for each block, in order.
        sqnr_before_db: the SQNR of the model's outputs against the float model, in dB.
        sqnr_after_db: the same SQNR after all blocks, in dB.
    """

    schema_version: Literal["1"] = "1"
    recipe: str
    samples: int
    settings: ReconstructionSettings
    blocks: tuple[BlockReport, ...]
    sqnr_before_db: float
    sqnr_after_db: float

    def shown(self) -> Table:
        """Returns a table of the blocks, with the whole network in a note below it."""
        rows = [("block", "weights", "changed", "scales", "before", "after", "")]
        rows += [
            (
                block.name,
                f"{block.weights:,}",
                f"{block.changed:.1%}",
                str(block.scales),
                f"{block.sqnr_before_db:.2f} dB",
                f"{block.sqnr_after_db:.2f} dB",
                "" if block.kept else "no better, left as it was",
            )
            for block in self.blocks
        ]
        title = (
            f"recipe {self.recipe!r} reconstructed by {self.settings.granularity} from "
            f"{self.samples} samples; signal over quantization noise"
        )
        before, after = self.sqnr_before_db, self.sqnr_after_db
        return Table(title, rows, [f"whole network: {before:.2f} dB before, {after:.2f} dB after"])
