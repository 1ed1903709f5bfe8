"""Keeps an exponential moving average of the trained tensors."""

import torch
from torch import Tensor, nn

from photomask.chip.prepared_model import PreparedModel


def averaged_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Returns by name the tensors that training changes: parameters, and batch norm statistics."""
    if isinstance(model, PreparedModel):
        statistics = dict(model.batch_norms.named_buffers("batch_norms"))
    else:
        statistics = {n: x for n, x in model.named_buffers() if x.is_floating_point()}
    return {**dict(model.named_parameters()), **statistics}


class WeightAverage:
    """The exponential moving average of weights, biases and learned scales.

        average = d * average + (1 - d) * value,   d = min(decay, steps / (steps + 10))

    The factor `d` is small at first, so that the initial values soon lose their influence.

    Args:
        prepared: the model that is trained, prepared or in float.
        decay: the largest factor of the old average in one step, below 1.

    Attributes:
        steps: the number of steps that have been averaged.
        tensors: the averages by the names of the tensors.
    """

    def __init__(self, prepared: nn.Module, decay: float):
        self._prepared = prepared
        self.decay = decay
        self.restart()

    def restart(self) -> None:
        """Starts again from the current values, as after a change of bit widths."""
        self.steps = 0
        with torch.no_grad():
            current = averaged_tensors(self._prepared)
            self.tensors = {name: tensor.detach().clone() for name, tensor in current.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Updates the averages with the current values."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        current = averaged_tensors(self._prepared)
        lerp = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]
        lerp(list(self.tensors.values()), [current[name] for name in self.tensors], 1 - decay)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Overwrites the model's tensors with the averages."""
        current = averaged_tensors(self._prepared)
        for name, tensor in self.tensors.items():
            current[name].copy_(tensor)
