"""What reconstruction does, and what came of it, as data."""

from typing import Literal

from pydantic import Field, model_validator

from photomask.chip.reconstruction.blocks import Granularity
from photomask.documents import Document
from photomask.report import Shown, Table


class ReconstructionSettings(Document):
    """How a model is reconstructed; a checkpoint belongs to one.

    Attributes:
        granularity: what is optimised at a time: a `layer` (AdaRound), a `block` (BRECQ) or the
            whole `network`.
        iterations: steps of Adam for each block.
        batch_size: samples of a step, drawn without repetition until all were seen.
        rounding_rate: learning rate of the roundings, in units of `alpha`.
        scale_rate: learning rate of activations' scales, relative to the scale; falls to 0 along
            half a cosine. 0 leaves them as calibrated.
        bias_rate: learning rate of biases, relative to the spread of their layer's output; falls
            likewise. 0 leaves them as they are.
        keep_probability: of an activation to be quantized in a step (QDrop); 1 drops nothing.
        regularization: weight of the rounding regulariser; 1 makes a wholly undecided block as bad
            as the one that is rounded to nearest.
        warm_up: share of the steps, the first ones, without regulariser.
        beta_start: sharpness of the regulariser at its start.
        beta_end: and at its end.
        seed: of order and dropping.

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
            raise ValueError(f"beta falls, found {self.beta_start} to {self.beta_end}")
        return self


class BlockReport(Document):
    """What reconstruction did to a block; weights are rounded hard in both figures.

    Attributes:
        name: its first and last layer.
        layers: how many of its layers learned their rounding.
        weights: how many weights they have.
        scales: how many activations' scales were learned.
        changed: share of the weights whose code differs from the nearest.
        sqnr_before_db: of the block's outputs beside the float model's, its inputs coming from the
            blocks before as they are now.
        sqnr_after_db: the same after its reconstruction.
        kept: False if it came out no better, and was left as it was.
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
    """What reconstruction did to a model. Weights are rounded hard in every figure.

    Attributes:
        recipe: its name.
        samples: on how many it was measured, the same that it learned from.
        settings: how it was done.
        blocks: one after the other.
        sqnr_before_db: of the model's outputs beside the float model's.
        sqnr_after_db: the same after all blocks.
    """

    schema_version: Literal["1"] = "1"
    recipe: str
    samples: int
    settings: ReconstructionSettings
    blocks: tuple[BlockReport, ...]
    sqnr_before_db: float
    sqnr_after_db: float

    def shown(self) -> Table:
        """Returns a table of the blocks, and the whole in the last line."""
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
