"""Counts the cycles of a systolic array and what it reads and writes, for three dataflows.

A matrix product of `reduction` K by `outputs` N at `pixels` P is cut into folds, each as large as
the array of R rows and C columns. Two of the three axes lie along rows and columns. The third axis
is streamed, with T values per fold:

```text
dataflow             rows        columns   streamed   folds
weight stationary    reduction   outputs   pixels     ceil(K/R) * ceil(N/C)
output stationary    pixels      outputs   reduction  ceil(P/R) * ceil(N/C)
input stationary     reduction   pixels    outputs    ceil(K/R) * ceil(P/C)
```

A fold takes `2*R + C + T - 2` cycles. T cycles stream the values. R + C - 2 cycles pass until the
skewed operands have reached the last cell; this is fill and drain. In R more cycles the stationary
operand is loaded or, in the output-stationary array, the sums are shifted out. A fold takes the
same time if it fills only a part of the array.

**Zeros.** In a weight-stationary array, a fold whose weights are all zero is skipped. If all folds
of a block of outputs are zero, one pass without weights writes the biases: `R + C + T - 2` cycles.
In an array for N:M, N rows load and compute together, so R is the number of groups of N rows in
these formulas. The folds of compressed weights cover `R * M` inputs. The other two dataflows stream
the weights, zeros included.

Source: Samajdar et al. 2018, SCALE-Sim, arXiv:1811.02883, for the dataflows and the formula.
"""

from dataclasses import dataclass
from typing import Any, Self

from photomask.chip.cost.accelerator import Accelerator

Count = Any
"""An int, or an int64 array of them, because the tiler computes all candidates at once."""
SUM_ACCESSES = 2
"""A sum is written in each fold of the reduction. It is read before each fold except the first, and
at the end."""


@dataclass(frozen=True)
class Folding:
    """How the tiles of a product divide its axes.

    Folds are counted tile by tile: a tile of 20 outputs takes two folds of 16 columns.
    """

    reduction: Count
    held: Count
    """The weights that each output holds; fewer than the reduction if they are compressed."""
    reduction_tiles: Count
    reduction_row_folds: Count
    """The sum over all tiles of `ceil(held weights / rows)`."""
    outputs: Count
    output_tiles: Count
    output_column_folds: Count
    pixels: Count
    pixel_tiles: Count
    pixel_row_folds: Count
    pixel_column_folds: Count


@dataclass(frozen=True)
class WeightFolds:
    """The folds of a weight-stationary array for one tile of pixels, in all groups of a product."""

    loaded: Count
    """The folds whose weights are loaded. Folds of zeros are left out."""
    streamed: Count
    """The folds that pixels stream through: those loaded, and passes that write biases alone."""
    weights: Count
    """The weights that are loaded, each of which is multiplied by every pixel."""
    inputs: Count
    """The activations that enter for one pixel."""
    sums: Count
    """The sums that leave for one pixel."""

    @classmethod
    def without_zeros(cls, folding: Folding, groups: int) -> Self:
        """Returns the folds of weights of which none are skipped."""
        rows, columns = folding.reduction_row_folds, folding.output_column_folds
        return cls(
            loaded=groups * rows * columns,
            streamed=groups * rows * columns,
            weights=groups * folding.held * folding.outputs,
            inputs=groups * folding.reduction * columns,
            sums=groups * rows * folding.outputs,
        )


@dataclass(frozen=True)
class ArrayWork:
    """The cycles of the array, and the elements that it exchanges with the buffers.

    All groups of a product are counted.
    """

    load_cycles: Count
    """The cycles in which stationary operands enter the array."""
    compute_cycles: Count
    """The cycles in which operands stream through the array."""
    fill_drain_cycles: Count
    weight_reads: Count
    activation_reads: Count
    accumulator_accesses: Count
    """Reads and writes of sums in every fold of the reduction, and the reads of the results."""

    @property
    def cycles(self) -> Count:
        """The number of all cycles."""
        return self.load_cycles + self.compute_cycles + self.fill_drain_cycles


def array_work(
    folding: Folding, groups: int, accelerator: Accelerator, weight_folds: WeightFolds | None = None
) -> ArrayWork:
    """Returns the work of the array for a product of `groups` groups, which are folded alike.

    Args:
        folding: how the tiles divide the axes.
        groups: the number of groups.
        accelerator: the array.
        weight_folds: the folds of a weight-stationary array that are not skipped; None for all.
    """
    if accelerator.dataflow == "weight_stationary":
        found = weight_folds or WeightFolds.without_zeros(folding, groups)
        return _weight_stationary(found, folding, accelerator)
    rows, columns = accelerator.rows, accelerator.columns
    f = folding
    weights, activations = f.reduction * f.outputs, f.reduction * f.pixels
    results = f.outputs * f.pixels
    skew, load = rows + columns - 2, rows
    if accelerator.dataflow == "input_stationary":
        repeats = f.reduction_row_folds * f.pixel_column_folds
        folds, streamed = repeats * f.output_tiles, repeats * f.outputs
        reads = (weights * f.pixel_column_folds, activations * f.output_tiles)
        sums = f.reduction_row_folds
    else:
        repeats = f.pixel_row_folds * f.output_column_folds
        folds, streamed = repeats * f.reduction_tiles, repeats * f.reduction
        reads = (weights * f.pixel_row_folds, activations * f.output_column_folds)
        skew = skew + rows
        load = 0
        sums = f.reduction_tiles
    return ArrayWork(
        load_cycles=groups * load * folds,
        compute_cycles=groups * streamed,
        fill_drain_cycles=groups * skew * folds,
        weight_reads=groups * reads[0],
        activation_reads=groups * reads[1],
        accumulator_accesses=groups * results * SUM_ACCESSES * sums,
    )


def _weight_stationary(folds: WeightFolds, folding: Folding, accelerator: Accelerator) -> ArrayWork:
    load = accelerator.row_groups
    tiles, pixels = folding.pixel_tiles, folding.pixels
    return ArrayWork(
        load_cycles=load * folds.loaded * tiles,
        compute_cycles=folds.streamed * pixels,
        fill_drain_cycles=(load + accelerator.columns - 2) * folds.streamed * tiles,
        weight_reads=folds.weights * tiles,
        activation_reads=folds.inputs * pixels,
        accumulator_accesses=folds.sums * pixels * SUM_ACCESSES,
    )
