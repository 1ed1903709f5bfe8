"""Computes a block with learnable roundings, scales and biases."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from photomask.chip.graph import Node
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import AdaRound, PerTensor, Quantizer
from photomask.chip.quantizers.qdrop import drop_quantization
from photomask.chip.reconstruction.blocks import Block, has_weight
from photomask.chip.reconstruction.documents import ReconstructionSettings
from photomask.chip.reconstruction.edges import run_nodes
from photomask.chip.reconstruction.learnable import is_uniform, learned_scales
from photomask.errors import QuantizerError

LARGEST_FACTOR = 2.0
"""The factor by which a scale may grow or shrink; biases still fit if the scale is halved."""


@dataclass(frozen=True)
class Learned:
    """The learned tensors of a block, in the form that a prepared model holds.

    Attributes:
        weights: the dequantized weights by node.
        biases: the biases by node.
        scales: the scales of activations, by the node that owns the scale.
        changed: the number of codes that differ from the nearest code.
    """

    weights: dict[str, Tensor]
    biases: dict[str, Tensor]
    scales: dict[str, Tensor]
    changed: int = 0


class BlockLearner:
    """A block whose soft roundings, scales and biases are parameters.

    Args:
        prepared: the model with the initial weights and quantizers, which is not changed.
        block: the block that learns.
        settings: the settings, which decide what learns and how activations are dropped.
    """

    def __init__(
        self,
        prepared: PreparedModel,
        block: Block,
        settings: ReconstructionSettings,
    ):
        self.prepared = prepared
        self.block = block
        self.keep_probability = settings.keep_probability
        self.roundings: dict[str, AdaRound] = {}
        """The learnable roundings, by the first layer that has the weight."""
        self.quantizers: dict[str, Quantizer] = {}
        """The original quantizers of the same weights."""
        self.weight_owners: dict[str, str] = {}
        """By layer, the first layer that has the same weight."""
        self.constants: dict[str, dict[str, Tensor]] = {}
        self.biases: dict[str, nn.Parameter] = {}
        for node in block.nodes:
            self.constants[node.name] = {
                role: tensor.detach() for role, tensor in prepared.constants_of(node).items()
            }
            if has_weight(node):
                self._adopt(node, settings)
        self.owners = learned_scales(prepared, block) if settings.scale_rate else []
        device = prepared.device
        self.start = torch.stack(
            [prepared.activation_quantizer(owner).scale.detach() for owner in self.owners]
            or [torch.ones((), device=device)]
        )
        self.logarithms = nn.Parameter(torch.zeros_like(self.start))
        self.sites = {node.name: _Site(prepared, node, self.owners) for node in block.nodes}
        self.units = {name: self._unit(name) for name in self.biases}

    def _adopt(self, node: Node, settings: ReconstructionSettings) -> None:
        """Makes a layer's rounding and bias learnable, unless other blocks depend on them too.

        A weight that several layers share learns in the block of the first of them. A weight that
        is also a table or a transposed weight does not learn.
        """
        prepared, weight = self.prepared, self.constants[node.name]["weight"]
        layer = prepared.layer(node)
        self.weight_owners[node.name] = owner = layer.owner
        if layer.is_first and prepared.can_round(node):
            self.quantizers[owner] = layer.quantizer
            self.roundings[owner] = AdaRound.adopt(layer.quantizer, weight).train()
        elif owner not in self.roundings:
            self.constants[node.name]["weight"] = layer.quantizer(weight).detach()
        if settings.bias_rate and not prepared.places_of(node, "bias"):
            self.biases[node.name] = nn.Parameter(torch.zeros_like(weight.flatten(1)[:, 0]))

    def run(self, values: dict[str, Tensor], chance: "Chance") -> list[Tensor]:
        """Computes the block from its entries in `values`, and adds the outputs of its nodes.

        Returns:
            For each learned weight, the share of the scale by which its elements are rounded up.
        """
        scales = self._scales().unbind()
        parts: list[Tensor] = []
        softened: dict[str, Tensor] = {}

        def constants_of(node: Node) -> Mapping[str, Tensor]:
            constants = self.constants[node.name]
            if not has_weight(node):
                return constants
            owner = self.weight_owners[node.name]
            if owner in self.roundings and owner not in softened:
                softened[owner], part = self.roundings[owner].soften(constants["weight"])
                parts.append(part)
            weight = softened.get(owner, constants["weight"])
            return constants | {"weight": weight, "bias": self._bias(node.name)}

        def settle(node: Node, value: Tensor) -> Tensor:
            return self.sites[node.name].settle(value, scales, chance)

        run_nodes(self.block.nodes, values, constants_of, settle)
        return parts

    def learned(self) -> Learned:
        """Returns the weights with integer codes, the biases and the scales.

        Raises:
            QuantizerError: the original quantizer gives a learned weight other codes.
        """
        weights, changed = {}, 0
        with torch.no_grad():
            for name, rounding in self.roundings.items():
                weight = self.constants[name]["weight"]
                codes = rounding.quantize(weight)
                plain = self.quantizers[name]
                weights[name] = plain.dequantize(codes)
                if not torch.equal(plain.quantize(weights[name]), codes):
                    raise QuantizerError(
                        f"weight of {name!r}: {type(plain).__name__} does not return the codes "
                        "that were learned for it; check_quantizer says which law it breaks"
                    )
                changed += int((codes != plain.quantize(weight)).sum())
            biases = {name: self._bias(name).detach().clone() for name in self.biases}
            scales = dict(zip(self.owners, self._scales().unbind(), strict=False))
        return Learned(weights, biases, {k: v.clone() for k, v in scales.items()}, changed)

    def _scales(self) -> Tensor:
        limit = math.log(LARGEST_FACTOR)
        return self.start * self.logarithms.clamp(-limit, limit).exp()

    def _bias(self, name: str) -> Tensor:
        bias = self.constants[name]["bias"]
        return bias + self.biases[name] * self.units[name] if name in self.biases else bias

    def _unit(self, name: str) -> Tensor:
        """Returns the unit in which a bias learns, the mean norm of the layer's weight rows."""
        weight = self.constants[name]["weight"]
        return weight.flatten(1).norm(dim=1).mean()


