"""Aligns scales to a target's multipliers, so that training computes what the chip will."""

from pathlib import Path

import numpy as np
import torch

from photomask.chip.arithmetic import fixed_point
from photomask.chip.conversion.converters import aligned_coefficients
from photomask.chip.conversion.pooling import divisors_of
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import Node
from photomask.chip.graph.operations import (
    Accumulates,
    Add,
    Concatenate,
    Constant,
    Normalize,
    Pointwise,
    Tokens,
)
from photomask.chip.operators.normalize import GAIN_BITS, normal_unit
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import PerGroup, PowerOfTwoFactors
from photomask.chip.standing import Effect, changes
from photomask.chip.sum_limits import update_sum_limits
from photomask.chip.target import Target, load_target
from photomask.chip.units import SHARE_UNIT, accumulator_unit
from photomask.stages import stage


@changes(Effect.ALIGNS)
@stage(__name__, "align to target")
@float32_by_default()
def align_to_target(prepared: PreparedModel, target: Target | str | Path) -> None:
    """Changes scales slightly, so that the target's multipliers express their ratios exactly.

        scale' = scale * (1 + e),   |e| about 2**-target.multiplier_bits or less

    A program rescales by `multiplier / 2**shift`, and a prepared model by the real ratio of two
    scales. With few bits the difference sometimes changes a code, and a code can change a
    prediction. After this call both rescale by the same number. In evaluation mode the prepared
    model then also computes norms and rounds halves as the target does. It computes what the
    program computes, up to the rounding of float32. In float64 the two are equal; call
    `prepared.double()` before this function, because the scales are rounded to the dtype as well.

    The scale that changes is that of a layer's weight; of the output of a sum, copy, mean, product
    or softmax; of a norm's gain; and of the inputs of a concatenation. Inputs of a sum that come
    from layers, tables or constants change as well. They change more where the scales of the inputs
    differ a lot, because the coefficients of a sum share one shift and the smaller coefficient has
    fewer bits. A tensor that the model uses at several places follows the first of them.

    Some ratios are left as they are: those of groups, those of powers of two, which are exact
    already, and those of averages over windows of several sizes. The same holds for inputs of
    concatenations and for all but one input of a sum where other nodes read them, and for an output
    that shares the scale of another edge. The double rounding of TOSA is not reproduced.

    Args:
        prepared: the calibrated model, which is changed in place.
        target: the target of the later conversion, the name of a preset, or the path of a file.

    Raises:
        OrderError: the model is not calibrated.
        TargetError: a ratio is out of the target's range.
        UsageError: batch norms are kept beside their layers.
    """
    target = load_target(target)
    prepared.target = target
    if target.power_of_two_only:
        return
    alignment = _Alignment(prepared, target)
    with torch.no_grad():
        for node in prepared.graph.nodes:
            alignment.align_output(node)
        for node in prepared.graph.nodes:
            alignment.align_constants(node)
        update_sum_limits(prepared, raises_scales=False)


