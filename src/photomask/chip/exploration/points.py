"""Defines design points and what was measured for each: the documents of an exploration."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_serializer, model_validator

from photomask.chip.cost import Accelerator
from photomask.chip.pruning import Magnitude, Pruner, Wanda
from photomask.chip.recipe import save_recipe
from photomask.chip.recipe.documents import RecipeDocument
from photomask.chip.sparsity import Blocks, NofM
from photomask.chip.target import Target
from photomask.chip.training import TrainingSettings
from photomask.documents import Document, SealedDocument, read_text, written_whole
from photomask.errors import PruningError, UsageError
from photomask.report import Shown, Table

Metric = Literal["accuracy", "weight_bytes", "accumulator_bits", "cycles", "energy_pj"]
"""A figure that a search can improve: the accuracy upwards, all others downwards."""

METRICS: dict[Metric, str] = {
    "accuracy": "accuracy, %",
    "weight_bytes": "weights, bytes",
    "accumulator_bits": "accumulator, bits",
    "cycles": "cycles",
    "energy_pj": "energy, pJ",
}
"""The words for each metric."""

RECIPE_FILE, POINT_FILE = "recipe.json", "point.json"
OUTPUT = "design point"
METHODS: dict[str, type[Pruner]] = {"magnitude": Magnitude, "wanda": Wanda}


class PruningChoice(Document):
    """A way to prune once, before the calibration, as a document.

    Attributes:
        method: the score of a weight: its `magnitude`, or by `wanda` also the norm of its input.
        sparsity: the share of the weights that are pruned; None where the pattern is N:M.
        pattern: None for single weights, N:M, blocks, or `tiles` for blocks in the size of the
            accelerator's array: as many inputs as it has rows, and as many outputs as columns.
        scope: which weights compete.
        layers: the patterns of the layers to prune; None for all that the pattern fits.
    """

    method: Literal["magnitude", "wanda"] = "magnitude"
    sparsity: float | None = None
    pattern: NofM | Blocks | Literal["tiles"] | None = None
    scope: Literal["layer", "output", "global"] = "layer"
    layers: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        try:
            self._pruner(Blocks(outputs=1, inputs=1))
        except PruningError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def label(self) -> str:
        """The pruning in a few words; two choices that differ have different labels."""
        what = f"{self.sparsity:.3g} of" if self.sparsity is not None else ""
        pattern = "weights" if self.pattern is None else str(self.pattern)
        words = [self.method, what, pattern]
        if self.scope != "layer":
            words.append(f"per {self.scope}" if self.scope == "output" else self.scope)
        if self.layers is not None:
            words.append(f"in {', '.join(self.layers)}")
        return " ".join(word for word in words if word)

    def pruner(self, accelerator: Accelerator) -> Pruner:
        """Returns the pruner.

        Args:
            accelerator: the array whose tiles the pattern `tiles` means.
        """
        return self._pruner(Blocks(outputs=accelerator.columns, inputs=accelerator.rows))

    def _pruner(self, tiles: Blocks) -> Pruner:
        return METHODS[self.method](
            self.sparsity,
            pattern=tiles if self.pattern == "tiles" else self.pattern,
            scope=self.scope,
            layers=self.layers,
        )


class DesignPoint(Document):
    """One combination of a recipe, a pruning, a target and an accelerator.

    Attributes:
        recipe: which quantizer each tensor gets.
        pruning: how the weights are pruned; None leaves them dense.
        target: the numeric contract, which decides the integers together with the recipe.
        accelerator: the machine, which decides cycles and energy.
    """

    recipe: RecipeDocument
    pruning: PruningChoice | None = None
    target: Target
    accelerator: Accelerator

    @field_serializer("recipe")
    def _only_what_is_set(self, recipe: RecipeDocument) -> dict[str, Any]:
        """Leaves unset fields out, because some quantizers tell them from set ones."""
        return recipe.model_dump(mode="json", exclude_unset=True)

    def fingerprint(self) -> str:
        """Returns a hash of everything that decides the figures; the recipe's name does not."""
        body = self.model_dump(mode="json")
        del body["recipe"]["name"]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    @property
    def label(self) -> str:
        """The recipe, the pruning and the hardware in a few words."""
        pruned = "dense" if self.pruning is None else self.pruning.label
        return f"{self.recipe.name}, {pruned}, {self.target.name}, {self.accelerator.name}"


