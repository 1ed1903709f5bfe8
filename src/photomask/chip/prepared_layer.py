"""Gathers what a prepared model holds of one layer with weights."""

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
        owner: the name of the first node with the layer's weight. Its quantizer serves all of them.
        quantizer: the quantizer of the weight.
        input: the quantizer of the layer's input.
        output: the quantizer of the layer's output.
        constants: the constant tensors by role, with a kept batch norm folded into them. Change
            them with `PreparedModel.set_constant`.
        norm_unit: the magnitudes of the factors of a batch norm that is kept beside the layer,
            [channels, 1, ...]. The scales of the weight are in units of them. None without one.
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
        """True where no earlier layer has the same weight."""
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
        """The weight that the quantizer gets, which is in units of the kept batch norm."""
        return self.weight if self.norm_unit is None else self.weight / self.norm_unit

    @property
    def has_static_scales(self) -> bool:
        """True where neither the weight's nor the input's scale depends on the data of a call."""
        return self.quantizer.has_static_scale and self.input.has_static_scale

    @property
    def quantized_weight(self) -> Tensor:
        """The weight after quantization and dequantization."""
        quantized = self.quantizer(self.measured_weight)
        return quantized if self.norm_unit is None else quantized * self.norm_unit

    @property
    def unit(self) -> Tensor:
        """The real value of one unit of the layer's accumulator, float64, [] or [channels]."""
        scale = self.quantizer.channel_scale
        scale = self.quantizer.scale if scale is None else scale
        scale = scale if self.norm_unit is None else scale * self.norm_unit.reshape(-1)
        # An input with a scale for each channel reaches the layer through a copy with one scale,
        # which is the smallest of them.
        step = self.input.scale.detach().min().double()
        return accumulator_unit(self.node.operation, [step], scale.detach().double())

    @property
    def rounded_bias(self) -> Tensor:
        """The bias as the nearest multiples of `unit`, with the gradient of the identity.

        The program rounds its biases in this way. With few bits, half a unit can change a code.
        """
        unit, bias = self.unit, self.bias
        rounded = (bias.detach().double() / unit).round() * unit
        return bias + (rounded.to(bias.dtype) - bias.detach())
