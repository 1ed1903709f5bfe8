"""Every law has a quantizer that only that law catches."""

import copy

import pytest
import torch
from torch import Tensor, nn

from photomask.chip.observers import KL, MSE, MinMax, MovingAverage, Percentile
from photomask.chip.quantizers import PerChannel, PerGroup, PerTensor, Quantizer, check_quantizer
from photomask.chip.quantizers import contract as contract_module
from photomask.errors import QuantizerError


class PowerOfTwoLevels(Quantizer):
    def quantize(self, x):
        level = (x / self.scale).abs().clamp(1, 64).log2().round().exp2()
        return torch.where((x / self.scale).abs() < 0.5, 0.0, x.sign() * level)


class NeverReady(Quantizer):
    def fit(self):
        pass


class ScaleOfAnotherShape(Quantizer):
    def fit(self):
        super().fit()
        self.set_parameters(self.format, self.scale.reshape(1), self.zero_point.reshape(1))


class NegativeScale(Quantizer):
    def fit(self):
        super().fit()
        self.set_parameters(self.format, -self.scale, self.zero_point)


class ZeroPointOutsideTheFormat(Quantizer):
    def fit(self):
        super().fit()
        self.set_parameters(self.format, self.scale, self.zero_point + 1000)


class Squeezed(Quantizer):
    def quantize(self, x):
        return super().quantize(x).squeeze(0)


class Unrounded(Quantizer):
    def quantize(self, x):
        codes = super().quantize(x)
        return torch.where((codes > 20) & (codes < 30), 24.5, codes)


class TooWide(Quantizer):
    def quantize(self, x):
        return (x / self.scale).round().clamp(-128, 128)


class Stretched(Quantizer):
    def quantize(self, x):
        return super().quantize(x / 2)

    def dequantize(self, codes):
        return 2 * super().dequantize(codes)


class Wearing(Quantizer):
    calls = 0

    def quantize(self, x):
        self.calls += 1
        codes = super().quantize(x)
        return codes if self.calls < 6 else codes.clamp(-100, 100)


class Careless(Quantizer):
    def quantize(self, x):
        codes = super().quantize(x)
        with torch.no_grad():
            x.mul_(2)
        return codes


class Dequantizing(Quantizer):
    def dequantize(self, codes):
        value = super().dequantize(codes)
        codes.zero_()
        return value


class OtherEvaluation(Quantizer):
    def forward(self, x):
        return super().forward(x) if self.training else x


class OtherTraining(Quantizer):
    def forward(self, x):
        return x if self.training else super().forward(x)


class Drifting(Quantizer):
    def quantize(self, x):
        codes = super().quantize(x)
        return torch.where((codes > 20) & (codes < 30), codes + 1, codes)


class NoZero(Quantizer):
    def quantize(self, x):
        codes = super().quantize(x)
        return torch.where(codes == 0, 1.0, codes)


class Dynamic(Quantizer):
    def quantize(self, x):
        codes = super().quantize(x)
        # Looks at the whole input to decide about one code that is a fixed point either way.
        return codes.clamp(-128, 100) if x.abs().mean() > 2.2 * 127 * self.scale else codes


class Swapping(Quantizer):
    def quantize(self, x):
        codes = super().quantize(x)
        return torch.where(codes == 20, 25.0, codes)


class Staying(Quantizer):
    def __init__(self):
        super().__init__(granularity=PerChannel())

    def rescale(self, factor):
        pass


class Severed(Quantizer):
    def forward(self, x):
        return super().forward(x).detach() + 0 * x


class Deaf(Quantizer):
    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(0.5))


class Forgetful(Quantizer):
    def fit(self):
        super().fit()
        self.step = self.scale.item()

    def quantize(self, x):
        return (x / self.step).round().clamp(-128, 127)


MUTANTS = {
    NeverReady: "fitting",
    ScaleOfAnotherShape: "scale",
    Squeezed: "shape",
    Unrounded: "integers",
    TooWide: "range",
    Stretched: "linearity",
    Wearing: "determinism",
    Careless: "untouched input",
    Dequantizing: "untouched input",
    OtherEvaluation: "evaluation",
    OtherTraining: "training",
    Drifting: "fixed point",
    NoZero: "zero",
    Dynamic: "independence",
    Swapping: "monotony",
    Staying: "rescaling",
    Severed: "gradient",
    Deaf: "gradient",
    Forgetful: "round trip",
}


