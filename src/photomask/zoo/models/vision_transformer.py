"""A vision transformer, sized for 28x28 images."""

import torch
from torch import Tensor, nn

from photomask.zoo.models.initialization import initialize


class _Attention(nn.Module):
    """Multi-head self-attention, in which one product gives queries, keys and values."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.features = width // heads
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, _ = x.shape
        # The number of heads follows from the tensors, so that heads can be removed.
        parts = self.inputs(x).reshape(count, tokens, 3, -1, self.features)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return self.output(seen.transpose(1, 2).reshape(count, tokens, -1))


class _Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and beside a skip."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.perceptron(self.norm2(x))


class VisionTransformer(nn.Module):
    """A vision transformer, in which patches become tokens and a class token is classified.

    Args:
        image_size: the height and width of the input image, a multiple of `patch_size`.
        patch_size: the height and width of a patch.
        in_channels: the number of channels of the input image.
        width: the number of features of a token, a multiple of `heads`.
        depth: the number of blocks.
        heads: the number of attention heads in every block.
        hidden: the number of features inside the perceptrons.
        classes: the number of logits.

    Source: Dosovitskiy et al. 2021, section 3.1, arXiv:2010.11929.
    """

    def __init__(
        self,
        *,
        image_size: int = 28,
        patch_size: int = 4,
        in_channels: int = 1,
        width: int = 128,
        depth: int = 7,
        heads: int = 4,
        hidden: int = 256,
        classes: int = 10,
    ):
        super().__init__()
        tokens = (image_size // patch_size) ** 2
        self.patches = nn.Conv2d(in_channels, width, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + tokens, width))
        self.blocks = nn.Sequential(*(_Block(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)
        initialize(self)
        for parameter in (self.class_token, self.positions):
            nn.init.normal_(parameter, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [N, classes] of images [N, in_channels, image_size, image_size]."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + self.positions
        return self.classifier(self.norm(self.blocks(x)[:, 0]))


def vision_transformer() -> VisionTransformer:
    """Returns a small vision transformer with random weights, for 28x28 grey images.

    It has 7 blocks, width 128 and 0.93 million parameters. The perceptrons are only twice as wide
    as a token, instead of the usual four times, so that two more blocks fit into 4 MB.
    """
    return VisionTransformer()
