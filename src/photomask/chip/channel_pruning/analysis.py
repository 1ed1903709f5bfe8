"""Analyses which channels of a model can leave, and makes the model without some of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from photomask.chip.channel_pruning.closing import close
from photomask.chip.channel_pruning.coupling import Coupling
from photomask.chip.channel_pruning.cutting import add_to_bias, cut
from photomask.chip.channel_pruning.groups import ChannelGroup, find_groups, layer_of
from photomask.chip.channel_pruning.trial import Failure, as_example, try_out
from photomask.chip.data import Data
from photomask.chip.graph.capture import capture_with_batches
from photomask.chip.graph.examples import example_inputs
from photomask.chip.graph.float_model import as_module
from photomask.errors import UsageError


@dataclass(eq=False)
class Analysis:
    """What is known of a model's channels.

    Attributes:
        model: the model, which is not changed.
        coupling: which channels leave together.
        batch: samples on which a cut model is tried out.
        names: the names of the inputs, where they were given.
    """

    model: nn.Module
    coupling: Coupling
    batch: Sequence[Tensor]
    names: Sequence[str]

    def groups(self) -> list[ChannelGroup]:
        """Returns the groups of channels that can leave."""
        return find_groups(self.coupling, self.model)

    def layers(self) -> dict[str, tuple[str, int]]:
        """Returns by name of a layer the tensor and axis of its output channels."""
        found: dict[str, tuple[str, int]] = {}
        for tensor, axis in sorted(self.coupling.producers):
            name = layer_of(tensor)
            found[f"{name}[{axis}]" if name in found else name] = tensor, axis
        return found

    def without(
        self, removed: frozenset[int], addends: Mapping[str, Tensor] | None = None
    ) -> tuple[nn.Module, Failure | None]:
        """Returns the model without sets of channels, and what fails in it.

        Args:
            removed: the sets.
            addends: by name of a layer, what is added to its bias in place of dead channels; None
                if the channels are not dead, and the model computes other numbers without them.
        """
        leaving = cuts_of(self.groups(), removed)
        model = cut(self.model, leaving)
        for name, addend in (addends or {}).items():
            weight = f"{name}.weight" if name else "weight"
            rows = [i for i in range(len(addend)) if i not in leaving.get((weight, 0), ())]
            add_to_bias(model.get_submodule(name), addend[rows])
        zeroed = removed if addends is None else frozenset()
        failure = try_out(model, self.coupling, removed, zeroed, self.batch, self.names)
        return model, failure


def analyse(model: nn.Module, example: Data) -> Analysis:
    """Captures a model and finds its coupled channels.

    Raises:
        UsageError: the model is no module.
        CaptureError: the model cannot be captured.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"channels can be removed from a torch.nn.Module, got {type(model).__name__}; "
            "give the module before its export"
        )
    model = as_module(model)
    inputs, names = example_inputs(model, example)
    graph, batches = capture_with_batches(model, as_example(inputs, names))
    coupling = Coupling(graph)
    close(coupling)
    return Analysis(model, coupling, batches[0], names)


def cuts_of(
    groups: Sequence[ChannelGroup], removed: frozenset[int]
) -> dict[tuple[str, int], frozenset[int]]:
    """Returns the indices that leave each tensor of the model, by tensor and axis."""
    found: dict[tuple[str, int], frozenset[int]] = {}
    for group in groups:
        for tensor in group.tensors:
            leaving = {
                index
                for number, places in zip(group.numbers, tensor.slices, strict=True)
                if number in removed
                for index in places
            }
            if leaving:
                key = tensor.name, tensor.axis
                found[key] = found.get(key, frozenset()) | leaving
    return found