def make(mutant: type[Quantizer]) -> Quantizer:
    return mutant()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_quantizer_is_told_its_law(mutant):
    with pytest.raises(QuantizerError, match=f"breaks the law of {MUTANTS[mutant]} "):
        check_quantizer(make(mutant))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_no_other_law_would_catch_it(mutant, monkeypatch):
    law = MUTANTS[mutant]
    if law == "fitting":
        pytest.skip("without fitting there is nothing to test")
    kept = tuple(item for item in contract_module._LAWS if item.name != law)
    monkeypatch.setattr(contract_module, "_LAWS", kept)
    if law == "scale":
        nothing = contract_module._Law("scale", "", lambda quantizer, x: None)
        monkeypatch.setattr(contract_module, "_SCALE", nothing)
    check_quantizer(make(mutant))


def test_every_law_has_a_mutant():
    names = {law.name for law in contract_module._LAWS} | {"fitting", "scale"}
    assert names == set(MUTANTS.values())


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerChannel(1), PerGroup(5)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_the_built_in_quantizer_keeps_every_law(granularity, symmetric, bits):
    if symmetric or not isinstance(granularity, PerGroup):
        check_quantizer(Quantizer(bits, symmetric=symmetric, granularity=granularity))


@pytest.mark.parametrize("observer", [MinMax, MovingAverage, Percentile, MSE, KL])
@pytest.mark.parametrize("power_of_two", [True, False])
def test_every_observer_keeps_every_law(observer, power_of_two):
    check_quantizer(
        Quantizer(4, observer=observer(), power_of_two=power_of_two, symmetric=power_of_two)
    )


def test_a_ten_line_quantizer_keeps_every_law():
    check_quantizer(PowerOfTwoLevels())
    check_quantizer(PowerOfTwoLevels(signed=True), torch.rand(3, 4, 5))


def test_data_of_one_sign_reveal_codes_of_the_other():
    # The format is then unsigned, and a negative value met later would not fit it.
    with pytest.raises(QuantizerError, match=r"law of range .* expected 0 to 255"):
        check_quantizer(PowerOfTwoLevels(), torch.rand(3, 4, 5))


@pytest.mark.parametrize("mutant", [NegativeScale, ZeroPointOutsideTheFormat])
def test_impossible_parameters_break_the_law_of_scale(mutant):
    with pytest.raises(QuantizerError, match="breaks the law of scale "):
        check_quantizer(mutant())


def test_soft_training_may_differ_in_training_only():
    class Soft(OtherTraining):
        soft_training = True

    check_quantizer(Soft())


def test_the_quantizer_itself_is_not_changed():
    quantizer = Quantizer()
    check_quantizer(quantizer)
    assert not quantizer.is_fitted
    x = torch.randn(4, 4)
    quantizer.observe(x)
    quantizer.fit()
    before = copy.deepcopy(quantizer.state_dict())
    check_quantizer(quantizer)
    check_quantizer(quantizer, x)
    assert all(torch.equal(before[key], value) for key, value in quantizer.state_dict().items())


def test_a_fitted_weight_quantizer_is_probed_in_its_own_shape():
    for granularity in (PerChannel(), PerGroup(4)):
        quantizer = Quantizer(4, granularity=granularity, narrow=True)
        quantizer.observe(torch.randn(7, 10, 3, 3))
        quantizer.fit()
        check_quantizer(quantizer)


def test_the_message_holds_a_counterexample():
    with pytest.raises(QuantizerError) as caught:
        check_quantizer(TooWide())
    text = str(caught.value)
    assert text.startswith("TooWide breaks the law of range (codes lie in the interval `codes`)")
    assert "the code is 128, expected -128 to 127" in text
    assert "at index (" in text


def test_an_exception_of_the_users_code_names_the_law():
    class Unfinished(Quantizer):
        def quantize(self, x: Tensor) -> Tensor:
            return x / self.levels

    with pytest.raises(QuantizerError, match=r"law of shape .* it raised AttributeError"):
        check_quantizer(Unfinished())


def test_something_else_is_refused():
    with pytest.raises(QuantizerError, match="expected a Quantizer object"):
        check_quantizer(Quantizer)  # pyright: ignore[reportArgumentType]


def test_only_quantizers_for_weights_alone_waive_laws_and_not_all_of_them():
    class Shifted(NoZero):
        waived_laws = frozenset({"zero"})

    class ForWeights(Shifted):
        weights_only = True

    class Unlawful(ForWeights):
        waived_laws = frozenset({"zero", "integers"})

    with pytest.raises(QuantizerError, match="Shifted waives the law of zero; only"):
        check_quantizer(Shifted())
    check_quantizer(ForWeights())
    with pytest.raises(QuantizerError, match="Unlawful waives the law of integers"):
        check_quantizer(Unlawful())
