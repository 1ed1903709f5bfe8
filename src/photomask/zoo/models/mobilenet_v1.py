"""MobileNetV1: depthwise-separable convolutions, sized for 28x28 images."""

import torch
from torch import Tensor, nn

from photomask.zoo.models.initialization import initialize

# (output channels at width 1, stride) of the thirteen separable blocks. The paper halves a 224x224
# image five times. Here only the last three halvings remain, which take 28x28 to 14, 7 and 4, so
# the stem and the second block have stride 1.
_BLOCKS = (
    (64, 1),
    (128, 1),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


def _convolution(in_channels: int, out_channels: int, size: int, stride: int, groups: int):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class MobileNetV1(nn.Module):
    """Thirteen pairs of a 3x3 depthwise and a 1x1 convolution, each with batch norm and ReLU.

    Args:
        width_multiplier: the factor of every number of channels. The products are rounded down to
            multiples of 8.
        in_channels: the number of channels of the input image.
        classes: the number of logits.

    Source: Howard et al. 2017, table 1, arXiv:1704.04861.
    """

    def __init__(self, *, width_multiplier: float = 0.5, in_channels: int = 1, classes: int = 10):
        super().__init__()

        def scaled(channels: int) -> int:
            return max(8, int(channels * width_multiplier) // 8 * 8)

        channels = scaled(32)
        layers: list[nn.Module] = [_convolution(in_channels, channels, 3, 1, 1)]
        for out_channels, stride in _BLOCKS:
            layers.append(_convolution(channels, channels, 3, stride, channels))
            layers.append(_convolution(channels, scaled(out_channels), 1, 1, 1))
            channels = scaled(out_channels)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [N, classes] of images [N, in_channels, H, W]."""
        x = self.pool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


def mobilenet_v1() -> MobileNetV1:
    """Returns MobileNetV1 with half width and random weights, for 28x28 grey images.

    It has 0.82 million parameters. Half width is the largest usual width with which the float32
    file stays under 4 MB.
    """
    return MobileNetV1(width_multiplier=0.5)
