"""Matches the patterns of recipes against the sites of a model."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from photomask.errors import RecipeError


@dataclass(frozen=True)
class Site:
    """A place in a float graph whose output, and weight if it has one, are quantized.

    Attributes:
        name: the unique name; the module path where there is one, such as `layer1.0.conv1`.
        operator: the kind of operation, such as `convolution`, `linear`, `add` or `multiply`.
        has_weight: True if the site has a weight.
        is_output: True if the output of the site is an output of the graph.
        is_residual: True if the output belongs to the residual stream: it is a sum of edges, or one
            of the edges that such a sum adds.
        is_multiplied: True if a layer with weights or a matrix product reads the output.
        reads: the sites whose outputs the site reads.
        takes_factors: True if the output may have a factor for each channel of its last axis.
    """

    name: str
    operator: str
    has_weight: bool
    is_output: bool
    is_residual: bool = False
    is_multiplied: bool = True
    reads: tuple[str, ...] = ()
    takes_factors: bool = False


def check_pattern(pattern: str) -> None:
    """Refuses an empty pattern and an invalid regular expression.

    Raises:
        RecipeError: the pattern is not valid.
    """
    if not pattern:
        raise RecipeError("a pattern is empty; give the name of a site, or remove the pattern")
    if pattern.startswith("re:"):
        try:
            re.compile(pattern[3:])
        except re.error as error:
            raise RecipeError(
                f"the pattern {pattern!r} holds no valid regular expression: {error}"
            ) from error


def matching(pattern: str, sites: Sequence[Site]) -> set[str]:
    """Returns the names of the sites that a pattern matches.

    The patterns "residual", "unmultiplied" and "gated" may match nothing, because one recipe serves
    networks with and without residual sums and gated units. All others must match a site.

    Raises:
        RecipeError: the pattern matches nothing; the message lists similar names.
    """
    if pattern in ("first", "last"):
        names = [site.name for site in sites if site.has_weight]
        names = names[:1] if pattern == "first" else names[-1:]
    elif pattern == "residual":
        return {site.name for site in sites if site.is_residual}
    elif pattern == "unmultiplied":
        return {site.name for site in sites if not (site.is_multiplied or site.is_output)}
    elif pattern == "gated":
        return {site.name for site in sites if site.operator == "multiply" and site.is_multiplied}
    elif pattern == "norm_inputs":
        names = _norm_inputs(sites)
    elif pattern.startswith("re:"):
        expression = re.compile(pattern[3:])
        names = [site.name for site in sites if expression.fullmatch(site.name)]
    elif pattern.startswith("operator:"):
        names = [site.name for site in sites if site.operator == pattern[9:]]
    else:
        names = [site.name for site in sites if site.name == pattern]
    if not names:
        raise RecipeError(f"the pattern {pattern!r} matches nothing{_suggestion(pattern, sites)}")
    return set(names)


def _norm_inputs(sites: Sequence[Site]) -> list[str]:
    """Returns the sites that norms read, and the sites that such sums add.

    Outputs of norms that are added, and outputs of the graph, are left out. All have their channels
    on the last axis.
    """
    read = {name for site in sites if site.operator == "normalize" for name in site.reads}
    sums = {site.name for site in sites if site.operator == "add" and site.name in read}
    added = {name for site in sites if site.name in sums for name in site.reads}
    return [
        site.name
        for site in sites
        if site.takes_factors
        and not site.is_output
        and (site.name in read or (site.name in added and site.operator != "normalize"))
    ]


def _suggestion(pattern: str, sites: Sequence[Site]) -> str:
    """Returns a hint for a pattern that matches nothing, such as similar names."""
    if pattern in ("first", "last"):
        return ": no site has a weight"
    if pattern == "norm_inputs":
        return ": no norm reads a sum, a product or a layer"
    if pattern.startswith("operator:"):
        return f"; operators here: {', '.join(sorted({site.operator for site in sites}))}"
    wanted = pattern.removeprefix("re:").replace("\\", "")
    close = difflib.get_close_matches(wanted, [site.name for site in sites], n=5, cutoff=0.3)
    return f"; closest names: {', '.join(close)}" if close else f"; {len(sites)} sites, none alike"
