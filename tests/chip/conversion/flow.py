"""From a module to a verified integer program, with every promise on the way checked."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from photomask.chip import IntegerProgram, Recipe, calibrate, convert, prepare
from photomask.chip.engines import TorchEngine
from photomask.chip.graph import FloatGraph, capture, simplify
from photomask.chip.graph.float_graph import largest_difference
from photomask.chip.program import NumpyEngine
from photomask.chip.quantizers import PerChannel, Quantizer
from photomask.chip.target import Target

FINE = Recipe(
    name="fine",
    weight=Quantizer(16, granularity=PerChannel(), narrow=True),
    activation=Quantizer(16, symmetric=False),
)
"""Sixteen bits everywhere: what is left of an error is one of logic."""
WIDE = Target(name="wide", accumulator_bits=44, bias_bits=44, multiplier_bits=19)


class Several(nn.Module):
    """Gives the same inputs to several modules or functions and returns all results."""

    def __init__(self, *parts: Callable[..., Any]):
        super().__init__()
        self.parts = nn.ModuleList(
            part if isinstance(part, nn.Module) else Function(part) for part in parts
        )

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(part(*inputs) for part in self.parts)


class Function(nn.Module):
    def __init__(self, apply: Callable[..., Any]):
        super().__init__()
        self.apply_to = apply

    def forward(self, *inputs: Tensor) -> Any:
        return self.apply_to(*inputs)


def randomize(model: nn.Module) -> nn.Module:
    """Gives batch norms statistics, and all weights sizes, that leave nothing at 0 or 1."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


def inputs_of(*shapes: Sequence[int], batch: int = 8) -> list[Tensor]:
    return [torch.randn(batch, *shape) for shape in shapes]


def outputs_of(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(model(*(x.clone() for x in inputs)))
    return [leaf for leaf in leaves if leaf is not None]


def assert_captured(model: nn.Module, inputs: Sequence[Tensor]) -> FloatGraph:
    """The simplified graph equals the module for batches of 1, 2 and 5."""
    model.eval()
    graph = simplify(capture(model, [x[:1] for x in inputs]))
    names = [node.name for node in graph.nodes]
    assert len(names) == len(set(names))
    for batch in (1, 2, 5):
        part = [x[:batch] for x in inputs]
        with torch.no_grad():
            results = graph(*part)
        expected = outputs_of(model, part)
        assert [tuple(r.shape) for r in results] == [tuple(e.shape) for e in expected]
        assert largest_difference(results, expected) < 2e-5
    return graph


def converted(
    model: nn.Module,
    inputs: Sequence[Tensor],
    recipe: Recipe = FINE,
    target: Target = WIDE,
) -> IntegerProgram:
    prepared = prepare(model, recipe, [x[:1] for x in inputs])
    calibrate(prepared, [inputs])
    return convert(prepared, target)


def codes_of(program: IntegerProgram, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    return {
        name: program.quantize_input(x, name)
        for name, x in zip(program.inputs, inputs, strict=True)
    }


def assert_engines_agree(program: IntegerProgram, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Both engines give the same integers on every edge; returns them."""
    codes = codes_of(program, inputs)
    fast = dict(TorchEngine(program).edges(codes))
    count = 0
    for name, expected in NumpyEngine(program).edges({n: c.numpy() for n, c in codes.items()}):
        assert torch.equal(fast[name], torch.from_numpy(np.ascontiguousarray(expected))), name
        edge = program.edges[name]
        assert edge.low <= expected.min()
        assert expected.max() <= edge.high
        count += 1
    assert count == len(program.edges)
    return fast


def real_outputs(program: IntegerProgram, integers: dict[str, Tensor]) -> list[Tensor]:
    edges = [program.edges[name] for name in program.outputs]
    return [(integers[e.name] - e.zero_point).double() * e.scale[0] for e in edges]


def signal_to_noise(model: nn.Module, inputs: Sequence[Tensor], program: IntegerProgram) -> float:
    """Returns the worst output's `10 log10(sum y^2 / sum (y - integer y)^2)`, engines compared."""
    integers = assert_engines_agree(program, inputs)
    worst = float("inf")
    expected = outputs_of(model, inputs)
    for found, y in zip(real_outputs(program, integers), expected, strict=True):
        assert found.shape == y.shape
        noise = float((found - y.double()).square().sum())
        signal = float(y.double().square().sum())
        worst = min(worst, 10 * np.log10(signal / noise) if noise else float("inf"))
    return worst


def assert_exact_flow(
    model: nn.Module, inputs: Sequence[Tensor], least_db: float = 60.0
) -> FloatGraph:
    """Captured right, and as integers of 16 bits right within `least_db`."""
    graph = assert_captured(model, inputs)
    found = signal_to_noise(model, inputs, converted(model, inputs))
    assert found > least_db, f"{found:.1f} dB"
    return graph