class _Alignment:
    """Aligns the scales of activations in the order of computation, then weights and gains."""

    def __init__(self, prepared: PreparedModel, target: Target):
        self.prepared = prepared
        self.target = target
        self.by_name = prepared.graph.by_name
        self.users = prepared.graph.users()
        self.gains: set[str] = set()

    def scale(self, edge: str) -> float:
        """Returns the scale of an edge."""
        return float(self.prepared.activation_quantizer(edge).scale)

    def realized(self, ratio: float | np.ndarray, node: Node) -> np.ndarray:
        """Returns the nearest ratios that the target's multipliers express."""
        where = f"{node.name!r} ({node.source})"
        return fixed_point(np.asarray(ratio), self.target, where).ratio

    def align_output(self, node: Node) -> None:
        """Sets the output scale of a node without weights so that its ratio is exact."""
        if not self._is_free(node.name) or not self._reads_one_scale(node):
            return
        if isinstance(node.operation, Add):
            self._align_sum(node)
            return
        if isinstance(node.operation, Concatenate):
            self._align_parts(node)
            return
        unit = self._unit(node)
        if unit is not None:
            ratio = self.realized(unit / self.scale(node.name), node)
            self._set_scale(node.name, unit / float(ratio))

    def align_constants(self, node: Node) -> None:
        """Sets the weight scale of a layer, or the gain of a norm, so that the ratio is exact."""
        if not self._is_quantized(node.name) or not self._has_one_scale(node.name):
            return
        if not self._reads_one_scale(node):
            return
        if isinstance(node.operation, Normalize):
            self._align_gain(node)
        elif "weight" in node.constants:
            self._align_weight(node)

    def _unit(self, node: Node) -> float | None:
        """Returns the real value of one unit of the integers that are requantized to the output.

        None stands for a node whose output scale is not aligned in this way.
        """
        operation = node.operation
        if operation.accumulates is Accumulates.SHARES:
            return SHARE_UNIT
        if operation.accumulates not in (Accumulates.CODES, Accumulates.PRODUCTS):
            return None
        unit = accumulator_unit(operation, [self.scale(name) for name in node.inputs])
        counts = divisors_of(node, self.by_name[node.inputs[0]].shape)
        return unit / float(counts.flat[0]) if counts.size == 1 else None

    def _align_sum(self, node: Node) -> None:
        """Aligns the output of a sum to one input, and the inputs whose scales may change to it.

        The one input is the first whose scale may not change, or the first where all may.
        """
        output, inputs = self.scale(node.name), [self.scale(name) for name in node.inputs]
        widths = [self.prepared.activation_quantizer(n).format.bits for n in node.inputs]
        ratios = np.array(inputs) / output
        where = f"{node.name!r} ({node.source})"
        realized = aligned_coefficients(ratios, max(widths), self.target, where).ratio
        if not realized.all():
            return
        movable = [self._can_move(name) for name in node.inputs]
        anchor = movable.index(False) if False in movable else 0
        output = inputs[anchor] / float(realized[anchor])
        self._set_scale(node.name, output)
        for at, name in enumerate(node.inputs):
            if movable[at] and at != anchor:
                self._set_scale(name, output * float(realized[at]))

    def _align_parts(self, node: Node) -> None:
        """Aligns the inputs of a concatenation whose scales may change to its output."""
        output = self.scale(node.name)
        for name in filter(self._can_move, node.inputs):
            self._set_scale(name, output * float(self.realized(self.scale(name) / output, node)))

    def _can_move(self, edge: str) -> bool:
        """Tells whether the scale of an edge may change for its reader.

        It may where the edge has one reader and comes from a layer, a table or a constant, because
        those adapt to their output scale.
        """
        node = self.by_name[edge]
        follows = "weight" in node.constants or isinstance(node.operation, (Constant, Pointwise))
        return follows and self._is_free(edge) and len(self.users[edge]) == 1

    def _align_weight(self, node: Node) -> None:
        if self.prepared.weight_owner(node.name) != node.name:
            return
        quantizer = self.prepared.weight_quantizer(node.name)
        if isinstance(quantizer.granularity, PerGroup) or quantizer.power_of_two:
            return
        scale = quantizer.scale.detach().double().cpu().numpy()
        ratio = scale * (self.scale(node.inputs[0]) / self.scale(node.name))
        realized = self.realized(ratio, node)
        scale = np.where(realized > 0, scale * realized / ratio, scale)
        quantizer.set_parameters(
            quantizer.format, torch.from_numpy(np.asarray(scale)), quantizer.zero_point
        )

    def _align_gain(self, node: Node) -> None:
        if node.constants["gain"] in self.gains:
            return
        self.gains.add(node.constants["gain"])
        gain = self.prepared.constants_of(node)["gain"].detach()
        unit = normal_unit(node.shape[-1], self.target) / (2 ** (GAIN_BITS - 1) - 1)
        ratio = gain.double().abs().cpu().numpy() * unit / self.scale(node.name)
        if not ratio.all():
            return
        factor = torch.from_numpy(self.realized(ratio, node) / ratio).to(gain.device)
        aligned = gain.double() * factor
        self.prepared.set_constant(node.name, "gain", aligned.to(gain.dtype))
        bias, unit = self.prepared.constants_of(node)["bias"].detach(), aligned.abs() * unit
        rounded = (bias.double() / unit).round() * unit
        self.prepared.set_constant(node.name, "bias", rounded.to(bias.dtype))

    def _is_quantized(self, edge: str) -> bool:
        """Tells whether an edge holds quantized numbers rather than indices or a mask."""
        return not isinstance(self.by_name[self.prepared.scale_owner(edge)].operation, Tokens)

    def _reads_one_scale(self, node: Node) -> bool:
        return all(map(self._has_one_scale, filter(self._is_quantized, node.inputs)))

    def _has_one_scale(self, edge: str) -> bool:
        return not isinstance(self.prepared.activation_quantizer(edge), PowerOfTwoFactors)

    def _is_free(self, edge: str) -> bool:
        """Tells whether a node decides its own scale, which may be any number."""
        if self.prepared.scale_owner(edge) != edge or not self._is_quantized(edge):
            return False
        return self._has_one_scale(edge) and not (
            self.prepared.activation_quantizer(edge).power_of_two
        )

    def _set_scale(self, edge: str, scale: float) -> None:
        quantizer = self.prepared.activation_quantizer(edge)
        moved = torch.full_like(quantizer.scale.detach(), scale)
        quantizer.set_parameters(quantizer.format, moved, quantizer.zero_point)
