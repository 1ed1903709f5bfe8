"""Recipes as data: strict JSON documents."""

from typing import Literal

from pydantic import Field

from photomask.chip.observers import KL, MSE, MinMax, MovingAverage, Observer, Percentile
from photomask.chip.quantizers import Granularity, PerChannel, PerGroup, PerTensor, Quantizer
from photomask.chip.recipe.rules import Recipe, Rule
from photomask.documents import Document


class PercentileDocument(Document):
    """`{"percentile": 99.99}`."""

    percentile: float = Field(gt=50, le=100)


class MovingAverageDocument(Document):
    """`{"moving_average": 0.9}`, the momentum."""

    moving_average: float = Field(ge=0, lt=1)


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
    observer: Literal["min_max", "mse", "kl"] | PercentileDocument | MovingAverageDocument = (
        "min_max"
    )
    power_of_two: bool = False

    def build_observer(self) -> Observer:
        """Returns the observer."""
        match self.observer:
            case PercentileDocument(percentile=percent):
                return Percentile(percent)
            case MovingAverageDocument(moving_average=momentum):
                return MovingAverage(momentum)
            case "mse":
                return MSE()
            case "kl":
                return KL()
            case _:
                return MinMax()


class WeightDocument(UniformDocument):
    """A quantizer of weights: symmetric, narrow and per channel unless it says otherwise."""

    symmetric: bool = True
    narrow: bool | None = None
    """None: narrow if symmetric."""
    granularity: Literal["per_tensor", "per_channel"] | GroupDocument = "per_channel"

    def build(self) -> Quantizer:
        """Returns the quantizer.

        Raises:
            RecipeError: a combination that no integer arithmetic can carry out.
        """
        granularity = PerTensor() if self.granularity == "per_tensor" else PerChannel()
        if isinstance(self.granularity, GroupDocument):
            granularity = self.granularity.build()
        return Quantizer(
            self.bits,
            symmetric=self.symmetric,
            signed=self.signed,
            granularity=granularity,
            observer=self.build_observer(),
            power_of_two=self.power_of_two,
            narrow=self.symmetric if self.narrow is None else self.narrow,
        )


class ActivationDocument(UniformDocument):
    """A quantizer of activations: affine unless it says otherwise, always per tensor."""

    symmetric: bool = False

    def build(self) -> Quantizer:
        """Returns the quantizer."""
        return Quantizer(
            self.bits,
            symmetric=self.symmetric,
            signed=self.signed,
            observer=self.build_observer(),
            power_of_two=self.power_of_two,
        )


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
