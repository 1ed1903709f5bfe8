"""Defines the search space: which recipes, widths, prunings and machines are combined."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

from pydantic import Field, field_serializer, model_validator

from photomask.chip.cost import Accelerator, load_accelerator
from photomask.chip.exploration.points import DesignPoint, Metric, PruningChoice
from photomask.chip.microscaling import MX_FORMATS
from photomask.chip.recipe import PRESETS, Site
from photomask.chip.recipe.documents import (
    ActivationAlgorithm,
    ActivationDocument,
    RecipeDocument,
    WeightAlgorithm,
    WeightDocument,
)
from photomask.chip.recipe.matching import check_pattern, matching
from photomask.chip.sparsity import NofM
from photomask.chip.target import Target, load_target
from photomask.documents import Document, file_of_name, read_text
from photomask.errors import PhotomaskError, RecipeError, UsageError
from photomask.report import Shown, Table

OWN = "own"
"""The choice that keeps what the recipe says."""
DENSE = "none"
"""The choice without pruning."""
HARDWARE_FIELDS = ("signed", "power_of_two", "symmetric", "narrow", "granularity")
"""The fields of a quantizer that another algorithm keeps, because the hardware asks for them."""
OWN_WIDTH = ("binary", "ternary", *MX_FORMATS)
"""The algorithms that decide their width themselves."""
Named = TypeVar("Named", RecipeDocument, Target, Accelerator)


class Chooser(Protocol):
    """What chooses one of several words for each parameter; a trial of Optuna is one."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any:
        """Returns one of the choices."""
        ...


class LayerGroup(Document):
    """Sites that get the same widths and quantizers.

    A site keeps what its recipe says unless one of these candidates is chosen, so the recipe's own
    width is always a candidate too. Rules and `keep` of the recipe stay: with `match` None they win
    over the group, and with a pattern only `keep` does.

    Attributes:
        name: the name of the group in the study.
        match: a pattern as in the rules of recipes; None for the defaults of the recipe.
        weight_bits: other widths of the weights.
        activation_bits: other widths of the activations.
        weight_algorithms: other quantizers of the weights, by their names in recipes.
        activation_algorithms: other quantizers of the activations.
    """

    name: str = Field(min_length=1)
    match: str | None = None
    weight_bits: tuple[int, ...] = ()
    activation_bits: tuple[int, ...] = ()
    weight_algorithms: tuple[WeightAlgorithm, ...] = ()
    activation_algorithms: tuple[ActivationAlgorithm, ...] = ()

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        for field in ("weight_bits", "activation_bits"):
            if not all(2 <= bits <= 16 for bits in getattr(self, field)):
                raise ValueError(f"{field} {getattr(self, field)} must lie between 2 and 16")
        for name, choices in self.parameters().items():
            if len({*choices}) < len(choices):
                raise ValueError(f"{name} lists a candidate twice: {', '.join(choices[1:])}")
        if self.match is not None:
            try:
                check_pattern(self.match)
            except RecipeError as error:
                raise ValueError(str(error)) from error
        return self

    def parameters(self) -> dict[str, tuple[str, ...]]:
        """Returns the choices by the name of each parameter."""
        found = {
            "weight bits": tuple(map(str, self.weight_bits)),
            "activation bits": tuple(map(str, self.activation_bits)),
            "weight algorithm": self.weight_algorithms,
            "activation algorithm": self.activation_algorithms,
        }
        return {
            f"{self.name}: {what}": (OWN, *choices) for what, choices in found.items() if choices
        }

    def apply(self, recipe: RecipeDocument, chosen: Mapping[str, str]) -> RecipeDocument:
        """Returns a recipe with the chosen widths and quantizers.

        Args:
            recipe: the recipe.
            chosen: a choice for each parameter.
        """
        fields: dict[str, dict[str, Any]] = {}
        words: list[str] = []
        for role in ("weight", "activation"):
            bits = chosen.get(f"{self.name}: {role} bits", OWN)
            algorithm = chosen.get(f"{self.name}: {role} algorithm", OWN)
            if (bits, algorithm) != (OWN, OWN):
                fields[role] = _changed(getattr(recipe, role), bits, algorithm)
                words += [role[0] + bits] * (bits != OWN) + [algorithm] * (algorithm != OWN)
        if not fields:
            return recipe
        body = recipe.model_dump(mode="json", exclude_unset=True)
        if self.match is None:
            body |= fields
        else:
            body["rules"] = [*body.get("rules", []), {"match": self.match, **fields}]
        body["name"] = f"{recipe.name} {self.name}:{'-'.join(words)}"
        return RecipeDocument.model_validate_json(json.dumps(body))


