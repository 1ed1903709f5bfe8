import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photomask.chip.graph import capture, simplify
from photomask.chip.graph.operations import Embedding


class Turned(nn.Module):
    """Features times a function of their positions, which may mix them."""

    def __init__(self, *, mixing: bool = False):
        super().__init__()
        self.mixing = mixing
        self.register_buffer("order", torch.arange(11)[:, None])
        self.register_buffer("speed", torch.tensor([1.0, 0.1, 0.01]))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        at = F.embedding(positions, self.order).squeeze(-1).float()
        angle = (self.speed[None, :, None] @ at[:, None, :]).transpose(1, 2)
        turned = torch.cat([angle, angle], dim=-1).cos()
        if self.mixing:
            turned = turned + turned.mean(dim=1, keepdim=True)
        return x * turned[:, None]


def graph_of(model: nn.Module, length: int):
    x, positions = torch.randn(2, 2, length, 6), torch.randint(0, 11, (2, length))
    return simplify(capture(model, [x, positions])), x, positions


def kinds(graph) -> list[str]:
    return [node.operation.kind for node in graph.nodes if node.operation.decides_scale]


def test_functions_of_positions_become_one_table():
    for length in (1, 3, 6):
        graph, x, positions = graph_of(Turned(), length)
        assert kinds(graph) == ["input", "embedding", "multiply"]
        (table,) = [node for node in graph.nodes if isinstance(node.operation, Embedding)]
        assert graph.constants_of(table)["table"].shape == (11, 6)
        torch.testing.assert_close(graph(x, positions)[0], Turned()(x, positions))


def test_what_mixes_positions_is_no_table():
    graph, x, positions = graph_of(Turned(mixing=True), 4)
    assert len(kinds(graph)) > 3
    torch.testing.assert_close(graph(x, positions)[0], Turned(mixing=True)(x, positions))
