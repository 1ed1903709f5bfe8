"""Reports how sparse the layers of a prepared model are."""

from photomask.chip.graph import Node
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.pruning.base import Pruner
from photomask.chip.pruning.layers import ChosenLayers, choose_layers
from photomask.documents import Document
from photomask.report import Shown, Table


class LayerPruning(Document):
    """The weights of a layer after a pruning.

    Attributes:
        layer: the name of the layer.
        weights: the number of weights.
        pruned: the number of pruned weights.
        reason: why the layer is dense, or empty.
    """

    layer: str
    weights: int
    pruned: int
    reason: str = ""

    @property
    def sparsity(self) -> float:
        """The share of the weights that are pruned, 0 to 1."""
        return self.pruned / self.weights


class PruningReport(Shown, Document):
    """The layers of a model after a pruning, dense ones included."""

    pruner: str
    layers: tuple[LayerPruning, ...]

    @classmethod
    def of(cls, prepared: PreparedModel, pruner: str, chosen: ChosenLayers) -> "PruningReport":
        """Counts the pruned weights of a model."""
        masked = {node.name for node, _ in prepared.pruned_layers()}
        rows = [
            _row(prepared, node, chosen.dense.get(node.name, ""))
            for node in prepared.graph.nodes
            if node.name in masked or node.name in chosen.dense
        ]
        return cls(pruner=pruner, layers=tuple(rows))

    @property
    def sparsity(self) -> float:
        """The share of the weights of all layers that are pruned, dense layers included."""
        return sum(row.pruned for row in self.layers) / sum(row.weights for row in self.layers)

    def shown(self) -> Table:
        """Returns a table with a row for each layer, and one for all."""
        rows = [("layer", "weights", "pruned", "sparsity", "dense because")]
        for row in self.layers:
            share = f"{row.sparsity:.1%}"
            rows.append((row.layer, f"{row.weights:,}", f"{row.pruned:,}", share, row.reason))
        weights = sum(row.weights for row in self.layers)
        pruned = sum(row.pruned for row in self.layers)
        rows.append(("all", f"{weights:,}", f"{pruned:,}", f"{self.sparsity:.1%}", ""))
        return Table(f"pruned by {self.pruner}", rows)


def report_of(prepared: PreparedModel, pruner: Pruner) -> PruningReport:
    """Counts the pruned weights of a model that a pruner has pruned, at once or while it trained.

    Raises:
        PruningError: the pruner does not fit the model.
    """
    return PruningReport.of(prepared, repr(pruner), choose_layers(prepared, pruner))


def _row(prepared: PreparedModel, node: Node, reason: str) -> LayerPruning:
    mask = prepared.mask_of(node)
    size = prepared.parameter_of(node).numel()
    return LayerPruning(
        layer=node.name,
        weights=size,
        pruned=0 if mask is None else size - int(mask.sum()),
        reason=reason if mask is None else "",
    )
