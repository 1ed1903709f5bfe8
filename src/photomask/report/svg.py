"""An SVG file as an element of a page: the page's colours and font, ids of its own, few bytes."""

import re
from collections.abc import Sequence
from enum import StrEnum
from html import escape


class Ink(StrEnum):
    """Colours that the page replaces by its own, light or dark."""

    TEXT = "#010203"
    MUTED = "#020304"
    LINE = "#030405"
    ACCENT = "#040506"
    SOFT = "#050607"
    BAD = "#060708"
    PAPER = "#070809"

    @property
    def variable(self) -> str:
        """The page's name for the colour."""
        return f"var(--{self.name.lower()})"


READABLE = 0.9
"""Pixels for a point of a picture's width below which it scrolls instead of getting smaller."""


def embed(text: str, name: str, marks: Sequence[tuple[str, str]] = ()) -> str:
    """Turns an SVG file into an element of a page.

    Colours become the page's, fonts its own, ids unique; namespaces and metadata go. Coordinates
    keep two decimals, which is a hundredth of a point.

    Args:
        text: as matplotlib writes it.
        name: prefix of all ids.
        marks: the text and the link behind each address `mark:<place>`.
    """
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg)
    width = re.search(r'^<svg[^>]*?\swidth="([\d.]+)', svg)
    svg = re.sub(r'^<svg([^>]*?)\swidth="[^"]*"', r"<svg\1", svg)
    svg = re.sub(r'^<svg([^>]*?)\sheight="[^"]*"', r"<svg\1", svg)
    if width is not None:
        least = round(READABLE * float(width[1]))
        svg = svg.replace("<svg", f'<svg style="min-width:{least}px"', 1)
    svg = _with_ids_of_its_own(svg.replace("xlink:href", "href"), name)
    svg = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--sans)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    svg = _compact(svg)
    svg = re.sub(
        r'<a href="mark:(\d+)" target="_blank">', lambda found: _opening(*marks[int(found[1])]), svg
    )
    for ink in Ink:
        svg = svg.replace(ink.value, ink.variable)
    return svg.strip()


def _with_ids_of_its_own(svg: str, name: str) -> str:
    """Puts a prefix before all ids that are referred to, and removes the others."""
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(
        r'\sid="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg
    )
    return svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')


def _compact(svg: str) -> str:
    """Writes the same picture with fewer characters; texts stay as they are."""
    svg = re.sub(r'\stransform="rotate\(-?0 [^)]*\)"', "", svg)
    svg = re.sub(
        r'(?<=\s)(d|x|y|x1|x2|y1|y2|width|height|points|transform)="([^"]*)"',
        lambda found: f'{found[1]}="{_short_numbers(found[2])}"',
        svg,
    )
    svg = re.sub(r">\s*\n\s*<", "><", svg)
    return re.sub(r"\s*/>", "/>", svg)


def _short_numbers(text: str) -> str:
    """Rounds coordinates to two decimals and removes the space that nothing needs."""
    text = re.sub(
        r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), text
    )
    text = re.sub(r"\s+", " ", text)
    return re.sub(r" ?([MLHVCQZz]) ?", r"\1", text).strip()


def _opening(hint: str, link: str) -> str:
    """Returns what opens an element that shows a text when pointed at, and may be a link."""
    href = f' href="#{escape(link)}"' if link else ""
    return f"<a{href}><title>{escape(hint)}</title>"
