"""Small networks whose channels are coupled in different ways."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3)) - 0.3
"""The samples of the networks that take images."""
TOKENS = torch.rand(2, 5, 12, generator=torch.Generator().manual_seed(4)) - 0.5
"""The samples of the networks that take sequences."""


class Dense(nn.Module):
    """Three convolutions that read everything before them, as in a DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in (6, 10, 14))
        self.layers = nn.ModuleList(nn.Conv2d(c, 4, 3, padding=1, bias=False) for c in (6, 10, 14))
        self.head = nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = torch.cat([x, layer(torch.relu(norm(x)))], dim=1)
        return self.head(x.mean((2, 3)))


class Grouped(nn.Module):
    """A grouped convolution beside a depthwise one with two outputs for each input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 1)
        self.grouped = nn.Conv2d(12, 18, 3, padding=1, groups=3)
        self.second = nn.Conv2d(18, 6, 1)
        self.depthwise = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.first(x))))
        return self.head(torch.relu(self.depthwise(self.second(x))))


class Functional(nn.Module):
    """Bare parameters, functional calls, a residual sum, and a flattened feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3) / 3)
        self.inner = nn.Parameter(torch.randn(8, 8, 3, 3) / 5)
        self.slope = nn.Parameter(torch.rand(8))
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.matrix = nn.Parameter(torch.randn(8 * 16, 6) / 9)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.prelu(F.conv2d(x, self.kernel, padding=1), self.slope)
        x = F.max_pool2d(x + self.scale * F.conv2d(x, self.inner, padding=1), 2)
        return self.head(torch.relu(x.flatten(1) @ self.matrix))


class Shared(nn.Module):
    """One convolution and one batch norm that are used twice, and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.Linear(8, 7)
        self.second = nn.Linear(8, 7)
        self.second.weight = self.first.weight
        self.head = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for _ in range(2):
            x = torch.relu(self.norm(self.again(x)))
        x = x.mean((2, 3))
        return self.head(torch.relu(self.first(x)) * torch.sigmoid(self.second(x)))


class Gated(nn.Module):
    """A squeeze-and-excitation gate for channels, and a spatial gate for places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.places = nn.Conv2d(8, 1, 1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        squeezed = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = x * torch.sigmoid(self.excite(squeezed))
        return self.head(x * torch.sigmoid(self.places(x)))


class Shuffled(nn.Module):
    """A pixel shuffle, which turns channels into places, and halves of one layer's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.middle = nn.Conv2d(4, 12, 3, padding=1)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(torch.relu(F.pixel_shuffle(self.stem(x), 2)))
        first, second = x.chunk(2, dim=1)
        return self.head(torch.relu(first) * second)


class GroupedQueries(nn.Module):
    """Attention in which two heads of queries share one of keys and values, and a gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.query = nn.Linear(12, 32)
        self.key = nn.Linear(12, 16)
        self.value = nn.Linear(12, 16, bias=False)
        self.output = nn.Linear(32, 12)
        self.gate = nn.Linear(12, 10)
        self.up = nn.Linear(12, 10)
        self.down = nn.Linear(10, 12)

    def forward(self, x: Tensor) -> Tensor:
        count, length, _ = x.shape
        y = self.norm(x)
        heads = [
            layer(y).reshape(count, length, -1, 4).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        seen = F.scaled_dot_product_attention(*heads, enable_gqa=True)
        x = x + self.output(seen.transpose(1, 2).reshape(count, length, -1))
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


class FixedSizes(nn.Module):
    """Code that fixes the number of heads, beside a layer whose size is free."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(12, 12)
        self.key = nn.Linear(12, 12)
        self.value = nn.Linear(12, 12)
        self.output = nn.Linear(12, 12)
        self.up = nn.Linear(12, 16)
        self.down = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        heads = [
            layer(x).reshape(-1, 5, 3, 4).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        seen = F.scaled_dot_product_attention(*heads)
        x = self.output(seen.transpose(1, 2).reshape(-1, 5, 12))
        return self.down(torch.relu(self.up(x)))


class Unused(nn.Module):
    """A layer whose result nothing uses, so that it is not in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 6, 1)
        self.unused = nn.Conv2d(6, 2, 1)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        self.unused(x)
        return self.head(x)


class OneHead(nn.Module):
    """Attention with one head, whose scale changes with the number of features."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(12, 8)
        self.key = nn.Linear(12, 8)
        self.value = nn.Linear(12, 8)
        self.output = nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        seen = F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return self.output(seen)


class Tied(nn.Module):
    """An embedding whose table is also the weight of the classifier, and bare parameters inside."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.randn(10, 8) / 3)
            self.down = nn.Parameter(torch.randn(8, 10) / 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.silu(F.linear(x, self.up)), self.down)

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.block = self.Block()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        return F.linear(x + self.block(x), self.table.weight)


IMAGE_NETWORKS = (Dense, Grouped, Functional, Shared, Gated, Shuffled)
TOKEN_NETWORKS = (GroupedQueries, FixedSizes, OneHead)
