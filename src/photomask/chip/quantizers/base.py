"""The quantizer: one integer definition from which training and inference both follow."""

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
    """Uniform quantization; the base of every other quantizer.

        quantize(x)       = clamp(round_half_even(x / scale) + zero_point, code_low, code_high)
        dequantize(codes) = (codes - zero_point) * scale
        forward(x)        = dequantize(quantize(x)), with a straight-through gradient

    `quantize` is the only definition: the integer program stores its codes, and training sees what
    they stand for. A subclass overrides `quantize`, and `fit` if it finds its scale in another way.
    Codes are linear integers: a non-uniform quantizer returns some of them and never the others.

    Args:
        bits: 2 to 16.
        symmetric: True for a zero point of 0.
        signed: None decides at `fit`: affine codes are unsigned; symmetric ones are unsigned if no
            negative value was seen.
        granularity: which values share a scale.
        observer: how the range is chosen; `MinMax()` if None.
        power_of_two: round every scale up to a power of two (requantization becomes a shift).
        narrow: leave out the most negative code (-127..127 for 8 bits), so that products are
            balanced around 0; the usual choice for weights. Codes are then signed.

    Attributes:
        scale: float32; `[]` per tensor, `[C]` per channel, `[O, G]` per group.
        zero_point: int64, the shape of `scale`.
        channel_scale: per group only, `[O]` float32; `scale = channel_scale * group_multiplier`,
            exactly.
        group_multiplier: per group only, `[O, G]` int64, at least 1.
        soft_training: True if the value in training mode may differ from the codes' value.
        has_static_scale: False if scales follow from each input anew; such codes enter no program.
        weights_only: True if rescaling cannot compute the codes, because it returns every code of
            the format: only weights, whose codes are stored, may have such a quantizer.
        waived_laws: laws of `check_quantizer` that a quantizer for weights alone does not keep.
        batched: True if axis 0 of what it gets is the batch; a recipe says so to those of
            activations.

    Raises:
        RecipeError: a combination that no integer arithmetic can carry out.

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
                "per-group scales must be symmetric: each group's zero point would need its own "
                "sum of activations"
            )
        if narrow and (not symmetric or signed is False):
            raise RecipeError("narrow leaves out a negative code: it needs symmetric, signed codes")
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
        # The format travels in state_dict as numbers, [bits, signed]: no pickled extra state.
        self.register_buffer("format_state", torch.zeros(2, dtype=torch.int64))

    def register_scale(self) -> None:
        """Registers the buffers `scale` and `zero_point`.

        A subclass that learns them registers parameters here, and has properties of these names.
        """
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int64))

    @property
    def is_fitted(self) -> bool:
        """True once scale, zero point and format are known."""
        return self._format is not None

    @property
    def format(self) -> IntFormat:
        """Bits and signedness of the codes.

        Raises:
            QuantizerError: before `fit`.
        """
        if self._format is None:
            raise QuantizerError(
                "the quantizer was never calibrated: call observe() with data, then fit()"
            )
        return self._format

    @property
    def saw_only_zero(self) -> bool:
        """True if nothing but 0 was observed, so that every scale would do as well."""
        low, high = self.observer.low, self.observer.high
        return low is not None and high is not None and not bool(low.any() or high.any())

    @property
    def codes(self) -> Interval:
        """The integers that `quantize` may return; `format` without its lowest if `narrow`."""
        return self._grid(self.format).codes

    def observe(self, x: Tensor) -> None:
        """Feeds a batch to the observer.

        Raises:
            DataError: no values, NaN or infinity, or a shape that does not fit the granularity.
        """
        if x.numel() == 0 or not x.is_floating_point():
            raise DataError(
                f"calibration needs floating-point values; found {x.dtype} of shape {list(x.shape)}"
            )
        if isinstance(self.granularity, PerGroup):
            self._channels = x.shape[:1]
        if self.observer.is_empty:
            self._unused_observer = copy.deepcopy(self.observer)
        self.observer.observe(self.granularity.rows(x.detach()))

    def forget_observations(self) -> None:
        """Lets what is observed from now on alone decide the next `fit`."""
        if not self.observer.is_empty:
            self.observer = copy.deepcopy(self._unused_observer)

    def forget(self) -> None:
        """Becomes a quantizer that observed nothing and was never fitted."""
        self.forget_observations()
        self._format = None
        self.format_state = torch.zeros_like(self.format_state)

    def fit(self) -> None:
        """Decides format, scale and zero point from what was observed.

        Raises:
            QuantizerError: nothing was observed, or negative values for unsigned symmetric codes.
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
        """Sets what `fit` decides; for subclasses that decide otherwise.

        All stays on the quantizer's device, wherever data were observed: dividing by a number that
        lies on another device rounds differently.

        Args:
            format: bits and signedness of the codes.
            scale: positive, of the granularity's shape; stored in float32, or in float64 where the
                model was brought to it.
            zero_point: int64 codes, same shape.
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

        Then a batch norm that training keeps beside a layer stays outside: its weight is quantized
        as it is without. Override it where codes depend on the size of values.
        """
        return isinstance(self.granularity, PerChannel) and not self.power_of_two

    def rescale(self, factor: Tensor) -> None:
        """Gives values multiplied by a factor the codes that they had without it.

        For quantizers that `can_rescale`; subclasses with other limits than `scale` move those too.

        Args:
            factor: positive, the shape of `scale`.
        """
        self.set_parameters(self.format, self.scale * factor, self.zero_point)

    def quantize(self, x: Tensor) -> Tensor:
        """Returns integer codes as a float tensor: `clamp(round(x / scale) + zero_point)`.

        Args:
            x: any shape that fits the granularity.

        Returns:
            Codes inside `codes`, the shape of `x`; float64 for float64, else float32.

        Raises:
            QuantizerError: before `fit`.
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
        """Returns the values that codes stand for: `(codes - zero_point) * scale`."""
        return (codes - self.zero_point_for(codes)) * self.scale_for(codes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))`, exactly.

        The gradient to `x` is that of the identity inside the representable range and 0 outside.
        Learnable parameters that `quantize` and `dequantize` use get their own gradient; with
        `scale` a parameter it is that of LSQ (Esser et al. 2020, equation 3, arXiv:1902.08153).
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
        """Returns `scale` as it broadcasts against `x`."""
        return self.granularity.align(self.scale, x)

    def zero_point_for(self, x: Tensor) -> Tensor:
        """Returns `zero_point` as it broadcasts against `x`."""
        return self.granularity.align(self.zero_point, x)

    def extra_repr(self) -> str:
        """Returns what `print` shows inside the brackets."""
        kind = "symmetric" if self.symmetric else "affine"
        sign = {None: "", True: " signed", False: " unsigned"}[self.signed]
        words = [f"{self.bits}-bit{sign} {kind}", str(self.granularity), str(self.observer)]
        words += ["power of two"] * self.power_of_two + ["narrow"] * self.narrow
        return ", ".join(words + [str(self._format)] * self.is_fitted)

    def _grid(self, format: IntFormat) -> Grid:
        return Grid(format, self.symmetric, self.narrow, self.power_of_two)

    def _decide_format(self) -> IntFormat:
        """Returns the format that the data asks for where the user left it open."""
        signed = self.signed
        if self.symmetric and not signed:
            negative = self.observer.low is not None and bool((self.observer.low < 0).any())
            if signed is False and negative:
                raise QuantizerError("negative values observed for unsigned symmetric codes")
            signed = negative
        return IntFormat(bits=self.bits, signed=bool(signed))

    def _fit_groups(self, format: IntFormat, wanted: Tensor, groups: PerGroup) -> None:
        """Splits the wanted scales `[O, G]` into channel scale and integer multipliers.

        Both factors are rounded up, so that no group's range shrinks.
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
            QuantizerError: the scale is not one of groups.
        """
        if self.channel_scale is None or self.group_multiplier is None:
            raise QuantizerError(f"{self.granularity} has no groups; expected PerGroup")
        return self.channel_scale, self.group_multiplier

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Takes over shapes too: before `fit` the tensors have none worth keeping."""
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
    """Raises the scales of (nearly) empty channels to 2**-16 of the largest scale.

    A bias is added in units of `weight scale * input scale`. A dead channel, whose weights are all
    about 0 but whose bias is not, would have an integer bias beyond every accumulator; its weights
    are 0 on the raised scale too, so nothing is lost.
    """
    occupied = (low != 0) | (high != 0)
    if not bool(occupied.any()):
        return torch.ones_like(scale)
    largest = scale[occupied].max()
    return torch.where(occupied, scale, 0).maximum(largest * _SMALLEST_CHANNEL)


def _shorten(values: Tensor, significant_bits: int) -> Tensor:
    """Rounds positive values up to so many significant bits: integer multiples stay exact."""
    mantissa, exponent = torch.frexp(values)
    unit = 2.0**significant_bits
    return torch.ldexp((mantissa * unit).ceil() / unit, exponent)


def at_least_float32(x: Tensor) -> Tensor:
    """Returns half-precision values as float32, others as they are."""
    return x if x.dtype == torch.float64 else x.float()
