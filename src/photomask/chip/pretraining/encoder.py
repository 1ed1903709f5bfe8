"""Makes an encoder of a classifier, by leaving out its last linear layer."""

import copy

import torch
from torch import Tensor, nn

from photomask.chip.data import Data
from photomask.chip.graph import capture
from photomask.errors import UsageError


class Encoder(nn.Module):
    """A copy of a classifier that returns the features which its last linear layer would read.

    Args:
        model: the classifier, which stays as it is.
        head: the name of its last linear layer, as in `named_modules`.

    Attributes:
        features: the number of features.
        classes: the number of outputs of the layer that is left out.

    Raises:
        UsageError: the model has no linear layer of this name.
    """

    def __init__(self, model: nn.Module, head: str):
        super().__init__()
        layer = dict(model.named_modules()).get(head)
        if not isinstance(layer, nn.Linear):
            linear = [name for name, x in model.named_modules() if isinstance(x, nn.Linear)]
            found = "no module" if layer is None else f"a {type(layer).__name__}"
            raise UsageError(
                f"the head {head!r} is {found} of the model, expected its last linear layer; its "
                f"linear layers are {', '.join(linear) or 'none'}"
            )
        self.head = head
        self.features = layer.in_features
        self.classes = layer.out_features
        self.body = copy.deepcopy(model)
        _replace(self.body, head, nn.Identity())

    def forward(self, *inputs: Tensor) -> Tensor:
        """Returns the features, [samples, features]."""
        return self.body(*inputs)

    def classifier(self, classes: int | None = None, *, seed: int = 0) -> nn.Module:
        """Returns the model with this encoder's weights and a new linear layer at the end.

        Args:
            classes: the number of outputs; None for as many as the layer had that was left out.
            seed: the seed of the layer's weights.

        Returns:
            A module of the original class, on the encoder's device and in evaluation mode. It
            shares no tensor with the encoder.

        Raises:
            UsageError: there are fewer than two classes.
        """
        wanted = self.classes if classes is None else classes
        if wanted < 2:
            raise UsageError(f"a classifier has two classes or more, found {wanted}")
        model = copy.deepcopy(self.body)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layer = nn.Linear(self.features, wanted)
        _replace(model, self.head, layer.to(next(model.parameters()).device))
        return model.eval()


def without_head(
    model: nn.Module, *, example: Data | None = None, head: str | None = None
) -> Encoder:
    """Returns an encoder: a copy of a classifier without its last linear layer.

    Args:
        model: the classifier, which stays as it is.
        example: an input with which the model is captured, to find the layer that makes its
            output.
        head: the name of the layer, for a model that cannot be captured.

    Raises:
        UsageError: neither or both of `example` and `head` are given, the name is not that of a
            linear layer, or the output of the model is not that of a linear layer.
        CaptureError: the model cannot be captured.
    """
    if (example is None) == (head is None):
        raise UsageError(
            "give either an example, with which the last layer is found, or the name of the last "
            "layer as head"
        )
    if head is None:
        graph = capture(model, example)
        last = graph.by_name[graph.outputs[0]]
        if not isinstance(dict(model.named_modules()).get(last.name), nn.Linear):
            raise UsageError(
                f"the output of the model comes from {last.name!r} ({last.source}), which is no "
                "nn.Linear module; give the name of its last linear layer as head, or write a "
                "module that returns features"
            )
        head = last.name
    return Encoder(model, head)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
