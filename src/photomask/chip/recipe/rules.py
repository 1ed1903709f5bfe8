"""Defines recipes, which choose the quantizer of each tensor of a model.

A recipe is written in Python with `Quantizer` objects as templates, or as a JSON document
(`photomask.chip.recipe.documents`). Each tensor gets its own deep copy of a template.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from photomask.chip.observers import MinMax, Observer
from photomask.chip.quantizers import (
    A2Q,
    PerChannel,
    PerGroup,
    PerTensor,
    Quantizer,
)
from photomask.chip.recipe.matching import Site, check_pattern, matching
from photomask.errors import RecipeError
from photomask.report import Shown, Table

_KEPT_BITS = 8


@dataclass(frozen=True, eq=False)
class SiteQuantizers:
    """The quantizers of one site, which are copies of the recipe's templates.

    Attributes:
        weight: the quantizer of the site's weight; None where the site has no weight.
        activation: the quantizer of the site's output.
    """

    weight: Quantizer | None
    activation: Quantizer


@dataclass(frozen=True, eq=False)
class Rule:
    """An exception to a recipe's defaults.

    Attributes:
        match: the pattern of the sites; `Recipe` describes the patterns.
        weight: the template for the weights of the sites; None leaves them unchanged.
        activation: the template for the outputs of the sites; None leaves them unchanged.

    Raises:
        RecipeError: the rule changes nothing, the pattern is not valid, or a quantizer is not
            possible in its place.
    """

    match: str
    weight: Quantizer | None = None
    activation: Quantizer | None = None

    def __post_init__(self) -> None:
        check_pattern(self.match)
        if self.weight is None and self.activation is None:
            raise RecipeError(
                f"rule {self.match!r} gives neither a weight nor an activation; set one of them"
            )
        _check_templates(f"rule {self.match!r}", self.weight, self.activation)


def _default_weight() -> Quantizer:
    return Quantizer(8, granularity=PerChannel(), narrow=True)


def _default_activation() -> Quantizer:
    return Quantizer(8, symmetric=False)


@dataclass(frozen=True, eq=False)
class Recipe(Shown):
    r"""A quantization configuration: default quantizers, and exceptions to them.

    A pattern (in `rules` and `keep`) is one of

    - the exact name of a site, such as `layer1.0.conv1`
    - `re:<regular expression>`, which the whole name must match, such as `re:layer1\..*`
    - `operator:<operator>`, such as `operator:add`
    - `first` or `last`: the first or the last site that has a weight
    - `residual`: the residual stream, which is sums of activations and the edges that they add
    - `gated`: elementwise products that a layer or a matrix product reads
    - `norm_inputs`: the edges that norms read, and the edges that such sums add
    - `unmultiplied`: edges that only sums, norms and functions read, and no layer or matrix product

    Attributes:
        name: the name, which is shown in tables and stored in programs.
        weight: the template for weights.
        activation: the template for the outputs of all sites, which must be per tensor. `prepare`
            refuses scales per channel where a sum over channels reads the output.
        rules: the exceptions; where several match a site, the last one wins.
        keep: patterns of sites that keep at least 8 bits, with uniform quantizers per channel or
            per tensor, regardless of `weight`, `activation` and `rules`. It is common for first and
            last layers. For a site with weights it covers the weights and the inputs of the site;
            for any other site it covers the output.
        output_bits: the bits of the graph's outputs where no rule decides them. They need many bits
            so that close logits of a classifier do not become equal.

    Raises:
        RecipeError: a pattern is not valid, bits are outside 2..16, or a quantizer is not possible
            in its place.
    """

    name: str = "custom"
    weight: Quantizer = field(default_factory=_default_weight)
    activation: Quantizer = field(default_factory=_default_activation)
    rules: tuple[Rule, ...] = ()
    keep: tuple[str, ...] = ()
    output_bits: int = 16

    def __post_init__(self) -> None:
        for pattern in self.keep:
            check_pattern(pattern)
        if not 2 <= self.output_bits <= 16:
            raise RecipeError(
                f"output_bits must be an integer from 2 to 16, found {self.output_bits}"
            )
        _check_templates("recipe", self.weight, self.activation)

    def resolve(self, sites: Sequence[Site]) -> dict[str, SiteQuantizers]:
        """Returns the quantizers of every site.

        Args:
            sites: the sites in the order of computation, with unique names.

        Returns:
            The quantizers by name of the site. They are copies of the templates, so no two sites
            share one.

        Raises:
            RecipeError: a pattern matches nothing, or a rule for weights matches no weight. The
                message lists similar names.
        """
        matches = [matching(rule.match, sites) for rule in self.rules]
        kept = {name for pattern in self.keep for name in matching(pattern, sites)}
        layers = {site.name for site in sites if site.has_weight}
        kept_outputs = {name for site in sites if site.name in kept & layers for name in site.reads}
        kept_outputs |= kept - layers
        for rule, names in zip(self.rules, matches, strict=True):
            weighted = any(site.has_weight for site in sites if site.name in names)
            if rule.activation is None and not weighted:
                raise RecipeError(
                    f"rule {rule.match!r} changes only weights, but no site that it matches has "
                    "a weight; change its pattern, or set `activation`"
                )
        resolved = {}
        for site in sites:
            weight, activation = self.weight, self.activation
            if site.is_output:
                # An observer that clips rare values would clip the largest logits, which decide.
                activation = _uniform(activation, self.output_bits, MinMax())
            for rule, names in zip(self.rules, matches, strict=True):
                if site.name in names:
                    weight = weight if rule.weight is None else rule.weight
                    activation = activation if rule.activation is None else rule.activation
            if site.name in kept and site.has_weight:
                weight = _uniform(self.weight, max(_KEPT_BITS, self.weight.bits))
            if site.name in kept_outputs or (site.name in kept and site.is_output):
                least = max(_KEPT_BITS, self.output_bits) if site.is_output else _KEPT_BITS
                bits = max(least, self.activation.bits)
                observer = MinMax() if site.is_output else None
                activation = _uniform(self.activation, max(bits, activation.bits), observer)
            resolved[site.name] = SiteQuantizers(
                weight=copy.deepcopy(weight) if site.has_weight else None,
                activation=copy.deepcopy(activation),
            )
            resolved[site.name].activation.batched = True
        return resolved

    def origin(self, name: str, sites: Sequence[Site]) -> str:
        """Returns what gives a site the quantizer of its output: a rule, or the recipe itself."""
        for rule in reversed(self.rules):
            if rule.activation is not None and name in matching(rule.match, sites):
                return f"rule {rule.match!r}"
        return f"recipe {self.name!r}"

    def rows(self) -> list[tuple[str, str, str]]:
        """Returns a header row, a row for each default quantizer, and a row for each exception."""
        rows = [("sites", "of", "quantizer"), ("*", "weights", self.weight.extra_repr())]
        rows.append(("*", "activations", self.activation.extra_repr()))
        rows.append(("outputs", "activations", f"{self.output_bits}-bit"))
        for rule in self.rules:
            for what, template in (("weights", rule.weight), ("activations", rule.activation)):
                if template is not None:
                    rows.append((rule.match, what, _describe(template)))
        rows += [(pattern, "both", f"at least {_KEPT_BITS}-bit (keep)") for pattern in self.keep]
        return rows

    def shown(self) -> Table:
        """Returns the recipe as a table."""
        return Table(f"recipe {self.name}", self.rows())


def _describe(template: Quantizer) -> str:
    """Returns the properties of a quantizer, and its class unless it is `Quantizer` itself."""
    owner = "" if type(template) is Quantizer else f"{type(template).__name__}: "
    return owner + template.extra_repr()


def _uniform(template: Quantizer, bits: int, observer: Observer | None = None) -> Quantizer:
    """Returns a uniform quantizer of another width for the same hardware as a template.

    It keeps the symmetry, the sign and the kind of scale. Scales per group become per channel. A
    quantizer that limits sums stays one, because the sums of every layer have to fit.
    """
    granularity = template.granularity
    observer = observer or copy.deepcopy(template.observer)
    if isinstance(template, A2Q):
        return type(template)(bits, observer=observer)
    return Quantizer(
        bits,
        symmetric=template.symmetric,
        signed=template.signed,
        granularity=PerChannel() if isinstance(granularity, PerGroup) else granularity,
        observer=observer,
        power_of_two=template.power_of_two,
        narrow=template.narrow,
    )


def _check_templates(owner: str, weight: Quantizer | None, activation: Quantizer | None) -> None:
    """Refuses templates that are no quantizers, or whose quantizers are not possible there.

    Raises:
        RecipeError: a template is not possible; `owner` says whose it is.
    """
    for role, template in (("weight", weight), ("activation", activation)):
        if template is not None and not isinstance(template, Quantizer):
            raise RecipeError(f"{owner}: {role} must be a Quantizer object, found {template!r}")
    if activation is not None and activation.weights_only:
        raise RecipeError(
            f"{owner}: {type(activation).__name__} is for weights only, because activations are "
            "computed by requantization, which uses every code of the format; use another "
            "quantizer for activations"
        )
    if activation is not None and isinstance(activation.granularity, PerGroup):
        raise RecipeError(
            f"{owner}: activations are quantized per tensor, found {activation.granularity}; only "
            "the input channels of a weight form groups"
        )
    if weight is not None and weight.granularity not in (PerTensor(), PerChannel()):
        if isinstance(weight.granularity, PerGroup):
            return
        raise RecipeError(
            f"{owner}: weights have scales per tensor, per output channel (axis 0) or per group, "
            f"found {weight.granularity}"
        )
