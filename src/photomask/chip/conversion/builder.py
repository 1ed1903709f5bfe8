"""Builds an integer program: collects edges, steps and tensors, and checks them for a target."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from photomask.chip.arithmetic import FixedPoint, fixed_point
from photomask.chip.conversion.quantized import GivenParameters, Quantized, Scale
from photomask.chip.formats import Interval, IntFormat
from photomask.chip.graph import Node
from photomask.chip.operators import Operator, Requantize
from photomask.chip.program import Edge, Step
from photomask.chip.quantizers import PowerOfTwoFactors, Quantizer
from photomask.chip.target import Target, ZeroPoints
from photomask.errors import QuantizerError, TargetError

ONE = np.ones(1)
"""An array of one element; times a number, it is a ratio that all channels share."""


@dataclass
class Conversion:
    """An integer program that is being built."""

    prepared: Quantized
    target: Target
    edges: dict[str, Edge] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    formats: dict[str, IntFormat] = field(default_factory=dict)
    rows: set[str] = field(default_factory=set)
    """The inputs that hold indices of rows or a mask, and so have no quantizer."""
    shared: dict[tuple[str, int, str], str] = field(default_factory=dict)
    """The tensors that several nodes share, by constant of the model, quantizer and part."""
    widened: dict[str, Scale] = field(default_factory=dict)
    """The scales of edges that hold, with one scale, the values of edges with channel factors."""
    given: Mapping[str, GivenParameters] = field(default_factory=dict)
    """By node, learned integers that are decided already and taken as they are."""

    @cached_property
    def _output_owners(self) -> set[str]:
        return {self.prepared.scale_owner(name) for name in self.prepared.graph.outputs}

    def scale_of(self, edge: str) -> Scale:
        """Returns the scale and the format of a float node's output codes.

        Raises:
            TargetError: the target does not support the width, the sign or the zero point.
        """
        if edge in self.widened:
            return self.widened[edge]
        owner = self.prepared.scale_owner(edge)
        if owner in self.rows:
            return Scale(1.0, 0, self.edges[owner].format)
        quantizer = self.prepared.activation_quantizer(edge)
        factored = isinstance(quantizer, PowerOfTwoFactors)
        format = quantizer.format
        zero_point = 0 if factored else int(quantizer.zero_point)
        target, is_output = self.target, owner in self._output_owners
        where = f"output of {owner!r}"
        if format.bits not in target.activation_bits and not is_output:
            raise TargetError(
                f"{where} has {format.bits} bits, but activations of the target {target.name!r} "
                f"have {', '.join(map(str, target.activation_bits))}; change the recipe's bits"
            )
        if not format.signed and not target.unsigned_activations:
            raise TargetError(
                f"{where} has {format} codes, but the target {target.name!r} has only signed "
                "activations; use a recipe with signed activations ('w8a8-signed' or 'w8a8-po2')"
            )
        if zero_point and target.zero_points is ZeroPoints.NONE:
            raise TargetError(
                f"{where} has the zero point {zero_point}, but the target {target.name!r} has "
                "none; use a recipe with symmetric activations ('w8a8-symmetric' or 'w8a8-po2')"
            )
        if factored:
            layer = float(quantizer.scale.min())
            factors = torch.log2(quantizer.scale.double() / layer).round().tolist()
            return Scale(layer, 0, format, tuple(int(factor) for factor in factors))
        return Scale(float(quantizer.scale), zero_point, format)

    def add_tensor(self, name: str, values: np.ndarray, format: IntFormat | None = None) -> str:
        """Adds a constant tensor, by default in the narrowest format that holds it."""
        values = np.asarray(values, dtype=np.int64)
        signed = bool(values.min() < 0)
        largest = max(int(values.max()), -int(values.min()) - 1)
        narrowest = IntFormat(bits=max(1, largest.bit_length() + signed), signed=signed)
        self.tensors[name] = values
        self.formats[name] = format or narrowest
        return name

    def add_given(self, node: Node) -> tuple[dict[str, str], np.ndarray] | None:
        """Adds the learned tensors of a node where they are decided already.

        Returns:
            The names of the tensors by role, and the real value of one unit; None where nothing is
            decided.
        """
        given = self.given.get(node.name)
        if given is None:
            return None
        names = {
            role: self.add_tensor(f"{node.name}.{role}", values, given.formats[role])
            for role, values in given.tensors.items()
        }
        return names, given.unit

    def add_shared(
        self,
        node: Node,
        role: str,
        quantizer: Quantizer,
        values: np.ndarray,
        format: IntFormat | None = None,
        part: str | None = None,
    ) -> str:
        """Adds a quantized constant once for all nodes that share the constant and its quantizer.

        Args:
            node: the node.
            role: the role of the constant in the node.
            quantizer: the quantizer of the constant.
            values: the integers to add.
            format: the format, as for `add_tensor`.
            part: a name for the values where they are not the codes, such as `group_multiplier`.
        """
        part = part or role
        key = node.constants[role], id(quantizer), part
        known = self.shared.get(key)
        if known is not None and np.array_equal(self.tensors[known], values):
            return known
        self.shared[key] = self.add_tensor(f"{node.name}.{part}", values, format)
        return self.shared[key]

    def add_step(
        self,
        node: Node,
        name: str,
        operator: Operator,
        inputs: Sequence[str],
        tensors: dict[str, str],
        meaning: Scale | np.ndarray,
        relative_error: float = 0.0,
        worst_error: float | None = None,
        divisors: np.ndarray | None = None,
    ) -> str:
        """Adds a step and its output edge, which have the same name.

        Args:
            node: the float node that the step belongs to.
            name: the name of the step and of its edge.
            operator: the integer operator of the step.
            inputs: the names of the input edges.
            tensors: the names of the constant tensors by role.
            meaning: the scale of an activation, or the real value of one unit of an accumulator,
                [1] or [channels].
            relative_error: the relative error of a requantization's multipliers.
            worst_error: the worst error of a table, in units of the result's last place.
            divisors: the integers by which a requantization divides a sum.

        Raises:
            TargetError: the step needs more bits than the target's accumulator has, or its operator
                does not support its inputs.
        """
        shapes = [self.edges[name].shape for name in inputs]
        constants = {role: self.tensors[key] for role, key in tensors.items()}
        try:
            shape = operator.output_shape(shapes, constants)
            interval = operator.output_interval([self.edges[i].interval for i in inputs], constants)
        except ValueError as error:
            raise TargetError(
                f"{name!r} ({node.source}): {type(operator).__name__.lower()} does not support its "
                f"inputs: {error}; give the inputs fewer bits"
            ) from error
        if isinstance(meaning, Scale):
            scale = meaning.scales
            zero_point = meaning.zero_point
            format = meaning.format
        else:
            scale, zero_point = tuple(float(s) for s in meaning.reshape(-1)), 0
            format = self._accumulator_format(interval, f"{name!r} ({node.source})")
        self.edges[name] = Edge(
            name=name,
            shape=shape,
            format=format,
            low=interval.low,
            high=interval.high,
            scale=scale,
            zero_point=zero_point,
            channel_axis=None if len(scale) == 1 else _channel_axis(node, shape, meaning),
            role="activation" if isinstance(meaning, Scale) else "accumulator",
        )
        self.steps.append(
            Step(
                name=name,
                operator=operator,  # type: ignore[arg-type]
                inputs=tuple(inputs),
                output=name,
                tensors=tensors,
                node=node.name,
                source=portable(node.source),
                relative_error=relative_error,
                worst_error=worst_error,
                divisors=None if divisors is None else tuple(int(n) for n in divisors.flat),
            )
        )
        return name

    def _accumulator_format(self, interval: Interval, where: str) -> IntFormat:
        needed = IntFormat.holding(interval)
        bits = needed.bits + (not needed.signed)
        if bits > self.target.accumulator_bits:
            raise TargetError(
                f"{where}: partial sums go from {interval.low} to {interval.high} and need {bits} "
                f"bits, but the accumulator of the target {self.target.name!r} has "
                f"{self.target.accumulator_bits}. Use fewer weight or activation bits there, or a "
                "wider accumulator; weights can be trained to fit by A2Q, or projected by "
                "fit_accumulators"
            )
        return IntFormat(bits=self.target.accumulator_bits, signed=True)

    def requantize(
        self,
        node: Node,
        edge: str,
        ratio: np.ndarray,
        meaning: Scale,
        *,
        name: str | None = None,
        offset: int = 0,
        shift: FixedPoint | None = None,
        divisors: np.ndarray | None = None,
        has_factors: bool = False,
    ) -> str:
        """Adds the requantization of an edge to the output format of a node, with its clamp.

        Args:
            node: the float node, whose fused clamp is applied.
            edge: the name of the accumulator or activation to requantize.
            ratio: the real value of one unit of `edge`, divided by that of the output. It
                broadcasts against a sample without its batch axis.
            meaning: the scale of the output.
            name: the name of the new edge; the node's name by default.
            offset: an integer that is added before the multiplication.
            shift: the multiplier and the shift where they are decided already.
            divisors: the counts of elements by which `ratio` divides. Shift-only hardware also
                divides by a multiplication.
            has_factors: True if the edge already has the channel factors of the output.

        Raises:
            TargetError: the target's multiplier and shift cannot express the ratio, or the clamp is
                a different code in each channel.
        """
        name = name or node.name
        target = self.target
        if divisors is not None and np.any(divisors > 1) and target.power_of_two_only:
            target = target.model_copy(update={"power_of_two_only": False})
        where = f"{name!r} ({node.source})"
        if meaning.factors and shift is None and not has_factors:
            ratio = np.asarray(ratio) / np.exp2(meaning.factors)
        fixed = shift or fixed_point(ratio, target, where)
        if meaning.factors and shift is not None and not has_factors:
            fixed = with_factors(shift, meaning.factors, target, where)
        if meaning.factors and node.clamp is not None:
            bounds = (node.clamp.low, node.clamp.high)
            if any(np.isfinite(bound) and bound != 0 for bound in bounds):
                raise TargetError(f"{where}: its bounds {bounds} need one scale for all channels")
        low, high = meaning.format.low, meaning.format.high
        if node.clamp is not None and name == node.name:
            low, high = meaning.code(node.clamp.low), meaning.code(node.clamp.high)
        operator = Requantize(
            rounding=self.target.rounding,
            offset=offset,
            zero_point=meaning.zero_point,
            low=low,
            high=high,
        )
        multiplier = IntFormat(bits=self.target.multiplier_bits, signed=False)
        if target.power_of_two_only:
            multiplier = IntFormat(bits=1, signed=False)
        tensors = {
            "multiplier": self.add_tensor(f"{name}.multiplier", fixed.multiplier, multiplier),
            "shift": self.add_tensor(
                f"{name}.shift",
                fixed.shift,
                IntFormat(bits=max(1, self.target.shift_max.bit_length()), signed=False),
            ),
        }
        return self.add_step(
            node,
            name,
            operator,
            [edge],
            tensors,
            meaning,
            fixed.relative_error,
            divisors=divisors,
        )


def _channel_axis(node: Node, shape: tuple[int, ...], meaning: Scale | np.ndarray) -> int:
    """Returns the channel axis of an edge; scales with channel factors have it last."""
    axes = len(shape)
    return axes - 1 if isinstance(meaning, Scale) else node.operation.channels_in(axes)


def portable(source: str) -> str:
    """Returns a `file:line` relative to the folder from which Python imports the file.

    The same model then makes the same program on every machine, and no program contains a path of
    the machine that made it.
    """
    folders = [os.path.abspath(folder) for folder in (*sys.path, os.getcwd())]
    inside = [folder for folder in folders if source.startswith(folder.rstrip(os.sep) + os.sep)]
    if inside:
        return os.path.relpath(source, max(inside, key=len)).replace(os.sep, "/")
    return os.path.basename(source)


def integer_codes(quantizer: Quantizer, values: torch.Tensor, where: str) -> np.ndarray:
    """Returns the codes of a quantizer as int64.

    Raises:
        QuantizerError: a code is no integer, or lies outside the format of the quantizer.
    """
    values = values.to(quantizer.scale.device)
    codes = quantizer.quantize(values).detach().to(torch.float64).cpu().numpy()
    format = quantizer.format
    if codes.shape != tuple(values.shape) or not np.all(codes == np.rint(codes)):
        raise QuantizerError(
            f"{where}: {type(quantizer).__name__} returned codes that are no integers, or have "
            "another shape than the values; test it with check_quantizer"
        )
    if codes.min() < format.low or codes.max() > format.high:
        raise QuantizerError(
            f"{where}: {type(quantizer).__name__} returned codes from {codes.min():.0f} to "
            f"{codes.max():.0f}, outside its format {format}; test it with check_quantizer"
        )
    return codes.astype(np.int64)


def with_factors(
    fixed: FixedPoint, factors: tuple[int, ...], target: Target, where: str
) -> FixedPoint:
    """Returns multipliers and shifts that also divide each channel exactly by `2**factor`.

    Raises:
        TargetError: the target has one shift for all channels and no multiplier that could replace
            it, or the shift is too large.
    """
    shift = fixed.shift + np.array(factors)
    if target.per_channel_shift:
        multiplier = np.ones_like(shift)
    elif target.power_of_two_only or max(factors) - min(factors) >= target.multiplier_bits:
        raise TargetError(
            f"{where}: its channels have power-of-two factors, but the target {target.name!r} has "
            "one shift for all channels; give the edge one scale"
        )
    else:
        multiplier, shift = 1 << (shift.max() - shift), np.full_like(shift, shift.max())
    if shift.max() > target.shift_max:
        raise TargetError(
            f"{where} needs a shift of {shift.max()}, but the largest shift of the target "
            f"{target.name!r} is {target.shift_max}"
        )
    return FixedPoint(multiplier, shift, fixed.relative_error)
