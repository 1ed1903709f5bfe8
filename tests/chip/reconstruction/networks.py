"""Networks whose blocks are known."""

import torch
from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """1x1, depthwise, 1x1; the input is added where the shape stays."""

    def __init__(self, channels: int, out_channels: int, expansion: int):
        super().__init__()
        inner = channels * expansion
        self.expand = nn.Conv2d(channels, inner, 1)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.project = nn.Conv2d(inner, out_channels, 1)
        self.adds = channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.depthwise(torch.relu(self.expand(x))))
        y = self.project(y)
        return x + y if self.adds else y


class Inverted(nn.Module):
    """A stem, two inverted residuals of which one adds, a pool and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first = InvertedResidual(4, 6, 2)
        self.second = InvertedResidual(6, 6, 2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(torch.relu(self.stem(x))))
        return self.head(x.mean(dim=(2, 3)))


class Separable(nn.Module):
    """Depthwise and 1x1 convolutions in turn, as in MobileNetV1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList()
        for channels in (4, 8):
            self.layers.append(nn.Conv2d(channels, channels, 3, padding=1, groups=channels))
            self.layers.append(nn.Conv2d(channels, 2 * channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


class TransformerBlock(nn.Module):
    """Norms before attention and before the MLP, both added to their input."""

    def __init__(self, size: int = 8):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.out = nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        attended = nn.functional.scaled_dot_product_attention(
            self.query(y), self.key(y), self.value(y)
        )
        x = x + self.out(attended)
        return x + self.down(torch.relu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A linear embedding with positions, two blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.positions = nn.Parameter(torch.randn(1, 6, 8))
        self.blocks = nn.Sequential(TransformerBlock(), TransformerBlock())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x) + self.positions))


class TwoEnds(nn.Module):
    """A trunk whose middle is an output too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.first(x))
        return x, self.second(x)


class Shared(nn.Module):
    """One layer used twice, one once."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.once = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.once(torch.relu(self.twice(torch.relu(self.twice(x)))))
