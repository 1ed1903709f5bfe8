"""Defines recipes as strict JSON documents."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from photomask.chip.microscaling import MX_FORMATS
from photomask.chip.observers import KL, MSE, MinMax, MovingAverage, Observer, Percentile
from photomask.chip.quantizers import (
    A2Q,
    LSQ,
    PACT,
    RCF,
    SAWB,
    TQT,
    A2QPlus,
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
    "a2q": A2Q,
    "a2q_plus": A2QPlus,
    "binary": Binary,
    "ternary": Ternary,
}
"""The values of `algorithm` for weights; the keys of `MX_FORMATS` come in addition."""
ACTIVATION_ALGORITHMS: dict[str, type[Quantizer]] = {
    "uniform": Quantizer,
    "lsq": LSQ,
    "lsq_plus": LSQPlus,
    "pact": PACT,
    "dorefa": DoReFaActivation,
    "rcf": RCF,
    "tqt": TQT,
}
"""The values of `algorithm` for activations; `FACTORS` and the keys of `MX_FORMATS` come too."""
OBSERVERS: dict[str, type[Observer]] = {"min_max": MinMax, "mse": MSE, "kl": KL}
"""The values of `observer` for observers that take no number."""
FACTORS = "power_of_two_factors"
"""The `algorithm` of activations with a power-of-two factor per channel of the last axis."""
_WITHOUT_ZERO_POINT = (PACT, DoReFaActivation, RCF, TQT)
_OF_TWO_BITS = (Binary, Ternary)


def _one_of(*names: str) -> AfterValidator:
    """Returns a validator that accepts only the given names."""

    def require(name: str) -> str:
        if name not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return name

    return AfterValidator(require)


WeightAlgorithm = Annotated[str, _one_of(*WEIGHT_ALGORITHMS, *MX_FORMATS)]
ActivationAlgorithm = Annotated[str, _one_of(*ACTIVATION_ALGORITHMS, FACTORS, *MX_FORMATS)]
ObserverName = Annotated[str, _one_of(*OBSERVERS)]


class PercentileDocument(Document):
    """The observer `Percentile`, as in `{"percentile": 99.99}`."""

    percentile: float = Field(gt=50, le=100)


class HeadroomDocument(Document):
    """The observer `MinMax` with headroom; `{"headroom": 2}` doubles the observed range."""

    headroom: float = Field(ge=1, allow_inf_nan=False)


class MovingAverageDocument(Document):
    """The observer `MovingAverage` with its momentum, as in `{"moving_average": 0.9}`."""

    moving_average: float = Field(ge=0, lt=1)


ObserverDocument = ObserverName | PercentileDocument | MovingAverageDocument | HeadroomDocument


class GroupDocument(Document):
    """Scales per group; `{"per_group": 32}` makes groups of 32 input channels."""

    per_group: int = Field(ge=1)
    multiplier_bits: int = Field(default=8, ge=1, le=12)

    def build(self) -> Granularity:
        """Returns the granularity."""
        return PerGroup(self.per_group, self.multiplier_bits)


class UniformDocument(Document):
    """The fields that quantizers of weights and of activations have in common."""

    bits: int = Field(default=8, ge=2, le=16)
    signed: bool | None = None
    observer: ObserverDocument | None = None
    """None selects the algorithm's own observer, which is min-max for uniform quantizers."""
    power_of_two: bool = False
    axis: int | None = None
    """For microscaling formats only: the axis along which products are summed; 1 if None."""

    def build_microscaling(self, algorithm: str) -> Quantizer | None:
        """Returns the quantizer of a microscaling format, or None for another algorithm.

        Raises:
            RecipeError: a field is set that such a format decides itself, or `axis` is set for
                another algorithm.
        """
        if (element := MX_FORMATS.get(algorithm)) is None:
            if self.axis is not None:
                raise RecipeError(
                    f"algorithm {algorithm!r} has no axis, found axis {self.axis}; only the "
                    f"microscaling formats have one: {', '.join(MX_FORMATS)}"
                )
            return None
        self.demand(algorithm, ("axis",), {"bits": (element.bits, 8)})
        return Microscaling(element, axis=1 if self.axis is None else self.axis)

    def demand(
        self, algorithm: str, free: tuple[str, ...], fixed: Mapping[str, tuple[Any, ...]]
    ) -> None:
        """Refuses fields that an algorithm decides itself, unless they have the decided value.

        Args:
            algorithm: the name of the algorithm, for the message.
            free: the fields that the algorithm leaves open.
            fixed: the values that the algorithm accepts, by field; for other fields it accepts
                their defaults.

        Raises:
            RecipeError: a field has another value; the message names it.
        """
        for name in self.model_fields_set - {"algorithm", *free}:
            value, default = getattr(self, name), type(self).model_fields[name].default
            if value not in fixed.get(name, (default,)):
                raise RecipeError(
                    f"algorithm {algorithm!r} decides {name!r} itself, found {value!r}; remove it. "
                    f"The algorithm leaves open only: {', '.join(free)}"
                )

    def build_observer(self) -> Observer | None:
        """Returns the observer, or None for the algorithm's own."""
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
        """Returns the options that every quantizer takes."""
        return {
            "signed": self.signed,
            "observer": self.build_observer(),
            "power_of_two": self.power_of_two,
        }


class WeightDocument(UniformDocument):
    """A quantizer of weights; by default it is symmetric, narrow and per channel."""

    algorithm: WeightAlgorithm = "uniform"
    symmetric: bool = True
    narrow: bool | None = None
    """None makes symmetric codes narrow."""
    granularity: Literal["per_tensor", "per_channel"] | GroupDocument = "per_channel"

    def build(self) -> Quantizer:
        """Returns the quantizer.

        Raises:
            RecipeError: no integer arithmetic can carry out the combination of fields.
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
    """A quantizer of activations, per tensor; it is affine unless the algorithm is symmetric."""

    algorithm: ActivationAlgorithm = "uniform"
    symmetric: bool = False
    largest_factor: int | None = None
    """For `power_of_two_factors` only: the largest exponent of a channel's factor."""

    def build(self) -> Quantizer:
        """Returns the quantizer.

        Raises:
            RecipeError: the algorithm does not support the combination of fields.
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
            raise RecipeError(
                f"algorithm {self.algorithm!r} has no factors, found largest_factor "
                f"{self.largest_factor}; remove it, or use the algorithm {FACTORS!r}"
            )
        make = ACTIVATION_ALGORITHMS[self.algorithm]
        unsaid = make in _WITHOUT_ZERO_POINT and "symmetric" not in self.model_fields_set
        return make(self.bits, symmetric=self.symmetric or unsaid, **self.options())


class RuleDocument(Document):
    """An exception, as in `{"match": "operator:add", "activation": {"bits": 16}}`."""

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
    """A recipe as JSON, with the fields of `Recipe`."""

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
            RecipeError: a quantizer, a rule or a pattern is not possible.
        """
        return Recipe(
            name=self.name,
            weight=self.weight.build(),
            activation=self.activation.build(),
            rules=tuple(rule.build() for rule in self.rules),
            keep=self.keep,
            output_bits=self.output_bits,
        )
