"""The exponential moving average of what is trained."""

import torch
from torch import Tensor

from photomask.chip.preparation import PreparedModel


def averaged_tensors(prepared: PreparedModel) -> dict[str, Tensor]:
    """Returns by name what training changes: parameters, and statistics of batch norms."""
    statistics = prepared.batch_norms.named_buffers("batch_norms")
    return {**dict(prepared.named_parameters()), **dict(statistics)}


class WeightAverage:
    """The exponential moving average of weights, biases and learned scales.

        average = d * average + (1 - d) * value,   d = min(decay, steps / (steps + 10))

    so that the first steps do not hang on to where training began.

    Args:
        prepared: the model that is trained.
        decay: of a step, below 1.

    Attributes:
        steps: how many have been averaged.
        tensors: the averages, by the names of what they are of.
    """

    def __init__(self, prepared: PreparedModel, decay: float):
        self._prepared = prepared
        self.decay = decay
        self.restart()

    def restart(self) -> None:
        """Forgets the past, which a change of widths has made another model's."""
        self.steps = 0
        with torch.no_grad():
            current = averaged_tensors(self._prepared)
            self.tensors = {name: tensor.detach().clone() for name, tensor in current.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the values of now."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        current = averaged_tensors(self._prepared)
        lerp = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]
        lerp(list(self.tensors.values()), [current[name] for name in self.tensors], 1 - decay)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Puts the averages into the model."""
        current = averaged_tensors(self._prepared)
        for name, tensor in self.tensors.items():
            current[name].copy_(tensor)
