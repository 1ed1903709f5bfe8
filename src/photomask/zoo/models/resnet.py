"""Residual networks for small images, as He et al. trained them on CIFAR."""

import torch
from torch import Tensor, nn

from photomask.zoo.models.initialization import initialize


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them: `relu(x' + f(x))`.

    If the shape changes, `x'` is a strided 1x1 convolution of `x` (option B). Otherwise `x' = x`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.convolution1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.convolution2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's output, [N, out_channels, H / stride, W / stride]."""
        residual = torch.relu(self.norm1(self.convolution1(x)))
        residual = self.norm2(self.convolution2(residual))
        return torch.relu(residual + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network of `6 * blocks_per_stage + 2` layers in three stages.

    Args:
        blocks_per_stage: the number of residual blocks in each stage. With 3, the network is
            ResNet-20.
        width: the number of channels of the first stage. Each later stage has twice as many
            channels, and an image of half the height and width.
        in_channels: the number of channels of the input image.
        classes: the number of logits.

    Source: He et al. 2016, section 4.2, arXiv:1512.03385. The shortcuts differ from the paper: they
    use option B (1x1 convolutions) in place of option A (strided slices and zeros).
    """

    def __init__(
        self, blocks_per_stage: int, *, width: int = 16, in_channels: int = 1, classes: int = 10
    ):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(3):
            for block in range(blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(ResidualBlock(channels, width << stage, stride))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [N, classes] of images [N, in_channels, H, W]."""
        x = torch.relu(self.norm(self.stem(x)))
        x = self.pool(self.blocks(x))
        return self.classifier(torch.flatten(x, 1))


def resnet20() -> ResNet:
    """Returns ResNet-20 of width 16 with random weights, for 28x28 grey images and ten classes."""
    return ResNet(3)
