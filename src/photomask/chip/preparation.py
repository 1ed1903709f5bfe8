"""From a float model and a recipe to a graph with calibrated quantizers.

`prepare` decides where quantizers stand; `calibrate` measures data and decides their scales, once.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from photomask.chip.graph import FloatGraph, Node, capture, simplify
from photomask.chip.graph.float_graph import compute
from photomask.chip.graph.operations import Clamp, Concatenate, Input, Matmul, Multiply, Pad
from photomask.chip.quantizers import Quantizer
from photomask.chip.recipe import Recipe, Site
from photomask.errors import DataError, QuantizerError

BATCH = 32
"""Samples at a time where a whole tensor of calibration data is given."""
SCALE_SHARING = 2.0
"""Inputs of a concatenation whose scales differ by less take its scale, and need no rescaling."""

BIAS_BITS = 31
"""Of a bias before the zero point's share is folded in, which has at most as many again."""


class PreparedModel(nn.Module):
    """A float graph whose edges and weights have quantizers.

    Calling it computes with quantized values and straight-through gradients: what the integer
    program will compute, up to the rounding of its rescaling multipliers.

    Attributes:
        graph: the simplified float graph.
        recipe: what was asked for.
        weights: every constant tensor of the graph, as parameters.
    """

    def __init__(self, graph: FloatGraph, recipe: Recipe):
        super().__init__()
        self.graph = graph
        self.recipe = recipe
        self.weights = nn.ParameterDict(
            {_key(name): nn.Parameter(tensor) for name, tensor in graph.constants.items()}
        )
        resolved = recipe.resolve(sites(graph))
        self.weight_quantizers = nn.ModuleDict(
            {_key(name): pair.weight for name, pair in resolved.items() if pair.weight is not None}
        )
        self.activation_quantizers = nn.ModuleDict(
            {_key(name): pair.activation for name, pair in resolved.items()}
        )
        self._owner = scale_owners(graph)

    def constants_of(self, node: Node) -> dict[str, Tensor]:
        """Returns a node's constant tensors by role, as parameters."""
        return {role: self.weights[_key(name)] for role, name in node.constants.items()}

    def scale_owner(self, edge: str) -> str:
        """Returns the node whose quantizer gives an edge its scale."""
        return self._owner[edge]

    def share_scale(self, edge: str, owner: str) -> None:
        """Gives an edge, and all edges that had its scale, the scale of another node."""
        old = self._owner[edge]
        for name, current in self._owner.items():
            if current == old:
                self._owner[name] = owner

    def activation_quantizer(self, edge: str) -> Quantizer:
        """Returns the quantizer that gives an edge its scale."""
        quantizer = self.activation_quantizers[_key(self._owner[edge])]
        assert isinstance(quantizer, Quantizer)  # noqa: S101 - only quantizers are put there
        return quantizer

    def weight_quantizer(self, node: str) -> Quantizer:
        """Returns the quantizer of a node's weight."""
        quantizer = self.weight_quantizers[_key(node)]
        assert isinstance(quantizer, Quantizer)  # noqa: S101 - only quantizers are put there
        return quantizer

    def observe(self, inputs: Sequence[Tensor]) -> None:
        """Computes in float and shows every edge to its quantizer."""
        for node, value in self.graph.run(inputs):
            if self._owner[node.name] == node.name or _makes_values(node):
                try:
                    self.activation_quantizer(node.name).observe(value)
                except DataError as error:
                    raise DataError(f"output of {node.name!r} ({node.source}): {error}") from error

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the outputs, computed with quantized weights and activations."""
        found: dict[str, Tensor] = {}
        values: dict[str, Tensor] = dict(zip(self.graph.inputs, inputs, strict=True))
        for node in self.graph.nodes:
            if not isinstance(node.operation, Input):
                constants = self.constants_of(node)
                if _key(node.name) in self.weight_quantizers:
                    quantizer = self.weight_quantizer(node.name)
                    constants["weight"] = quantizer(constants["weight"])
                operands = [values[name] for name in node.inputs]
                values[node.name] = compute(node, operands, constants)
            if not node.operation.keeps_scale or isinstance(node.operation, (Clamp, Pad)):
                values[node.name] = self.activation_quantizer(node.name)(values[node.name])
            if node.name in self.graph.outputs:
                found[node.name] = values[node.name]
        return tuple(found[name] for name in self.graph.outputs)


def _makes_values(node: Node) -> bool:
    """Tells whether a node that keeps its input's scale holds values that its input may not reach.

    The lowest possible padding, below every maximum, is none: any code that is low enough will do.
    """
    operation = node.operation
    if isinstance(operation, Pad):
        return operation.value != 0 and math.isfinite(operation.value)
    return isinstance(operation, Clamp) and (operation.low > 0 or operation.high < 0)


def _key(name: str) -> str:
    """Module names must not hold dots."""
    return name.replace(".", "/")


def sites(graph: FloatGraph) -> list[Site]:
    """Returns the places where a recipe may put quantizers, in the order of computation."""
    outputs = {scale_owners(graph)[name] for name in graph.outputs}
    return [
        Site(
            name=node.name,
            operator=node.operation.kind,
            has_weight="weight" in node.constants,
            is_output=node.name in outputs,
        )
        for node in graph.nodes
        if not node.operation.keeps_scale
    ]


def scale_owners(graph: FloatGraph) -> dict[str, str]:
    """Returns for each edge the node that decides its scale: itself, or where its values are from.

    Operations that only move or select values keep the scale of their input.
    """
    owners: dict[str, str] = {}
    for node in graph.nodes:
        owners[node.name] = owners[node.inputs[0]] if node.operation.keeps_scale else node.name
    return owners


def prepare(model: nn.Module, recipe: Recipe, example: Tensor | Sequence[Tensor]) -> PreparedModel:
    """Captures a model and puts a quantizer wherever the recipe says.

    Args:
        model: any module that `torch.export` captures; never changed.
        recipe: which quantizer each tensor gets.
        example: float inputs, batch first; a sample is enough.

    Raises:
        CaptureError: the model cannot be captured.
        UnsupportedOperatorError: operators without an integer form, all of them.
        RecipeError: a rule matches nothing.
    """
    return PreparedModel(simplify(capture(model, example)), recipe)


def calibrate(prepared: PreparedModel, data: Tensor | Iterable[Tensor | Sequence[Tensor]]) -> None:
    """Measures data once and decides every scale and zero point.

    Args:
        prepared: changed in place: its quantizers are fitted.
        data: a float tensor with samples at axis 0, or batches (tensors, or one tensor per input).

    Raises:
        DataError: no data, wrong shape or dtype, NaN or infinity in the data or behind it.
        QuantizerError: a quantizer cannot fit what it observed.
    """
    batches = data.split(BATCH) if isinstance(data, Tensor) else data
    count = 0
    with torch.no_grad():
        for batch in batches:
            inputs = [batch] if isinstance(batch, Tensor) else list(batch)
            _check_batch(prepared.graph, inputs, count)
            prepared.observe([x.to(torch.float32) for x in inputs])
            count += len(inputs[0])
        if not count:
            raise DataError("calibration needs at least one sample, got none")
        for node in prepared.graph.nodes:
            if not node.operation.keeps_scale:
                _fit(prepared.activation_quantizer(node.name), node, "output")
            if "weight" in node.constants:
                quantizer = prepared.weight_quantizer(node.name)
                quantizer.observe(prepared.constants_of(node)["weight"])
                _fit(quantizer, node, "weight")
        _share_scales(prepared)
        _coarsen_to_accumulators(prepared)
        for node in prepared.graph.nodes:
            if "weight" in node.constants:
                _make_room_for_biases(prepared, node)


def _coarsen_to_accumulators(prepared: PreparedModel) -> None:
    """Gives power-of-two outputs that are finer than their accumulator the accumulator's step.

    They hold nothing more, and hardware that only shifts right could not reach them: few 8-bit
    products in a 16-bit output, for one.
    """
    for _ in range(8):  # a coarser input makes a coarser accumulator; scales are few powers apart
        coarsened = False
        for node in prepared.graph.nodes:
            step, quantizer = _accumulator_step(prepared, node), None
            if step is not None:
                quantizer = prepared.activation_quantizer(node.name)
            if step is None or quantizer is None or not quantizer.power_of_two:
                continue
            if bool(quantizer.scale < step) and not bool(quantizer.zero_point.any()):
                scale = step.to(quantizer.scale).reshape(quantizer.scale.shape)
                quantizer.set_parameters(quantizer.format, scale, quantizer.zero_point)
                coarsened = True
        if not coarsened:
            return


def _accumulator_step(prepared: PreparedModel, node: Node) -> Tensor | None:
    """Returns the coarsest step of what a node rescales, where it only shifts."""
    scales = [prepared.activation_quantizer(name).scale for name in node.inputs]
    if "weight" in node.constants:
        return scales[0] * prepared.weight_quantizer(node.name).scale.max()
    if isinstance(node.operation, (Matmul, Multiply)):
        return scales[0] * scales[1]
    if isinstance(node.operation, Concatenate):
        return torch.stack(scales).max()
    return None


def _make_room_for_biases(prepared: PreparedModel, node: Node) -> None:
    """Raises the weight scales of channels whose bias outweighs their weights by far.

    A bias is added in units of `input scale * weight scale`. Where those are so small that the bias
    would need more than `BIAS_BITS` (a dead channel, a batch norm without variance), the sum of
    products is far smaller than the bias, and coarser weights lose nothing.
    """
    quantizer = prepared.weight_quantizer(node.name)
    bias = prepared.constants_of(node)["bias"].abs().double()
    input_scale = prepared.activation_quantizer(node.inputs[0]).scale.double()
    scale = quantizer.scale.double() if quantizer.channel_scale is None else quantizer.channel_scale
    if scale.ndim == 0:
        bias = bias.max()
    excess = bias / (scale * input_scale) / 2.0 ** (BIAS_BITS - 1)
    if bool((excess <= 1).all()):
        return
    factor = torch.exp2(excess.clamp(min=1).log2().ceil()).float()
    if quantizer.channel_scale is not None:
        quantizer.channel_scale = quantizer.channel_scale * factor
        factor = factor[:, None]
    quantizer.set_parameters(quantizer.format, quantizer.scale * factor, quantizer.zero_point)


def _fit(quantizer: Quantizer, node: Node, what: str) -> None:
    try:
        quantizer.fit()
    except QuantizerError as error:
        raise QuantizerError(f"{what} of {node.name!r} ({node.source}): {error}") from error


def _check_batch(graph: FloatGraph, inputs: Sequence[Tensor], seen: int) -> None:
    nodes = [graph.by_name[name] for name in graph.inputs]
    if len(inputs) != len(nodes):
        raise DataError(f"the model has {len(nodes)} input(s), the batch holds {len(inputs)}")
    for node, x in zip(nodes, inputs, strict=True):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise DataError(
                f"calibration data for {node.name!r} must be float tensors, got {found}"
            )
        if tuple(x.shape[1:]) != node.shape[1:] or len(x) == 0:
            raise DataError(
                f"calibration data for {node.name!r} has shape {list(x.shape)}, expected "
                f"[batch, {', '.join(map(str, node.shape[1:]))}]"
            )
        finite = torch.isfinite(x)
        if not bool(finite.all()):
            sample = int((~finite).nonzero()[0, 0]) + seen
            raise DataError(f"calibration sample {sample} of {node.name!r} holds NaN or infinity")


def _share_scales(prepared: PreparedModel) -> None:
    """Lets concatenations and what they join have one scale where their ranges are alike.

    From the last concatenation backwards, so that chains of them (DenseNet) end with one scale.
    """
    graph = prepared.graph
    fixed = {prepared.scale_owner(name) for name in (*graph.inputs, *graph.outputs)}
    for node in reversed(graph.nodes):
        if not isinstance(node.operation, Concatenate):
            continue
        owners = {prepared.scale_owner(name) for name in node.inputs}
        if len(owners) == 1 and node.name not in fixed:
            owner = owners.pop()
            if _alike(prepared, node.name, owner):
                prepared.share_scale(node.name, owner)
            continue
        for owner in owners - fixed:
            if owner != node.name and _alike(prepared, owner, node.name):
                prepared.share_scale(owner, node.name)


def _alike(prepared: PreparedModel, edge: str, owner: str) -> bool:
    """Tells whether an edge may take an owner's scale: same codes, a range that covers its own."""
    small, large = prepared.activation_quantizer(edge), prepared.activation_quantizer(owner)
    if type(small) is not type(large) or small.format != large.format:
        return False
    (low, high), (owner_low, owner_high) = real_range(small), real_range(large)
    step, owner_step = float(small.scale), float(large.scale)
    covers = owner_low <= low + owner_step and high - owner_step <= owner_high
    return covers and owner_step <= SCALE_SHARING * step


def real_range(quantizer: Quantizer) -> tuple[float, float]:
    """Returns the smallest and largest value that a per-tensor quantizer represents."""
    codes, zero = quantizer.codes, int(quantizer.zero_point)
    return (codes.low - zero) * float(quantizer.scale), (codes.high - zero) * float(quantizer.scale)
