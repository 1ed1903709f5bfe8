"""The random start of every network of the zoo."""

from torch import nn


def initialize(model: nn.Module) -> None:
    """Draws fresh weights in place: He-normal convolutions, unit norms, small linear layers.

    Linear layers are classifiers; those inside a transformer are drawn by its own file.

    Args:
        model: the network to initialize; draws from torch's global generator.

    Source: He et al. 2015, "Delving deep into rectifiers", equation 14, arXiv:1502.01852.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
