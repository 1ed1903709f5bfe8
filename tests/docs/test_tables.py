"""The tables of the documentation that say what the code is are compared with the code."""

import inspect
import re
from pathlib import Path

from tests.docs.pages import ROOT

from photomask import attention, chip
from photomask.attention import FAMILIES, Pattern
from photomask.chip import Quantizer, quantizers
from photomask.chip.graph.lowerings import LOWERINGS
from photomask.chip.operators import AnyOperator
from photomask.chip.recipe import PRESETS as RECIPES
from photomask.chip.recipe.documents import (
    ActivationDocument,
    PercentileDocument,
    RecipeDocument,
    UniformDocument,
    WeightDocument,
)
from photomask.chip.target import PRESETS as TARGETS
from photomask.chip.target import Target

ATTENTION_PAGE = ROOT / "docs" / "reference" / "attention.md"
VERBS_PAGE = ROOT / "docs" / "reference" / "calling.md"
OPERATORS_PAGE = ROOT / "docs" / "reference" / "operators.md"
TARGETS_PAGE = ROOT / "docs" / "reference" / "targets.md"
QUANTIZERS_PAGE = ROOT / "docs" / "reference" / "quantizers.md"
RECIPES_PAGE = ROOT / "docs" / "reference" / "recipes.md"


def rows_of(page: Path, heading: str) -> list[list[str]]:
    """Returns the cells of the table under a heading, header and rule left out."""
    section = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cell: str) -> list[str]:
    """Returns what a cell writes as code."""
    return re.findall(r"`([^`]+)`", cell)


def test_the_table_of_verbs_says_how_functions_are_called():
    text = VERBS_PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \|([^|]*)\|([^|]*)\|[^|]*\|$", text, re.MULTILINE)
    calls = [
        (pipeline, *found.groups())
        for verb, *cells in rows
        for pipeline, cell in zip((chip, attention), cells, strict=True)
        if (found := re.search(r"`(\w+)\(([^)]*)\)`", cell)) and found[1] == verb
    ]
    assert len(calls) == 10
    for pipeline, verb, arguments in calls:
        parameters = list(inspect.signature(getattr(pipeline, verb)).parameters)
        assert parameters[: len(arguments.split(", "))] == arguments.split(", "), verb


def test_the_page_of_operators_names_all_that_are_lowered_and_no_others():
    rows = rows_of(OPERATORS_PAGE, "What is captured")
    named = [name for row in rows for name in quoted(row[0])]
    assert len(named) == len(set(named))
    assert set(named) == {*LOWERINGS}


def test_the_page_of_operators_names_all_integer_operators():
    kinds = {operator.model_fields["kind"].default for operator in AnyOperator.__origin__.__args__}
    rows = rows_of(OPERATORS_PAGE, "What a program consists of")
    assert {quoted(row[0])[0] for row in rows} == kinds


def test_the_table_of_targets_is_what_the_presets_are():
    rows = rows_of(TARGETS_PAGE, "Presets")
    assert {quoted(row[0])[0]: row[1:-1] for row in rows} == {
        name: described(target) for name, target in TARGETS.items()
    }


def described(target: Target) -> list[str]:
    """Returns a target as the cells of its row."""
    multiplier = "shift only" if target.power_of_two_only else f"{target.multiplier_bits} bits"
    return [
        target.rounding.value,
        multiplier,
        f"{target.shift_min}…{target.shift_max}, "
        + ("per channel" if target.per_channel_shift else "per operator"),
        widths(target.weight_bits),
        widths(target.activation_bits) + ("" if target.unsigned_activations else " signed"),
        target.zero_points.value,
    ]


def widths(bits: tuple[int, ...]) -> str:
    """Returns widths as `2…16` or `4, 8`."""
    if len(bits) > 2 and bits == tuple(range(bits[0], bits[-1] + 1)):
        return f"{bits[0]}…{bits[-1]}"
    return ", ".join(map(str, bits))


def test_the_table_of_fields_names_every_field_of_a_target():
    rows = rows_of(TARGETS_PAGE, "Fields")
    named = [name for row in rows for name in quoted(row[0])]
    assert sorted(named) == sorted(set(Target.model_fields) - {"schema_version"})


def test_the_table_of_recipes_is_what_the_presets_are():
    rows = rows_of(RECIPES_PAGE, "Presets")
    assert {quoted(row[0])[0]: row[1:-1] for row in rows} == {
        name: [described_weight(recipe), described_activation(recipe)]
        for name, recipe in RECIPES.items()
    }


def described_weight(recipe: RecipeDocument) -> str:
    """Returns a recipe's weights as the cell of its row."""
    weight = recipe.weight
    granularity = str(weight.build().granularity).partition(" (")[0]
    words = [f"{weight.bits} bits", granularity, *common(weight)]
    return ", ".join(words) + (f"; {' and '.join(recipe.keep)} 8" if recipe.keep else "")


def described_activation(recipe: RecipeDocument) -> str:
    """Returns a recipe's activations as the cell of its row."""
    activation = recipe.activation
    words = [
        f"{activation.bits} bits" + (" signed" if activation.signed else ""),
        "no zero point" if activation.symmetric else "affine",
        *common(activation),
    ]
    return ", ".join(words)


def common(document: UniformDocument) -> list[str]:
    """Returns what weights and activations have in common."""
    observer = document.observer
    if isinstance(document, WeightDocument | ActivationDocument) and observer is None:
        shown = {"uniform": "min-max", "lsq_plus": "LSQ+"}.get(document.algorithm)
        shown = shown or document.algorithm.upper()
    elif isinstance(observer, PercentileDocument):
        shown = f"{observer.percentile} %"
    else:
        shown = {"min_max": "min-max", "mse": "MSE", "kl": "KL"}[str(observer)]
    return ["power-of-two scale"] * document.power_of_two + [shown]


def test_the_table_of_quantizers_names_every_quantizer():
    exported = [getattr(quantizers, name) for name in quantizers.__all__]
    classes = {x.__name__ for x in exported if isinstance(x, type) and issubclass(x, Quantizer)}
    assert {quoted(row[0])[0] for row in rows_of(QUANTIZERS_PAGE, "Which one")} == classes


def test_the_table_of_families_names_every_family():
    named = {name for row in rows_of(ATTENTION_PAGE, "Families") for name in quoted(row[1])}
    assert named == {kind for family in FAMILIES for kind in family.model_types}


def test_the_table_of_patterns_names_every_pattern():
    named = [quoted(row[0])[0] for row in rows_of(ATTENTION_PAGE, "Patterns")]
    assert named == [pattern.label for pattern in reversed(Pattern)]
