"""Tests the contract of quantizers: the laws that make codes equal the values of training."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.granularity import PerChannel, PerGroup, PerTensor
from photomask.errors import QuantizerError

WAIVABLE = frozenset({"zero", "fixed point", "independence", "monotony"})
"""Laws that a quantizer for weights may waive: a weight is quantized once and as a whole."""
_REPEATS = 8
_OUTSIDE = 0.3  # how far probes go beyond each end of the range, as a share of the range


class _BrokenError(Exception):
    """Reports a counterexample to a law."""


@dataclass(frozen=True)
class _Law:
    """A law, and the function that looks for a counterexample to it.

    The function gets its own fitted copy of the quantizer, in evaluation mode, and its own input.
    """

    name: str
    sentence: str
    test: Callable[[Quantizer, Tensor], None]


def check_quantizer(quantizer: Quantizer, samples: Tensor | None = None) -> None:
    """Tests on examples that a quantizer keeps the contract, and says which law it breaks.

    Every law is tested on a fresh copy, with the samples and with probes. The probes cover the
    whole range, ties between two codes, and values that saturate. The quantizer is not changed.

    Args:
        quantizer: the quantizer. Where it is not fitted, its copies are fitted on the samples.
        samples: values in a shape that the quantizer accepts; None generates some from a fixed
            seed.

    Raises:
        QuantizerError: the quantizer breaks a law, raises an error of its own, or waives a law that
            it must keep. The message names the law and the first counterexample.
    """
    if not isinstance(quantizer, Quantizer):
        raise QuantizerError(f"expected a Quantizer object, found {quantizer!r}")
    if forbidden := quantizer.waived_laws - (WAIVABLE if quantizer.weights_only else frozenset()):
        raise QuantizerError(
            f"{type(quantizer).__name__} waives the law of {', '.join(sorted(forbidden))}; only "
            "quantizers with weights_only = True may waive laws, and only these: "
            f"{', '.join(sorted(WAIVABLE))}"
        )
    x = _synthetic_samples(quantizer) if samples is None else samples.detach().clone()
    fitted = copy.deepcopy(quantizer)
    if not fitted.is_fitted:
        _run(_FIT, fitted, x)
    fitted.eval()
    _run(_SCALE, copy.deepcopy(fitted), x.clone())
    for values in (x, _probes(fitted, x)):
        for law in _LAWS:
            if law.name in fitted.waived_laws:
                continue
            _run(law, copy.deepcopy(fitted), values.clone())


def _run(law: _Law, quantizer: Quantizer, x: Tensor) -> None:
    """Tests one law, and turns any failure into an error that names the law."""
    broken = f"{type(quantizer).__name__} breaks the law of {law.name} ({law.sentence})"
    try:
        law.test(quantizer, x)
    except _BrokenError as counterexample:
        raise QuantizerError(f"{broken}: {counterexample}") from None
    except Exception as error:
        raise QuantizerError(f"{broken}: it raised {type(error).__name__}: {error}") from error


def _synthetic_samples(quantizer: Quantizer) -> Tensor:
    """Returns normally distributed values with outliers and zeros, shaped for the granularity."""
    shape = [8, 16, 5, 5]
    fitted = quantizer.is_fitted
    match quantizer.granularity:
        case PerChannel(axis=axis) if fitted:
            shape[axis] = quantizer.scale.shape[0]
        case PerGroup() as groups:
            outputs, count = quantizer.scale.shape if fitted else (6, 3)
            # The last group has one channel less than the others, but at least one.
            shape = [outputs, max(count * groups.size - 1, (count - 1) * groups.size + 1), 3, 3]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    kind = torch.rand(shape, generator=generator)
    x = torch.where(kind < 0.02, 4 * x, torch.where(kind > 0.95, 0, x))
    if quantizer.symmetric and quantizer.signed is False:
        x = x.abs()
    return x.to(quantizer.scale.device)


def _probes(quantizer: Quantizer, x: Tensor) -> Tensor:
    """Returns values in the shape of `x` across the range and beyond; half are ties or codes."""
    codes = quantizer.codes
    outside = _OUTSIDE * (codes.high - codes.low)
    position = torch.linspace(codes.low - outside, codes.high + outside, x.numel())
    position[::2] = (position[::2] * 2).round() / 2
    order = torch.randperm(x.numel(), generator=torch.Generator().manual_seed(1))
    position = position[order].reshape(x.shape).to(x)
    return (position - quantizer.zero_point_for(x)) * quantizer.scale_for(x).detach()


def _demand_equal(found: Tensor, expected: Tensor, x: Tensor, what: str) -> None:
    """Raises an error that names the first index where two tensors differ."""
    if found.shape != expected.shape:
        raise _BrokenError(f"{what} has shape {list(found.shape)}, expected {list(expected.shape)}")
    _demand(found == expected, x, found, f"{what} is", expected)


def _demand(
    holds: Tensor, x: Tensor, found: Tensor, what: str, expected: Tensor | str | None = None
) -> None:
    """Raises an error that names the first index where `holds` is False."""
    if bool(holds.all()):
        return
    index = tuple((~holds).nonzero()[0].tolist())
    text = f"at index {index} x = {x[index].item():.9g}: {what} {found[index].item():.9g}"
    if isinstance(expected, Tensor):
        expected = f"{expected[index].item():.9g}"
    raise _BrokenError(f"{text}, expected {expected}")


def _test_fit(quantizer: Quantizer, x: Tensor) -> None:
    quantizer.observe(x.clone())
    quantizer.fit()
    if not quantizer.is_fitted:
        raise _BrokenError("is_fitted is False after fit(); call set_parameters() in it")


def _test_scale(quantizer: Quantizer, x: Tensor) -> None:
    scale, zero_point = quantizer.scale.detach(), quantizer.zero_point.detach()
    wanted: list[int] = []
    match quantizer.granularity:
        case PerChannel(axis=axis):
            wanted = [x.shape[axis]]
        case PerGroup() as groups:
            wanted = [x.shape[0], groups.groups(x.shape[1])]
    for name, tensor in (("scale", scale), ("zero_point", zero_point)):
        if list(tensor.shape) != wanted:
            raise _BrokenError(f"{name} has shape {list(tensor.shape)}, expected {wanted}")
    bad = ~(scale.isfinite() & (scale > 0))
    if bool(bad.any()):
        raise _BrokenError(f"a scale is {scale[bad][0].item():g}")
    interval = quantizer.format.interval
    bad = (zero_point != zero_point.round()) | (zero_point < interval.low)
    bad |= zero_point > interval.high
    if bool(bad.any()):
        raise _BrokenError(f"a zero point is {zero_point[bad][0].item():g}")


def _test_shape(quantizer: Quantizer, x: Tensor) -> None:
    views = [x, x.transpose(-1, -2).contiguous().transpose(-1, -2) if x.dim() > 1 else x]
    if isinstance(quantizer.granularity, PerTensor):
        views += [x.flatten()[:1], x[:1]]
    for view in views:
        for name, result in (("codes", quantizer.quantize(view)), ("value", quantizer(view))):
            if result.shape != view.shape:
                raise _BrokenError(
                    f"{name} has shape {list(result.shape)}, expected {list(view.shape)}"
                )
            if result.device != view.device or not result.is_floating_point():
                raise _BrokenError(
                    f"{name} is {result.dtype} on {result.device}, expected a floating-point "
                    f"tensor on {view.device}"
                )


def _test_integers(quantizer: Quantizer, x: Tensor) -> None:
    codes = quantizer.quantize(x)
    _demand(codes.isfinite() & (codes == codes.round()), x, codes, "the code is", "an integer")


def _test_range(quantizer: Quantizer, x: Tensor) -> None:
    codes, allowed = quantizer.quantize(x), quantizer.codes
    inside = (codes >= allowed.low) & (codes <= allowed.high)
    _demand(inside, x, codes, "the code is", f"{allowed.low} to {allowed.high}")


def _test_linear(quantizer: Quantizer, x: Tensor) -> None:
    codes = quantizer.quantize(x).detach()
    scale, zero_point = quantizer.scale_for(x).detach(), quantizer.zero_point_for(x)
    found, expected = quantizer.dequantize(codes.clone()).detach(), (codes - zero_point) * scale
    if found.shape == expected.shape:
        # A quantizer may compute `codes * scale - zero_point * scale`, which rounds differently.
        size = (codes.abs() + zero_point.abs() + 1) * scale.abs()
        close = (found - expected).abs() <= 1e-6 * size
        _demand(close, x, found, "dequantize(code) is", expected)
        return
    _demand_equal(found, expected, x, "dequantize(codes)")


def _test_evaluation(quantizer: Quantizer, x: Tensor) -> None:
    expected = quantizer.dequantize(quantizer.quantize(x.clone())).detach()
    _demand_equal(quantizer(x.clone()).detach(), expected, x, "the evaluation value")


def _test_training(quantizer: Quantizer, x: Tensor) -> None:
    if quantizer.soft_training:
        return
    found = quantizer.train()(x.clone().requires_grad_()).detach()
    # This is computed after the call in training mode, which may have changed the scale.
    expected = quantizer.dequantize(quantizer.quantize(x.clone())).detach()
    _demand_equal(found, expected, x, "the training value")


def _test_fixed_point(quantizer: Quantizer, x: Tensor) -> None:
    codes = quantizer.quantize(x.clone()).detach()
    again = quantizer.quantize(quantizer.dequantize(codes.clone()).detach()).detach()
    _demand_equal(again, codes, x, "quantize(dequantize(code))")


def _test_zero(quantizer: Quantizer, x: Tensor) -> None:
    zeros = torch.zeros_like(x)
    value = quantizer.dequantize(quantizer.quantize(zeros.clone())).detach()
    _demand_equal(value, zeros, zeros, "dequantize(quantize(0))")


def _test_independence(quantizer: Quantizer, x: Tensor) -> None:
    codes = quantizer.quantize(x.clone()).detach()
    kept = torch.arange(x.numel(), device=x.device).reshape(x.shape) % 2 == 0
    others = quantizer.quantize(torch.where(kept, x, 5 * x)).detach()
    # Only the kept values are compared, because the others were changed.
    others = torch.where(kept, others, codes)
    _demand_equal(others, codes, x, "after a change of other values the code")
    if isinstance(quantizer.granularity, PerTensor) and x.shape[0] > 2:
        part = quantizer.quantize(x[:2].clone()).detach()
        _demand_equal(part, codes[:2], x[:2], "in a batch of 2 the code")


def _test_determinism(quantizer: Quantizer, x: Tensor) -> None:
    first = quantizer.quantize(x.clone()).detach()
    for repeat in range(2, _REPEATS + 1):
        again = quantizer.quantize(x.clone()).detach()
        _demand_equal(again, first, x, f"in call {repeat} the code")


def _test_input(quantizer: Quantizer, x: Tensor) -> None:
    before = x.clone()
    codes = quantizer.quantize(x).detach()
    _demand_equal(x, before, before, "after quantize(x), x")
    quantizer.dequantize(kept := codes.clone())
    _demand_equal(kept, codes, before, "after dequantize(codes), the code")
    for training in (False, True):
        quantizer.train(training)(x)
        _demand_equal(x, before, before, "after forward(x), x")


def _test_monotony(quantizer: Quantizer, x: Tensor) -> None:
    value = quantizer.dequantize(quantizer.quantize(x.clone())).detach()
    rows = quantizer.granularity.rows(x.contiguous())
    ordered, order = rows.sort(dim=1)
    values = quantizer.granularity.rows(value.contiguous()).gather(1, order)
    drops = (values.diff(dim=1) < 0).nonzero()
    if len(drops):
        row, column = drops[0].tolist()
        (a, b), (u, v) = ordered[row, column : column + 2], values[row, column : column + 2]
        raise _BrokenError(
            f"x = {a:.9g} becomes {u:.9g}, but the larger x = {b:.9g} becomes {v:.9g}"
        )


def _test_gradient(quantizer: Quantizer, x: Tensor) -> None:
    # The probes go beyond the range, because a clipping parameter has no gradient inside it.
    x = _probes(quantizer, x).requires_grad_()
    weights = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)).to(x)
    (quantizer.train()(x) * (0.5 + weights)).sum().backward()
    learned = [(name, p) for name, p in quantizer.named_parameters() if p.requires_grad]
    for name, tensor in [("x", x), *learned]:
        if tensor.grad is None:
            raise _BrokenError(f"{name} receives no gradient")
        if not bool(tensor.grad.isfinite().all()):
            raise _BrokenError(f"{name} receives a gradient with NaN or infinity")
        if not bool(tensor.grad.any()):
            raise _BrokenError(f"{name} receives a gradient of zeros only")


def _test_rescaling(quantizer: Quantizer, x: Tensor) -> None:
    if not quantizer.can_rescale:
        return
    codes = quantizer.quantize(x.clone()).detach()
    channels = torch.arange(quantizer.scale.numel(), device=x.device)
    factor = torch.exp2(channels % 5 - 2.0).to(x).reshape(quantizer.scale.shape)
    quantizer.rescale(factor)
    moved = x * quantizer.granularity.align(factor, x)
    _demand_equal(quantizer.quantize(moved).detach(), codes, moved, "after rescale() the code")


def _test_round_trip(quantizer: Quantizer, x: Tensor) -> None:
    codes = quantizer.quantize(x.clone()).detach()
    other = copy.deepcopy(quantizer)
    unsigned = quantizer.symmetric and quantizer.signed is False
    other.observe(3 * x.abs() if unsigned else 3 * x)
    other.fit()
    other.load_state_dict(quantizer.state_dict())
    if other.format != quantizer.format:
        raise _BrokenError(f"the format is {other.format}, expected {quantizer.format}")
    _demand_equal(other.quantize(x.clone()).detach(), codes, x, "after loading the code")


_FIT = _Law("fitting", "observe() and fit() decide the format and the scale", _test_fit)
_SCALE = _Law(
    "scale",
    "scale is positive and finite, zero_point is a code, and both have the granularity's shape",
    _test_scale,
)
_LAWS = (
    _Law("shape", "codes are floating-point tensors of the input's shape and device", _test_shape),
    _Law("integers", "codes are finite integers", _test_integers),
    _Law("range", "codes lie in the interval `codes`", _test_range),
    _Law("linearity", "dequantize(codes) = (codes - zero_point) * scale", _test_linear),
    _Law("determinism", "equal inputs give equal codes in every call", _test_determinism),
    _Law("untouched input", "no call changes its argument", _test_input),
    _Law("evaluation", "in eval mode forward(x) = dequantize(quantize(x))", _test_evaluation),
    _Law(
        "training",
        "in train mode forward(x) = dequantize(quantize(x)), unless soft_training is True",
        _test_training,
    ),
    _Law("fixed point", "quantize(dequantize(codes)) = codes", _test_fixed_point),
    _Law("zero", "0 becomes 0", _test_zero),
    _Law("independence", "a value's code does not depend on other values", _test_independence),
    _Law("monotony", "a larger x never becomes a smaller value", _test_monotony),
    _Law(
        "rescaling",
        "after rescale(k), k * x has the code that x had, unless can_rescale is False",
        _test_rescaling,
    ),
    _Law("gradient", "x and every learnable parameter receive a gradient", _test_gradient),
    _Law("round trip", "a loaded state_dict gives the same codes", _test_round_trip),
)