class SearchSpace(Shown, Document):
    """The choices that an exploration combines.

    The first target and the first accelerator are those of the presets that are tried first.

    Attributes:
        recipes: names of presets, or recipes as documents.
        groups: the widths and quantizers that sites may have instead of the recipe's.
        prunings: the ways to prune; a dense model is always a choice too.
        targets: names of presets, or targets as documents.
        accelerators: names of presets, or accelerators as documents.
        limits: the largest figures that a point may have, by metric. A point beyond one is
            infeasible; its accuracy is not measured.
    """

    schema_version: Literal[1] = 1
    recipes: tuple[str | RecipeDocument, ...] = ("w8a8", "w4a8", "w4a8-group", "w4a4")
    groups: tuple[LayerGroup, ...] = (
        LayerGroup(name="all", weight_bits=(2, 3, 4, 6, 8), activation_bits=(4, 6, 8)),
    )
    prunings: tuple[PruningChoice, ...] = (
        PruningChoice(pattern=NofM(kept=2, group=4)),
        PruningChoice(pattern=NofM(kept=1, group=4)),
        PruningChoice(sparsity=0.5),
        PruningChoice(sparsity=0.25, pattern="tiles"),
    )
    targets: tuple[str | Target, ...] = ("asic",)
    accelerators: tuple[str | Accelerator, ...] = ("reference", "edge")
    limits: dict[Metric, float] = Field(default_factory=dict)

    @field_serializer("recipes")
    def _only_what_is_set(self, recipes: tuple[str | RecipeDocument, ...]) -> list[Any]:
        """Leaves unset fields out, because some quantizers tell them from set ones."""
        return [
            given if isinstance(given, str) else given.model_dump(mode="json", exclude_unset=True)
            for given in recipes
        ]

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        for field in ("recipes", "targets", "accelerators"):
            if not getattr(self, field):
                raise ValueError(f"{field} lists nothing to choose from")
        try:
            names = self.parameters()
        except PhotomaskError as error:
            raise ValueError(str(error)) from error
        for name, choices in names.items():
            if len({*choices}) < len(choices):
                raise ValueError(f"two choices of {name} have the same name: {', '.join(choices)}")
        groups = [group.name for group in self.groups]
        if len({*groups}) < len(groups):
            raise ValueError(f"two groups have the same name: {', '.join(groups)}")
        if "accuracy" in self.limits:
            raise ValueError("limits are the largest costs of a point; accuracy is not a cost")
        return self

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a search space from a JSON file.

        Raises:
            DocumentError: the file is missing, or is not a valid search space.
        """
        return cls.parse(read_text(Path(path)), str(path))

    def parameters(self) -> dict[str, tuple[str, ...]]:
        """Returns the choices by the name of each parameter of the study."""
        found = {
            "recipe": tuple(self._recipes()),
            "target": tuple(self._targets()),
            "accelerator": tuple(self._accelerators()),
            "pruning": (DENSE, *(choice.label for choice in self.prunings)),
        }
        for group in self.groups:
            found |= group.parameters()
        return found

    @property
    def combinations(self) -> int:
        """The number of combinations of all choices."""
        return math.prod(len(choices) for choices in self.parameters().values())

    def presets(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yields each recipe as it is, by its name, with the choices that give it."""
        parameters = self.parameters()
        own = {name: choices[0] for name, choices in parameters.items()}
        for recipe in parameters["recipe"]:
            yield recipe, {**own, "recipe": recipe}

    def point(self, chooser: Chooser) -> DesignPoint:
        """Returns the design point that a chooser chooses.

        Args:
            chooser: a trial of Optuna, for example.
        """
        return self.point_of(
            {
                name: chooser.suggest_categorical(name, choices)
                for name, choices in self.parameters().items()
            }
        )

    def point_of(self, chosen: Mapping[str, str]) -> DesignPoint:
        """Returns the design point of some choices.

        Args:
            chosen: a choice for each parameter.
        """
        recipe = self._recipes()[chosen["recipe"]]
        for group in self.groups:
            recipe = group.apply(recipe, chosen)
        prunings = {choice.label: choice for choice in self.prunings}
        return DesignPoint(
            recipe=recipe,
            pruning=prunings.get(chosen["pruning"]),
            target=self._targets()[chosen["target"]],
            accelerator=self._accelerators()[chosen["accelerator"]],
        )

    def resolved(self) -> Self:
        """Returns the space with documents in place of names."""
        return self.model_copy(
            update={
                "recipes": tuple(self._recipes().values()),
                "targets": tuple(self._targets().values()),
                "accelerators": tuple(self._accelerators().values()),
            }
        )

    def check(self, sites: Sequence[Site]) -> None:
        """Checks that the pattern of every group matches a site of a model.

        Raises:
            RecipeError: a pattern matches nothing; the message lists similar names.
        """
        for group in self.groups:
            if group.match is not None:
                matching(group.match, sites)

    def _recipes(self) -> dict[str, RecipeDocument]:
        return _by_name([_recipe(given) for given in self.recipes])

    def _targets(self) -> dict[str, Target]:
        return _by_name([load_target(given) for given in self.targets])

    def _accelerators(self) -> dict[str, Accelerator]:
        return _by_name([load_accelerator(given) for given in self.accelerators])

    def shown(self) -> Table:
        """Returns a row for each parameter."""
        rows = [("parameter", "choices")]
        rows += [(name, ", ".join(choices)) for name, choices in self.parameters().items()]
        notes = [f"at most {limit:,.0f} {name}" for name, limit in self.limits.items()]
        return Table(f"search space of {self.combinations:,} combinations", rows, notes)


