"""Colours of the page, light and dark: text must be told from what is behind it."""

import re

import pytest

from photomask.report.html import STYLES
from photomask.report.svg import Ink

LEAST_CONTRAST = 4.5
"""Of normal text, by WCAG 2.2, success criterion 1.4.3, level AA."""

TEXTS = ("text", "muted", "accent", "good", "warn", "bad")


def schemes() -> dict[str, dict[str, str]]:
    """Returns the colours by scheme and name."""
    blocks = re.findall(r":root \{(.*?)\}", STYLES.read_text(encoding="utf-8"), re.DOTALL)
    light, dark = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block)) for block in blocks)
    return {"light": light, "dark": dark}


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("behind", ["paper", "raised", "mark"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_read_on_every_ground(scheme: str, behind: str):
    colours = schemes()[scheme]
    found = {name: contrast(colours[name], colours[behind]) for name in TEXTS}
    assert {name for name, value in found.items() if value < LEAST_CONTRAST} == set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_every_colour_of_pictures(scheme: str):
    assert {ink.name.lower() for ink in Ink} <= set(schemes()[scheme])