class Chance:
    """Chooses at random the activations that are quantized in a step.

    Random decisions are drawn once. Each use takes a part of them that starts at a random position,
    which is much cheaper than drawing anew.
    """

    def __init__(self, probability: float, size: int, device: torch.device, seed: int):
        self.probability = probability
        self._starts = torch.Generator().manual_seed(seed)
        self._size = 4 * size
        if probability < 1:
            generator = torch.Generator(device).manual_seed(seed)
            pool = torch.empty(self._size, dtype=torch.bool, device=device)
            self._pool = pool.bernoulli_(probability, generator=generator)

    def keep(self, x: Tensor) -> Tensor | None:
        """Returns a mask of the elements of `x` that are quantized, or None for all."""
        if self.probability == 1:
            return None
        start = int(torch.randint(self._size - x.numel(), (), generator=self._starts))
        stretch = self._pool[start : start + x.numel()]
        if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
            n, c, h, w = x.shape
            return stretch.view(n, h, w, c).permute(0, 3, 1, 2)
        return stretch.view(x.shape)


class _Site:
    """Quantizes the output of a node while its block learns."""

    def __init__(self, prepared: PreparedModel, node: Node, owners: list[str]):
        self.quantizer: Quantizer | None = None
        self.index: int | None = None
        if not node.operation.is_quantized:
            return
        self.quantizer = prepared.activation_quantizer(node.name)
        self.scale = self.quantizer.scale.detach()
        per_tensor = isinstance(self.quantizer.granularity, PerTensor)
        self.uniform = per_tensor and is_uniform(self.quantizer, self.scale.shape)
        if not self.uniform:
            return
        owner = prepared.scale_owner(node.name)
        self.index = owners.index(owner) if owner in owners else None
        codes, zero_point = self.quantizer.codes, int(self.quantizer.zero_point)
        self.low, self.high = codes.low - zero_point, codes.high - zero_point

    def settle(self, value: Tensor, scales: tuple[Tensor, ...], chance: Chance) -> Tensor:
        if self.quantizer is None:
            return value
        kept = chance.keep(value)
        if not self.uniform:
            quantized = self.quantizer(value)
            return quantized if kept is None else torch.where(kept, quantized, value)
        scale = self.scale if self.index is None else scales[self.index]
        return drop_quantization(value, scale, kept, low=self.low, high=self.high)