def _recipe(given: str | RecipeDocument) -> RecipeDocument:
    """Returns a recipe as a document.

    Raises:
        RecipeError: there is neither a preset nor a file of that name.
        DocumentError: the file is not a valid recipe.
    """
    if isinstance(given, RecipeDocument):
        return given
    if given in PRESETS:
        return PRESETS[given]
    path = file_of_name(given, "recipe", PRESETS, RecipeError)
    return RecipeDocument.parse(read_text(path), str(path))


def _by_name(found: Sequence[Named]) -> dict[str, Named]:
    """Returns documents by their names.

    Raises:
        UsageError: two have the same name.
    """
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two choices have the name {name!r}; rename one of them")
    return dict(zip(names, found, strict=True))


def _changed(
    template: WeightDocument | ActivationDocument, bits: str, algorithm: str
) -> dict[str, Any]:
    """Returns the fields of a quantizer of another width, another algorithm, or both.

    Another algorithm brings its own observer.
    """
    own = template.model_dump(mode="json", exclude_unset=True)
    if algorithm != OWN:
        kept = {name: value for name, value in own.items() if name in HARDWARE_FIELDS}
        own = {"algorithm": algorithm, "bits": template.bits, **kept}
        if algorithm in OWN_WIDTH:
            del own["bits"]
    return own if bits == OWN else {**own, "bits": int(bits)}
