"""Scores coupled channels; the ones with the lowest scores are removed."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photomask.chip.channel_pruning.groups import ChannelGroup
from photomask.errors import DataError, UsageError


class Importance:
    """Scores sets of coupled channels. A subclass overrides `score`, or `scores` for all groups."""

    def score(self, group: ChannelGroup) -> Tensor:
        """Returns a score for each set of coupled channels, [sets]; the lowest leave first."""
        raise NotImplementedError

    def scores(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> list[Tensor]:
        """Returns the scores of all groups; override it where they need the model.

        Args:
            model: the model that is pruned; it must not be changed.
            groups: the groups of channels that can leave it.
        """
        return [self.score(group) for group in groups]


class Magnitude(Importance):
    """The Euclidean norm of all weights that leave together with the channels.

    `score = sqrt(sum of w**2)` over all parameters of the set: rows of layers that compute the
    channels, gains and shifts of norms, and columns of layers that read the channels.

    Source: Li et al. 2017, section 3.1, arXiv:1608.08710. There it is the absolute sum of the
    filter alone.
    """

    def score(self, group: ChannelGroup) -> Tensor:
        """Returns the norm of each set."""
        squares = [t.sums(t.value.double().square()) for t in group.tensors if t.is_parameter]
        return torch.stack(squares).sum(0).sqrt()


class BatchNormGain(Importance):
    """The absolute gains of the batch norms on the channels, `sum of |gamma|`.

    Source: Liu et al. 2017, section 3, arXiv:1708.06519. There, a penalty on the gains makes many
    of them small during training.
    """

    def score(self, group: ChannelGroup) -> Tensor:
        """Returns the sum of the gains of each set.

        Raises:
            UsageError: no batch norm with gains normalizes the channels.
        """
        norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
        gains = [
            t.sums(t.value.double().abs())
            for t in group.tensors
            if isinstance(t.owner, norms) and t.name.rpartition(".")[2] == "weight"
        ]
        if not gains:
            raise UsageError(
                f"no batch norm scales the output channels of {', '.join(group.layers)}, so "
                "BatchNormGain cannot score them; choose Magnitude or Taylor"
            )
        return torch.stack(gains).sum(0)


class Taylor(Importance):
    """The expected change of the loss if channels are removed, to first order.

    `score = mean over batches of (sum of gradient * w)**2` over all parameters of the set.

    Args:
        batches: pairs of inputs and labels. A `DataLoader` is one such iterable.
        loss: a function of the model's output and the labels.

    Source: Molchanov et al. 2019, equation 7, arXiv:1906.10771.
    """

    def __init__(
        self,
        batches: Sequence[tuple[Tensor, Tensor]],
        loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    ):
        self.batches = batches
        self.loss = loss

    def scores(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> list[Tensor]:
        """Returns the scores from gradients in evaluation mode.

        Raises:
            DataError: there are no batches, or a loss is not finite.
        """
        totals = [torch.zeros(len(group), dtype=torch.float64) for group in groups]
        count = 0
        modes = [(module, module.training) for module in model.modules()]
        parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
        model.eval()
        try:
            for inputs, labels in self.batches:
                gradients = _gradients(model, parameters, self.loss, inputs, labels)
                for total, group in zip(totals, groups, strict=True):
                    changes = [
                        t.sums(gradients[t.name] * t.value.cpu().double())
                        for t in group.tensors
                        if t.name in gradients
                    ]
                    total += torch.stack(changes).sum(0).square()
                count += 1
        finally:
            for module, mode in modes:
                module.training = mode
        if not count:
            raise DataError("Taylor got no batches; give at least one pair of inputs and labels")
        return [total / count for total in totals]


def _gradients(
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
) -> dict[str, Tensor]:
    """Returns the gradients of a batch's loss, without touching those that the model holds."""
    leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    device = next(iter(leaves.values())).device
    output = torch.func.functional_call(model, leaves, (inputs.to(device),))
    value = loss(output, labels.to(device))
    if not bool(torch.isfinite(value)):
        raise DataError(
            f"the loss of a batch is {float(value)}; check the batch, the labels and the weights"
        )
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf).cpu().double() if gradient is None else gradient.cpu().double()
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }
