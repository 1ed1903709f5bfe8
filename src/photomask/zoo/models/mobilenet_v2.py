"""MobileNetV2: inverted residuals with linear bottlenecks."""

import torch
from torch import Tensor, nn

from photomask.zoo.models.initialization import initialize

# (expansion, output channels, repeats, stride of the first block) of the seven stages, table 2.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _convolution(
    in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """A block that expands by a 1x1 convolution, filters depthwise, and projects without ReLU.

    The depthwise convolution is 3x3, and the projection is 1x1. The input is added to the output if
    both have the same shape.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_convolution(in_channels, hidden, 1))
        layers += [
            _convolution(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's output, [N, out_channels, H / stride, W / stride]."""
        return x + self.conv(x) if self.adds_input else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 with width 1 and the parameter names of torchvision's checkpoints.

    Args:
        classes: the number of logits.

    Source: Sandler et al. 2018, table 2, arXiv:1801.04381.
    """

    def __init__(self, *, classes: int = 1000):
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, 3, stride=2)]
        channels = 32
        for expansion, out_channels, repeats, first_stride in _STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                layers.append(InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        layers.append(_convolution(channels, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [N, classes] of ImageNet-normalised images [N, 3, H, W]."""
        x = self.pool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


def mobilenet_v2() -> MobileNetV2:
    """Returns MobileNetV2 with random weights, for 224x224 colour images and 1,000 classes."""
    return MobileNetV2()
