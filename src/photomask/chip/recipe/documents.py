"""Recipes as data: strict JSON documents."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from photomask.chip.microscaling import MX_FORMATS
from photomask.chip.observers import KL, MSE, MinMax, MovingAverage, Observer, Percentile
from photomask.chip.quantizers import (
    LSQ,
    PACT,
    RCF,
    SAWB,
    TQT,
    APoT,
    Binary,
    DoReFa,
    DoReFaActivation,
    Granularity,
    LSQPlus,
    Microscaling,
    PerChannel,
    PerGroup,
    PerTensor,
    PowerOfTwoFactors,
    Quantizer,
    Ternary,
)
from photomask.chip.recipe.rules import Recipe, Rule
from photomask.documents import Document
from photomask.errors import RecipeError

WEIGHT_ALGORITHMS: dict[str, type[Quantizer]] = {
    "uniform": Quantizer,
    "lsq": LSQ,
    "lsq_plus": LSQPlus,
    "sawb": SAWB,
    "dorefa": DoReFa,
    "rcf": RCF,
    "apot": APoT,
    "tqt": TQT,
    "binary": Binary,
    "ternary": Ternary,
}
"""The `algorithm` of weights; those in blocks are the keys of `MX_FORMATS`."""
ACTIVATION_ALGORITHMS: dict[str, type[Quantizer]] = {
    "uniform": Quantizer,
    "lsq": LSQ,
    "lsq_plus": LSQPlus,
    "pact": PACT,
    "dorefa": DoReFaActivation,
    "rcf": RCF,
    "tqt": TQT,
}
"""The `algorithm` of activations; those in blocks are the keys of `MX_FORMATS`."""
OBSERVERS: dict[str, type[Observer]] = {"min_max": MinMax, "mse": MSE, "kl": KL}
"""The `observer` that needs no number."""
FACTORS = "power_of_two_factors"
"""The `algorithm` of activations with a power of two for each channel of the last axis."""
_WITHOUT_ZERO_POINT = (PACT, DoReFaActivation, RCF, TQT)
_OF_TWO_BITS = (Binary, Ternary)


def _one_of(*names: str) -> AfterValidator:
    """Returns the rule that a text is one of these names."""

    def require(name: str) -> str:
        if name not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return name

    return AfterValidator(require)


WeightAlgorithm = Annotated[str, _one_of(*WEIGHT_ALGORITHMS, *MX_FORMATS)]
ActivationAlgorithm = Annotated[str, _one_of(*ACTIVATION_ALGORITHMS, FACTORS, *MX_FORMATS)]
ObserverName = Annotated[str, _one_of(*OBSERVERS)]


class PercentileDocument(Document):
    """`{"percentile": 99.99}`."""

    percentile: float = Field(gt=50, le=100)


class HeadroomDocument(Document):
    """`{"headroom": 2}`: min-max, with a range that is twice as wide as what was observed."""

    headroom: float = Field(ge=1, allow_inf_nan=False)


class MovingAverageDocument(Document):
    """`{"moving_average": 0.9}`, the momentum."""

    moving_average: float = Field(ge=0, lt=1)


ObserverDocument = ObserverName | PercentileDocument | MovingAverageDocument | HeadroomDocument


class GroupDocument(Document):
    """`{"per_group": 32}`, groups of 32 input channels."""

    per_group: int = Field(ge=1)
    multiplier_bits: int = Field(default=8, ge=1, le=12)

    def build(self) -> Granularity:
        """Returns the granularity."""
        return PerGroup(self.per_group, self.multiplier_bits)


class UniformDocument(Document):
    """What weights and activations have in common."""

    bits: int = Field(default=8, ge=2, le=16)
    signed: bool | None = None
    observer: ObserverDocument | None = None
    """None: where the algorithm starts, for uniform quantizers min-max."""
    power_of_two: bool = False
    axis: int | None = None
    """Of microscaling formats: along which products are summed up; 1 if None."""

    def build_microscaling(self, algorithm: str) -> Quantizer | None:
        """Returns the quantizer if the algorithm is a microscaling format.

        Raises:
            RecipeError: a field that such a format decides itself, or an axis without one.
        """
        if (element := MX_FORMATS.get(algorithm)) is None:
            if self.axis is not None:
                raise RecipeError(
                    f"algorithm {algorithm!r} has no axis, found {self.axis}; only microscaling "
                    f"formats do: {', '.join(MX_FORMATS)}"
                )
            return None
        self.demand(algorithm, ("axis",), {"bits": (element.bits, 8)})
        return Microscaling(element, axis=1 if self.axis is None else self.axis)

    def demand(
        self, algorithm: str, free: tuple[str, ...], fixed: Mapping[str, tuple[Any, ...]]
    ) -> None:
        """Refuses fields that an algorithm decides itself, unless they say what it decides.

        Args:
            algorithm: for the message.
            free: fields that it leaves open.
            fixed: what it decides, by field; of all others, their defaults.

        Raises:
            RecipeError: names the field.
        """
        for name in self.model_fields_set - {"algorithm", *free}:
            value, default = getattr(self, name), type(self).model_fields[name].default
            if value not in fixed.get(name, (default,)):
                raise RecipeError(
                    f"algorithm {algorithm!r} decides {name!r} itself, found {value!r}: leave it "
                    f"out; what it leaves open is {', '.join(free)}"
                )

    def build_observer(self) -> Observer | None:
        """Returns the observer."""
        match self.observer:
            case PercentileDocument(percentile=percent):
                return Percentile(percent)
            case MovingAverageDocument(moving_average=momentum):
                return MovingAverage(momentum)
            case HeadroomDocument(headroom=headroom):
                return MinMax(headroom)
            case str(name):
                return OBSERVERS[name]()
            case None:
                return None

    def options(self) -> dict[str, Any]:
        """Returns what every quantizer takes."""
        return {
            "signed": self.signed,
            "observer": self.build_observer(),
            "power_of_two": self.power_of_two,
        }


class WeightDocument(UniformDocument):
    """A quantizer of weights: symmetric, narrow and per channel unless it says otherwise."""

    algorithm: WeightAlgorithm = "uniform"
    symmetric: bool = True
    narrow: bool | None = None
    """None: narrow if symmetric."""
    granularity: Literal["per_tensor", "per_channel"] | GroupDocument = "per_channel"

    def build(self) -> Quantizer:
        """Returns the quantizer.

        Raises:
            RecipeError: a combination that no integer arithmetic can carry out.
        """
        if (found := self.build_microscaling(self.algorithm)) is not None:
            return found
        granularity = PerTensor() if self.granularity == "per_tensor" else PerChannel()
        if isinstance(self.granularity, GroupDocument):
            granularity = self.granularity.build()
        make = WEIGHT_ALGORITHMS[self.algorithm]
        unsaid = make in _OF_TWO_BITS and "bits" not in self.model_fields_set
        return make(
            2 if unsaid else self.bits,
            symmetric=self.symmetric,
            granularity=granularity,
            narrow=self.symmetric if self.narrow is None else self.narrow,
            **self.options(),
        )


class ActivationDocument(UniformDocument):
    """A quantizer of activations: per tensor, affine unless it or its algorithm says otherwise."""

    algorithm: ActivationAlgorithm = "uniform"
    symmetric: bool = False
    largest_factor: int | None = None
    """Of `power_of_two_factors` alone, whose codes are signed and symmetric."""

    def build(self) -> Quantizer:
        """Returns the quantizer.

        Raises:
            RecipeError: a combination that the algorithm has no place for.
        """
        if (found := self.build_microscaling(self.algorithm)) is not None:
            return found
        if self.algorithm == FACTORS:
            decided = {"symmetric": (True,), "signed": (True, None)}
            self.demand(FACTORS, ("bits", "observer", "largest_factor"), decided)
            return PowerOfTwoFactors(
                self.bits, largest_factor=self.largest_factor, observer=self.build_observer()
            )
        if self.largest_factor is not None:
            raise RecipeError(f"{self.algorithm!r} activations have no factors")
        make = ACTIVATION_ALGORITHMS[self.algorithm]
        unsaid = make in _WITHOUT_ZERO_POINT and "symmetric" not in self.model_fields_set
        return make(self.bits, symmetric=self.symmetric or unsaid, **self.options())


class RuleDocument(Document):
    """An exception: `{"match": "operator:add", "activation": {"bits": 16}}`."""

    match: str
    weight: WeightDocument | None = None
    activation: ActivationDocument | None = None

    def build(self) -> Rule:
        """Returns the rule."""
        return Rule(
            self.match,
            weight=self.weight.build() if self.weight else None,
            activation=self.activation.build() if self.activation else None,
        )


class RecipeDocument(Document):
    """A recipe as JSON; its fields are those of `Recipe`."""

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1)
    weight: WeightDocument = WeightDocument()
    activation: ActivationDocument = ActivationDocument()
    rules: tuple[RuleDocument, ...] = ()
    keep: tuple[str, ...] = ()
    output_bits: int = Field(default=16, ge=2, le=16)

    def build(self) -> Recipe:
        """Returns the recipe.

        Raises:
            RecipeError: a request that cannot be met.
        """
        return Recipe(
            name=self.name,
            weight=self.weight.build(),
            activation=self.activation.build(),
            rules=tuple(rule.build() for rule in self.rules),
            keep=self.keep,
            output_bits=self.output_bits,
        )
