"""The recipe: which quantizer each tensor of a model gets.

A recipe is written in Python, with `Quantizer` objects as templates, or as a JSON document
(`photomask.chip.recipe.documents`). Every tensor receives its own deep copy of a template.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from photomask.chip.observers import MinMax, Observer
from photomask.chip.quantizers import (
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
    """The quantizers of one site, fresh copies."""

    weight: Quantizer | None
    activation: Quantizer


@dataclass(frozen=True, eq=False)
class Rule:
    """An exception to a recipe's defaults.

    Attributes:
        match: which sites (`Recipe` describes the language).
        weight: template for their weights; None leaves them as they were.
        activation: template for their outputs; None leaves them as they were.

    Raises:
        RecipeError: a rule that changes nothing, a bad pattern, an impossible quantizer.
    """

    match: str
    weight: Quantizer | None = None
    activation: Quantizer | None = None

    def __post_init__(self) -> None:
        check_pattern(self.match)
        if self.weight is None and self.activation is None:
            raise RecipeError(f"rule {self.match!r} gives neither a weight nor an activation")
        _check_templates(f"rule {self.match!r}", self.weight, self.activation)


def _default_weight() -> Quantizer:
    return Quantizer(8, granularity=PerChannel(), narrow=True)


def _default_activation() -> Quantizer:
    return Quantizer(8, symmetric=False)


@dataclass(frozen=True, eq=False)
class Recipe(Shown):
    r"""What the user asks for: default quantizers and the exceptions to them.

    A pattern (in `rules` and `keep`) is one of

    - an exact site name, `layer1.0.conv1`
    - `re:<regular expression>` that the whole name must match, `re:layer1\..*`
    - `operator:<operator>`, `operator:add`
    - `first` or `last`: the first or last site that has a weight
    - `residual`: sums of two edges or more, and what they add up
    - `gated`: elementwise products that a layer reads, or a matrix product
    - `norm_inputs`: what norms read, and what such sums add up
    - `unmultiplied`: what no layer and no matrix product reads: sums, norms and functions alone do

    Attributes:
        name: shown in tables and stored with what is made from the recipe.
        weight: template for weights.
        activation: template for the outputs of all sites; per tensor. What is not, `prepare`
            refuses: it knows the sums that such scales would have to leave.
        rules: exceptions; where several match, the later wins.
        keep: patterns of sites that stay at 8 bits or more, uniform and per channel or per tensor,
            whatever `weight`, `activation` and `rules` say: the usual care for first and last
            layers. Of a layer with weights these are the weights and what it reads; of any other
            site, its output.
        output_bits: bits of the graph's outputs where no rule says otherwise. Classifier logits
            that are close to each other must not fall together.

    Raises:
        RecipeError: a bad pattern, bits outside 2..16, scales that cannot be factored out.
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
            raise RecipeError(f"output_bits must be 2 to 16, found {self.output_bits}")
        _check_templates("recipe", self.weight, self.activation)

    def resolve(self, sites: Sequence[Site]) -> dict[str, SiteQuantizers]:
        """Gives every site its quantizers.

        Args:
            sites: in execution order, names unique.

        Returns:
            Fresh copies by site name; no template is shared between sites.

        Raises:
            RecipeError: a pattern matches nothing; the message lists the closest names.
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
                    f"rule {rule.match!r} is about weights; no site it matches has any"
                )
        resolved = {}
        for site in sites:
            weight, activation = self.weight, self.activation
            if site.is_output:
                # Clipping the rarest logits would clip the winners.
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
        """Says what gives a site the quantizer of its output: the last rule that does."""
        for rule in reversed(self.rules):
            if rule.activation is not None and name in matching(rule.match, sites):
                return f"rule {rule.match!r}"
        return f"recipe {self.name!r}"

    def rows(self) -> list[tuple[str, str, str]]:
        """Returns a header, the default of each kind of tensor, and each exception to them."""
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
        """Returns the rows as a table."""
        return Table(f"recipe {self.name}", self.rows())


def _describe(template: Quantizer) -> str:
    """Returns the quantizer's properties, and its class unless it is the plain one."""
    owner = "" if type(template) is Quantizer else f"{type(template).__name__}: "
    return owner + template.extra_repr()


def _uniform(template: Quantizer, bits: int, observer: Observer | None = None) -> Quantizer:
    """Returns a plain quantizer of another width that suits the same hardware as `template`."""
    granularity = template.granularity
    observer = observer or copy.deepcopy(template.observer)
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
    """Refuses what is no quantizer, and scales that cannot leave a sum of products."""
    for role, template in (("weight", weight), ("activation", activation)):
        if template is not None and not isinstance(template, Quantizer):
            raise RecipeError(f"{owner}: {role} must be a Quantizer object, found {template!r}")
    if activation is not None and activation.weights_only:
        raise RecipeError(
            f"{owner}: {type(activation).__name__} is for weights alone: activations are computed "
            "by rescaling, which returns every code of the format"
        )
    if activation is not None and isinstance(activation.granularity, PerGroup):
        raise RecipeError(
            f"{owner}: groups are of a weight's input channels; activations are quantized per "
            f"tensor, found {activation.granularity}"
        )
    if weight is not None and weight.granularity not in (PerTensor(), PerChannel()):
        if isinstance(weight.granularity, PerGroup):
            return
        raise RecipeError(
            f"{owner}: weight channels are output channels, axis 0; found {weight.granularity}"
        )