class Measurement(Document):
    """The figures of a design point.

    Attributes:
        accuracy: the percentage of held-out samples, or of their places, that the integer program
            classifies correctly.
        samples: the number of held-out samples.
        weight_bytes: the bytes of the memory images of all weights; a weight is stored without its
            zeros if that is smaller.
        accumulator_bits: the bits of the widest signed accumulator, proven for every input.
        cycles: the estimated cycles for one sample.
        energy_pj: the estimated energy for one sample, in picojoules.
        program_sha256: the content hash of the integer program.
        seconds: how long the conversion and the measurement took.
    """

    accuracy: float = Field(ge=0, le=100)
    samples: int = Field(ge=1)
    weight_bytes: int = Field(ge=0)
    accumulator_bits: int = Field(ge=0)
    cycles: int = Field(ge=0)
    energy_pj: float = Field(ge=0)
    program_sha256: str
    seconds: float = Field(ge=0)

    def values(self, objectives: tuple[Metric, ...]) -> tuple[float, ...]:
        """Returns the figures of some metrics."""
        return tuple(float(getattr(self, name)) for name in objectives)


class ExploredPoint(Shown, SealedDocument):
    """A design point that a trial of a study tried, with its figures or the reason without any.

    Attributes:
        number: the number of the trial in its study.
        preset: the name of the preset that the point is; empty for a point that was searched.
        point: the design point.
        training: the settings of the training between calibration and conversion, or None.
        measurement: the figures; None for a point that was not measured.
        outcome: `measured`; `repeated`, if an earlier trial had the same point; `infeasible`; or
            `stopped`, if a pruner of Optuna gave it up.
        reason: why there are no figures.
    """

    schema_version: Literal[1] = 1
    number: int = Field(ge=0)
    preset: str = ""
    point: DesignPoint
    training: TrainingSettings | None = None
    measurement: Measurement | None = None
    outcome: Literal["measured", "repeated", "infeasible", "stopped"]
    reason: str = ""

    @model_validator(mode="after")
    def _is_measured(self) -> Self:
        if (self.measurement is not None) != (self.outcome in ("measured", "repeated")):
            raise ValueError(f"the outcome {self.outcome!r} contradicts the measurement")
        return self

    def save(self, folder: str | Path) -> None:
        """Writes the recipe, for every command that takes one, and the whole point.

        Args:
            folder: the folder to write. It may exist only if it holds such a point.

        Raises:
            ExportError: the folder holds other files, or a file cannot be written.
        """
        with written_whole(Path(folder), OUTPUT) as place:
            self.write(place)

    def write(self, place: Path) -> None:
        """Writes both files into a folder that exists."""
        save_recipe(self.point.recipe.build(), place / RECIPE_FILE)
        (place / POINT_FILE).write_text(self.sealed().render(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a point, and checks that it is unaltered.

        Args:
            path: the file `point.json`, or its folder.

        Raises:
            DocumentError: the file is missing, altered or of another schema.
        """
        path = Path(path)
        file = path / POINT_FILE if path.is_dir() else path
        return cls.parse(read_text(file), str(file))

    def figures(self) -> Measurement:
        """Returns the measurement.

        Raises:
            UsageError: the point was not measured.
        """
        if self.measurement is None:
            raise UsageError(
                f"trial {self.number} has no figures, because it is {self.outcome}: {self.reason}"
            )
        return self.measurement

    def shown(self) -> Table:
        """Returns the parts of the point and its figures."""
        point, found = self.point, self.measurement
        rows = [
            ("of the point", "value"),
            ("recipe", point.recipe.name),
            ("pruning", "none" if point.pruning is None else point.pruning.label),
            ("target", point.target.name),
            ("accelerator", point.accelerator.name),
        ]
        if found is not None:
            rows += [(METRICS[name], figure(found, name)) for name in METRICS]
            rows.append(("program", found.program_sha256))
        title = f"trial {self.number}: {self.outcome}"
        return Table(title, rows, [self.reason] if self.reason else [])


def figure(measurement: Measurement, metric: Metric) -> str:
    """Returns a figure as tables show it."""
    value = getattr(measurement, metric)
    return f"{value:.2f}" if metric == "accuracy" else f"{value:,.0f}"
