"""The random initial weights of the networks of the zoo."""

from torch import nn


def initialize(model: nn.Module) -> None:
    """Draws new weights in place: He-normal convolutions, unit norms and small linear layers.

    Here, linear layers are classifiers. The file of a transformer draws the linear layers inside
    its blocks itself.

    Args:
        model: the network to initialize. The numbers come from torch's global generator.

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
