"""Saves recipes as JSON, by describing their quantizers."""

from pathlib import Path
from typing import Any

from photomask.chip.microscaling import MX_FORMATS
from photomask.chip.observers import MinMax, MovingAverage, Percentile
from photomask.chip.quantizers import (
    Microscaling,
    PerGroup,
    PerTensor,
    PowerOfTwoFactors,
    Quantizer,
)
from photomask.chip.recipe.documents import (
    ACTIVATION_ALGORITHMS,
    FACTORS,
    OBSERVERS,
    WEIGHT_ALGORITHMS,
    ActivationDocument,
    GroupDocument,
    HeadroomDocument,
    MovingAverageDocument,
    ObserverDocument,
    PercentileDocument,
    RecipeDocument,
    RuleDocument,
    WeightDocument,
)
from photomask.chip.recipe.rules import Recipe
from photomask.documents import write_file
from photomask.errors import RecipeError


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """Writes a recipe as JSON, for `load_recipe` and the option `--recipe`.

    Args:
        recipe: the recipe. Its quantizers and observers must be those of Photomask, because JSON
            cannot describe classes of your own.
        path: the path of the file.

    Raises:
        RecipeError: JSON cannot describe a quantizer or an observer.
        ExportError: the file cannot be written.
    """
    write_file(Path(path), recipe_document(recipe).render().encode())


def recipe_document(recipe: Recipe) -> RecipeDocument:
    """Returns a recipe as a document.

    Raises:
        RecipeError: JSON cannot describe a quantizer or an observer.
    """
    return RecipeDocument(
        name=recipe.name,
        weight=_weight(recipe.weight),
        activation=_activation(recipe.activation),
        rules=tuple(
            RuleDocument(
                match=rule.match,
                weight=None if rule.weight is None else _weight(rule.weight),
                activation=None if rule.activation is None else _activation(rule.activation),
            )
            for rule in recipe.rules
        ),
        keep=recipe.keep,
        output_bits=recipe.output_bits,
    )


def _weight(template: Quantizer) -> WeightDocument:
    if type(template) is Microscaling:
        return WeightDocument.model_validate(_microscaling(template))
    algorithm = _algorithm(template, WEIGHT_ALGORITHMS)
    granularity = template.granularity
    if isinstance(granularity, PerGroup):
        described = GroupDocument(
            per_group=granularity.size, multiplier_bits=granularity.multiplier_bits
        )
    else:
        described = "per_tensor" if isinstance(granularity, PerTensor) else "per_channel"
    return WeightDocument(
        algorithm=algorithm,
        bits=template.bits,
        signed=None if template.narrow else template.signed,
        observer=_observer(template),
        power_of_two=template.power_of_two,
        symmetric=template.symmetric,
        narrow=template.narrow,
        granularity=described,
    )


def _microscaling(template: Microscaling) -> dict[str, Any]:
    for name, element in MX_FORMATS.items():
        if template.element == element:
            return {"algorithm": name, "bits": element.bits, "axis": template.axis}
    raise RecipeError(
        f"a recipe with {template.element} cannot be written as JSON, which describes only "
        f"{', '.join(MX_FORMATS)}; keep the recipe in Python"
    )


def _activation(template: Quantizer) -> ActivationDocument:
    if type(template) is Microscaling:
        return ActivationDocument.model_validate(_microscaling(template))
    factored = isinstance(template, PowerOfTwoFactors)
    algorithm = FACTORS if factored else _algorithm(template, ACTIVATION_ALGORITHMS)
    if template.narrow:
        raise RecipeError(
            "a recipe with narrow codes for activations cannot be written as JSON; keep the recipe "
            "in Python, or set narrow=False"
        )
    return ActivationDocument(
        algorithm=algorithm,
        bits=template.bits,
        signed=template.signed,
        observer=_observer(template),
        power_of_two=template.power_of_two,
        symmetric=template.symmetric,
        largest_factor=template.largest_factor if factored else None,
    )


def _algorithm(template: Quantizer, algorithms: dict[str, type[Quantizer]]) -> str:
    for name, algorithm in algorithms.items():
        if type(template) is algorithm:
            return name
    raise RecipeError(
        f"a recipe with {type(template).__name__} cannot be written as JSON, which describes only "
        f"{', '.join(algorithms)}; keep the recipe in Python"
    )


def _observer(template: Quantizer) -> ObserverDocument | None:
    observer = template.observer
    if type(template) not in (Quantizer, PowerOfTwoFactors):
        usual = type(template)(template.bits, symmetric=template.symmetric).observer
        if type(observer) is type(usual) and str(observer) == str(usual):
            return None
    if type(observer) is Percentile:
        return PercentileDocument(percentile=observer.percent)
    if type(observer) is MovingAverage:
        return MovingAverageDocument(moving_average=observer.momentum)
    if type(observer) is MinMax and observer.headroom != 1:
        return HeadroomDocument(headroom=observer.headroom)
    for name, known in OBSERVERS.items():
        if type(observer) is known:
            return name
    raise RecipeError(
        f"a recipe with the observer {type(observer).__name__} cannot be written as JSON; keep the "
        "recipe in Python"
    )
