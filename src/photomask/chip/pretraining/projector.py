"""Makes the projector, a small network between the features and the loss of pre-training."""

from collections.abc import Sequence

from torch import nn

from photomask.errors import UsageError

WIDTHS = (1024, 1024, 1024)
"""The widths of the layers, a quarter of those in the paper, for networks of 64 to 512 features."""


def make_projector(features: int, widths: Sequence[int] = WIDTHS) -> nn.Sequential:
    """Returns linear layers, each but the last with a batch norm and a ReLU behind it.

    The loss compares projected features, and the projector is thrown away after pre-training.

    Args:
        features: the number of features of the encoder.
        widths: the number of outputs of each layer; the last is the number of dimensions of an
            embedding. More dimensions than features help (Zbontar et al. 2021, section 4).

    Raises:
        UsageError: there is no layer, or one has fewer than two outputs.

    Source: Zbontar et al. 2021, section 2.2, arXiv:2103.03230.
    """
    if not widths or min(widths) < 2:
        raise UsageError(
            f"a projector has one layer or more, of two outputs or more each; found {list(widths)}"
        )
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers += [nn.Linear(features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, widths[-1], bias=False))
