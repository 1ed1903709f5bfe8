"""Defines the base class of quantizers: training and inference follow from one definition."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.formats import Interval, IntFormat
from photomask.chip.observers import Grid, MinMax, Observer
from photomask.chip.observers.grid import round_up_to_power_of_two
from photomask.chip.quantizers.granularity import Granularity, PerChannel, PerGroup, PerTensor
from photomask.chip.quantizers.straight_through import pass_gradient, pass_gradient_inside
from photomask.errors import DataError, QuantizerError, RecipeError

_SMALLEST_CHANNEL = 2.0**-16
_PER_TENSOR = PerTensor()


class Quantizer(nn.Module):
    """Quantizes uniformly; it is the base class of every other quantizer.

        quantize(x)       = clamp(round_half_even(x / scale) + zero_point, code_low, code_high)
        dequantize(codes) = (codes - zero_point) * scale
        forward(x)        = dequantize(quantize(x)), with a straight-through gradient

    `quantize` is the only definition: the integer program stores its codes, and training computes
    with their dequantized values. A subclass overrides `quantize`, and also `fit` where it finds
    its scale in another way. A code always represents `(code - zero_point) * scale`; a non-uniform
    quantizer uses only some of the codes.

    Args:
        bits: the width of the codes, 2 to 16.
        symmetric: True for a zero point of 0.
        signed: True for signed codes, False for unsigned ones. None leaves it to `fit`: affine
            codes are unsigned, and symmetric ones are unsigned if no negative value was observed.
        granularity: which values share a scale.
        observer: how the range is chosen; `MinMax()` if None.
        power_of_two: True rounds every scale up to a power of two, so that requantization becomes
            a shift.
        narrow: True leaves out the most negative code (-127..127 for 8 bits), so that codes are
            balanced around 0. It is the usual choice for weights. Codes are then signed.

    Attributes:
        scale: float32; `[]` per tensor, `[C]` per channel, `[O, G]` per group.
        zero_point: int64, in the shape of `scale`.
        channel_scale: `[O]` float32, per group only; exactly `scale / group_multiplier`.
        group_multiplier: `[O, G]` int64, at least 1, per group only.
        soft_training: True if training mode may return values that no code represents.
        has_static_scale: False if the scales depend on each input; no program can hold such codes.
        weights_only: True if requantization cannot compute the codes, because it uses every code
            of the format. Such a quantizer is for weights, whose codes are stored.
        waived_laws: the laws of `check_quantizer` that a quantizer for weights only does not keep.
        batched: True if axis 0 of the input is the batch; recipes set it for activations.

    Raises:
        RecipeError: no integer arithmetic can carry out the combination of options.

    Source: Jacob et al. 2018, section 2.1, arXiv:1712.05877.
    """

    soft_training = False
    has_static_scale = True
    weights_only = False
    waived_laws: frozenset[str] = frozenset()
    scale: Tensor
    zero_point: Tensor
    channel_scale: Tensor | None
    group_multiplier: Tensor | None
    format_state: Tensor

    def __init__(
        self,
        bits: int = 8,
        *,
        symmetric: bool = True,
        signed: bool | None = None,
        granularity: Granularity = _PER_TENSOR,
        observer: Observer | None = None,
        power_of_two: bool = False,
        narrow: bool = False,
    ):
        super().__init__()
        if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 16:
            raise RecipeError(f"bits must be an integer from 2 to 16, found {bits!r}")
        if not isinstance(granularity, Granularity):
            raise RecipeError(
                f"granularity must be PerTensor, PerChannel or PerGroup, found {granularity!r}"
            )
        if observer is not None and not isinstance(observer, Observer):
            raise RecipeError(f"observer must be an Observer object, found {observer!r}")
        if isinstance(granularity, PerGroup) and not symmetric:
            raise RecipeError(
                "scales per group must be symmetric, because each zero point of a group would need "
                "a sum of activations of its own; set symmetric=True"
            )
        if narrow and (not symmetric or signed is False):
            raise RecipeError(
                "narrow=True leaves out the most negative code, so it needs symmetric and signed "
                "codes; found affine or unsigned ones"
            )
        self.bits = bits
        self.symmetric = symmetric
        self.signed = True if narrow else signed
        self.granularity = granularity
        self.observer = observer if observer is not None else MinMax()
        self.power_of_two = power_of_two
        self.narrow = narrow
        self.batched = False
        self._format: IntFormat | None = None
        self._unused_observer = self.observer
        grouped = isinstance(self.granularity, PerGroup)
        self.register_scale()
        self.register_buffer("channel_scale", torch.ones(()) if grouped else None)
        self.register_buffer(
            "group_multiplier", torch.ones((), dtype=torch.int64) if grouped else None
        )
        # The format is saved in `state_dict` as a tensor, [bits, signed], because an extra state
        # would have to be pickled.
        self.register_buffer("format_state", torch.zeros(2, dtype=torch.int64))

    def register_scale(self) -> None:
        """Registers the buffers `scale` and `zero_point`.

        A subclass that learns them registers parameters, and defines properties of these names.
        """
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int64))

    @property
    def is_fitted(self) -> bool:
        """True once scale, zero point and format are known."""
        return self._format is not None

    @property
    def format(self) -> IntFormat:
        """The bits and the signedness of the codes.

        Raises:
            QuantizerError: the quantizer is not fitted.
        """
        if self._format is None:
            raise QuantizerError(
                "the quantizer was never calibrated: call observe() with data, then fit()"
            )
        return self._format

    @property
    def saw_only_zero(self) -> bool:
        """True if only 0 was observed, which determines no scale."""
        low, high = self.observer.low, self.observer.high
        return low is not None and high is not None and not bool(low.any() or high.any())

    @property
    def codes(self) -> Interval:
        """The integers that `quantize` may return; narrow codes leave out the format's lowest."""
        return self._grid(self.format).codes

    def observe(self, x: Tensor) -> None:
        """Shows a batch of values to the observer.

        Raises:
            DataError: there are no values, a value is NaN or infinite, or the shape does not fit
                the granularity.
        """
        if x.numel() == 0 or not x.is_floating_point():
            raise DataError(
                "calibration needs at least one floating-point value, found "
                f"{x.dtype} of shape {list(x.shape)}"
            )
        if isinstance(self.granularity, PerGroup):
            self._channels = x.shape[:1]
        if self.observer.is_empty:
            self._unused_observer = copy.deepcopy(self.observer)
        self.observer.observe(self.granularity.rows(x.detach()))

    def forget_observations(self) -> None:
        """Discards what was observed, so that later observations alone decide the next `fit`."""
        if not self.observer.is_empty:
            self.observer = copy.deepcopy(self._unused_observer)

    def forget(self) -> None:
        """Returns the quantizer to the state before it observed anything and was fitted."""
        self.forget_observations()
        self._format = None
        self.format_state = torch.zeros_like(self.format_state)

    def fit(self) -> None:
        """Decides the format, the scale and the zero point from the observed values.

        Raises:
            QuantizerError: nothing was observed, or negative values were observed for unsigned
                symmetric codes.
        """
        grid = self._grid(self._decide_format())
        low, high = self.observer.range(grid)
        scale = floor_small_channels(grid.scale(low, high), low, high)
        if isinstance(self.granularity, PerGroup):
            self._fit_groups(grid.format, scale.reshape(*self._channels, -1), self.granularity)
            return
        zero_point = grid.zero_point(low, scale)
        shape = () if isinstance(self.granularity, PerTensor) else scale.shape
        self.set_parameters(grid.format, scale.reshape(shape), zero_point.reshape(shape))

    def set_parameters(self, format: IntFormat, scale: Tensor, zero_point: Tensor) -> None:
        """Sets the format, the scale and the zero point, as `fit` does.

        The tensors are moved to the quantizer's device, wherever data were observed, because a
        division by a number on another device rounds differently.

        Args:
            format: the bits and the signedness of the codes.
            scale: positive numbers in the granularity's shape. They are stored in the dtype of the
                quantizer, which is float32 unless the model was converted to float64.
            zero_point: int64 codes in the same shape.
        """
        self._format = format
        device = self.format_state.device
        scale, zero_point = scale.detach().to(device), zero_point.detach().to(device)
        self.format_state = torch.tensor([format.bits, format.signed], device=device)
        if isinstance(self.scale, nn.Parameter):
            self.scale.data = scale.to(self.scale.dtype)
        else:
            self.scale = scale.to(self.scale.dtype)
        self.zero_point = zero_point.to(torch.int64)

    @property
    def can_rescale(self) -> bool:
        """True if every channel has a scale of its own that may be any number.

        The factors of a batch norm that training keeps beside a layer can then move into the
        scales, and the codes of the weight stay the same. Override it in a quantizer whose codes
        depend on the magnitude of the values.
        """
        return isinstance(self.granularity, PerChannel) and not self.power_of_two

    def rescale(self, factor: Tensor) -> None:
        """Multiplies the scale, so that values times a factor get the codes that they had before.

        It is for quantizers with `can_rescale`. A subclass with limits besides `scale` multiplies
        those too.

        Args:
            factor: positive numbers in the shape of `scale`.
        """
        self.set_parameters(self.format, self.scale * factor, self.zero_point)

    def quantize(self, x: Tensor) -> Tensor:
        """Returns integer codes as a float tensor: `clamp(round(x / scale) + zero_point)`.

        Args:
            x: values in any shape that fits the granularity.

        Returns:
            The codes in the shape of `x`, within the interval `codes`. The dtype is float64 where
            `x` is float64, and float32 otherwise.

        Raises:
            QuantizerError: the quantizer is not fitted.
        """
        codes = self.codes
        ratio = at_least_float32(x) / self.scale_for(x)
        rounded = ratio.detach().round()
        low = codes.low
        high = codes.high
        if self.symmetric:
            return pass_gradient_inside(ratio, rounded.clamp(low, high), low, high)
        zero = self.zero_point_for(x)
        return pass_gradient_inside(
            ratio, (rounded + zero).clamp(low, high), low - zero, high - zero
        )

    def dequantize(self, codes: Tensor) -> Tensor:
        """Returns the values that codes represent, `(codes - zero_point) * scale`."""
        return (codes - self.zero_point_for(codes)) * self.scale_for(codes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns exactly `dequantize(quantize(x))`.

        The gradient to `x` is that of the identity inside the representable range, and 0 outside.
        Learnable parameters that `quantize` and `dequantize` use get a gradient too. Where `scale`
        is a parameter, it is that of LSQ (Esser et al. 2020, equation 3, arXiv:1902.08153).
        """
        value = self.dequantize(self.quantize(x.detach()))
        if not torch.is_grad_enabled():
            return value
        with torch.no_grad():
            scale = self.scale_for(x)
            zero_point = self.zero_point_for(x)
            codes = self.codes
            low, high = (codes.low - zero_point) * scale, (codes.high - zero_point) * scale
        return pass_gradient(x, value, low, high)

    def scale_for(self, x: Tensor) -> Tensor:
        """Returns `scale` in a shape that broadcasts against `x`."""
        return self.granularity.align(self.scale, x)

    def zero_point_for(self, x: Tensor) -> Tensor:
        """Returns `zero_point` in a shape that broadcasts against `x`."""
        return self.granularity.align(self.zero_point, x)

    def extra_repr(self) -> str:
        """Returns the description of the quantizer for `print`."""
        kind = "symmetric" if self.symmetric else "affine"
        sign = {None: "", True: " signed", False: " unsigned"}[self.signed]
        words = [f"{self.bits}-bit{sign} {kind}", str(self.granularity), str(self.observer)]
        words += ["power of two"] * self.power_of_two + ["narrow"] * self.narrow
        return ", ".join(words + [str(self._format)] * self.is_fitted)

    def _grid(self, format: IntFormat) -> Grid:
        return Grid(format, self.symmetric, self.narrow, self.power_of_two)

    def _decide_format(self) -> IntFormat:
        """Returns the format; the observed values decide the sign where the user left it open."""
        signed = self.signed
        if self.symmetric and not signed:
            negative = self.observer.low is not None and bool((self.observer.low < 0).any())
            if signed is False and negative:
                raise QuantizerError(
                    "negative values were observed, which unsigned symmetric codes cannot "
                    "represent; set signed=True or symmetric=False"
                )
            signed = negative
        return IntFormat(bits=self.bits, signed=bool(signed))

    def _fit_groups(self, format: IntFormat, wanted: Tensor, groups: PerGroup) -> None:
        """Splits the wanted scales `[O, G]` into channel scales and integer multipliers.

        Both factors are rounded up, so that the range of no group shrinks.
        """
        limit = 2**groups.multiplier_bits - 1
        if self.power_of_two:
            limit = 2 ** (groups.multiplier_bits - 1)
        channel = wanted.amax(dim=1).double() / limit
        if self.power_of_two:
            channel = round_up_to_power_of_two(channel)
        else:
            channel = _shorten(channel, 24 - groups.multiplier_bits)
        multiplier = (wanted.double() / channel[:, None]).ceil()
        if self.power_of_two:
            multiplier = round_up_to_power_of_two(multiplier)
        device = self.format_state.device
        self.channel_scale = channel.float().to(device)
        self.group_multiplier = multiplier.clamp(1, limit).to(device, torch.int64)
        scale = self.channel_scale[:, None] * self.group_multiplier
        self.set_parameters(format, scale, torch.zeros_like(self.group_multiplier))

    def two_levels(self) -> tuple[Tensor, Tensor]:
        """Returns the scale of each channel, `[O]`, and the multipliers of its groups, `[O, G]`.

        Raises:
            QuantizerError: the granularity is not per group.
        """
        if self.channel_scale is None or self.group_multiplier is None:
            raise QuantizerError(
                f"expected a fitted quantizer with PerGroup, found granularity {self.granularity}"
            )
        return self.channel_scale, self.group_multiplier

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Loads the state, after giving the tensors the shapes that they have in the state."""
        for name, own in (*self._parameters.items(), *self._buffers.items()):
            saved = state_dict.get(prefix + name)
            if saved is None or own is None or saved.shape == own.shape:
                continue
            if isinstance(own, nn.Parameter):
                own.data = torch.empty_like(saved, device=own.device)
            else:
                setattr(self, name, torch.empty_like(saved, device=own.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
        bits, signed = self.format_state.tolist()
        self._format = IntFormat(bits=bits, signed=bool(signed)) if bits else None


def floor_small_channels(scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Raises the scales of channels that are almost 0 to 2**-16 times the largest scale.

    A bias is added in units of `weight scale * input scale`. A dead channel has weights near 0 and
    a bias that is not, so its integer bias would exceed every accumulator. With the raised scale
    its weights use fewer codes or become 0, which loses little because they are so small.
    """
    occupied = (low != 0) | (high != 0)
    if not bool(occupied.any()):
        return torch.ones_like(scale)
    largest = scale[occupied].max()
    return torch.where(occupied, scale, 0).maximum(largest * _SMALLEST_CHANNEL)


def _shorten(values: Tensor, significant_bits: int) -> Tensor:
    """Rounds positive values up to a number of significant bits, so their multiples are exact."""
    mantissa, exponent = torch.frexp(values)
    unit = 2.0**significant_bits
    return torch.ldexp((mantissa * unit).ceil() / unit, exponent)


def at_least_float32(x: Tensor) -> Tensor:
    """Returns float64 values unchanged, and all others as float32."""
    return x if x.dtype == torch.float64 else x.float()
