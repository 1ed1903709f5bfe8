"""Counts the zeros in a program's integers, and proves that pruned weights are zero there."""

from collections.abc import Sequence

from photomask.chip.operators import Convolution, Linear
from photomask.chip.operators.weights import effective_weight
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.program import IntegerProgram
from photomask.chip.sparsity import NofM, WeightSparsity
from photomask.documents import Document
from photomask.report import Cell, Check, Column, Row, Section, Tone


class LayerSparsity(Document):
    """The zeros of one weight, counted on the integers of the program."""

    node: str
    weights: int
    zeros: int
    pattern: NofM | None
    """The N:M pattern along the inputs that stores the weight in the fewest bits; None where none
    saves any."""
    zero_outputs: int
    """The outputs whose weights are all zero."""
    pruned: int | None
    """The weights that the model's mask prunes; None where no prepared model was at hand, or where
    the layer has no mask."""
    not_zero: int = 0
    """The pruned weights that are not zero in the program."""

    @property
    def sparsity(self) -> float:
        """The share of the weights that are zero, 0 to 1."""
        return self.zeros / self.weights


def layer_sparsities(
    program: IntegerProgram, prepared: PreparedModel | None
) -> tuple[LayerSparsity, ...]:
    """Counts the zeros of every layer with weights, in the order of computation.

    Args:
        program: the program, whose integers are counted.
        prepared: the model that the program was converted from, whose masks the integers are
            compared with, or None.
    """
    masks = {}
    if prepared is not None:
        masks = {
            node.name: prepared.mask_of(node)
            for node in prepared.graph.nodes
            if "weight" in node.constants
        }
    found = []
    for step in program.steps:
        if not isinstance(step.operator, (Convolution, Linear)):
            continue
        weight = effective_weight(program.parameters(step))
        counted = WeightSparsity.of(weight, program.formats[step.tensors["weight"]].bits)
        mask = masks.get(step.node)
        pruned = None if mask is None else ~mask.cpu().numpy().reshape(weight.shape)
        found.append(
            LayerSparsity(
                node=step.node,
                weights=counted.weights,
                zeros=counted.zeros,
                pattern=counted.pattern,
                zero_outputs=counted.zero_outputs,
                pruned=None if pruned is None else int(pruned.sum()),
                not_zero=0 if pruned is None else int((weight[pruned] != 0).sum()),
            )
        )
    return tuple(found)


def sparsity_checks(layers: Sequence[LayerSparsity]) -> list[Check]:
    """Returns the check that every pruned weight is zero; none where nothing was pruned."""
    if all(layer.pruned is None for layer in layers):
        return []
    wrong = sum(layer.not_zero for layer in layers)
    return [Check.at_most("pruned weights that are not zero in the program", wrong, 0)]


_COLUMNS = (
    Column("layer", number=False),
    Column("weights"),
    Column("zeros", meaning="Weights that are zero as integers, pruned or rounded to zero."),
    Column("sparsity", meaning="Share of the weights that are zero as integers."),
    Column("pruned", meaning="Weights that the mask of the model prunes."),
    Column("pattern", meaning="N:M along the inputs, where it saves memory."),
    Column("zero outputs", meaning="Outputs whose weights are all zero."),
)


def sparsity_section(layers: Sequence[LayerSparsity]) -> Section:
    """Returns a row for each layer; no rows where nothing is pruned and no pattern is found."""
    is_sparse = any(layer.pruned is not None or layer.pattern is not None for layer in layers)
    rows = [_row(layer) for layer in layers] if is_sparse else []
    text = "Zeros among the integers of the program, which is what a machine can skip."
    return Section("Sparsity", text, _COLUMNS, rows)


def _row(layer: LayerSparsity) -> Row:
    pruned = "" if layer.pruned is None else f"{layer.pruned:,}"
    if layer.not_zero:
        pruned += f", {layer.not_zero:,} not zero"
    return (
        layer.node,
        f"{layer.weights:,}",
        f"{layer.zeros:,}",
        Cell(f"{layer.sparsity:.1%}", sort=layer.sparsity, bar=layer.sparsity),
        Cell(pruned, Tone.BAD if layer.not_zero else Tone.PLAIN),
        "" if layer.pattern is None else str(layer.pattern),
        str(layer.zero_outputs),
    )
