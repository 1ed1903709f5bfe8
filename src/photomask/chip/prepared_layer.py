"""What a prepared model has of one layer with weights, gathered for whoever decides about it."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from photomask.chip.graph import Node
from photomask.chip.quantizers import Quantizer
from photomask.chip.units import accumulator_unit


@dataclass(frozen=True, eq=False)
class PreparedLayer:
    """A layer, its constants and the quantizers around it, as they are now.

    Attributes:
        node: the layer.
        owner: the first node that has the layer's weight; its quantizer is that of all of them.
        quantizer: of the weight.
        input: quantizer of what the layer reads.
        output: quantizer of its result.
        constants: by role: parameters of the model, or what they fold into. To change them is a
            matter of `PreparedModel.set_constant`.
        norm_unit: what the scales of the weight are in units of, where a norm is kept beside it
            whose factors they follow; [channels, 1, ...].
    """

    node: Node
    owner: str
    quantizer: Quantizer
    input: Quantizer
    output: Quantizer
    constants: Mapping[str, Tensor]
    norm_unit: Tensor | None

    @property
    def is_first(self) -> bool:
        """Tells whether no layer before has the same weight."""
        return self.owner == self.node.name

    @property
    def weight(self) -> Tensor:
        """The weight, [O, ...]."""
        return self.constants["weight"]

    @property
    def bias(self) -> Tensor:
        """The bias, [O]."""
        return self.constants["bias"]

    @property
    def measured_weight(self) -> Tensor:
        """The weight as its quantizer sees it: in units of the norm beside it."""
        return self.weight if self.norm_unit is None else self.weight / self.norm_unit

    @property
    def has_static_scales(self) -> bool:
        """Tells whether its sums have a unit that does not follow from the data."""
        return self.quantizer.has_static_scale and self.input.has_static_scale

    @property
    def quantized_weight(self) -> Tensor:
        """What the codes of the weight stand for."""
        quantized = self.quantizer(self.measured_weight)
        return quantized if self.norm_unit is None else quantized * self.norm_unit

    @property
    def unit(self) -> Tensor:
        """The real value of one unit of its sums, float64, [] or [channels]."""
        scale = self.quantizer.channel_scale
        scale = self.quantizer.scale if scale is None else scale
        scale = scale if self.norm_unit is None else scale * self.norm_unit.reshape(-1)
        # Scales of several channels reach a layer through a copy that has the smallest.
        step = self.input.scale.detach().min().double()
        return accumulator_unit(self.node.operation, [step], scale.detach().double())

    @property
    def rounded_bias(self) -> Tensor:
        """The nearest multiples of a unit; the gradient is that of the identity.

        With few bits, half such a unit decides about codes.
        """
        unit, bias = self.unit, self.bias
        rounded = (bias.detach().double() / unit).round() * unit
        return bias + (rounded.to(bias.dtype) - bias.detach())
