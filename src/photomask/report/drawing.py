"""Pictures for a page: matplotlib figures as `<svg>` that takes the page's own colours and font."""

import importlib
import io
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from photomask.dependencies import OptionalPackage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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


STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8.0,
    "text.color": Ink.TEXT.value,
    "axes.edgecolor": Ink.LINE.value,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": Ink.MUTED.value,
    "axes.labelsize": 8.0,
    "axes.linewidth": 0.6,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": Ink.TEXT.value,
    "axes.titlelocation": "left",
    "axes.titlesize": 8.5,
    "axes.titleweight": "normal",
    "figure.facecolor": "none",
    "grid.color": Ink.LINE.value,
    "grid.linewidth": 0.5,
    "xtick.bottom": False,
    "xtick.color": Ink.MUTED.value,
    "xtick.labelsize": 7.5,
    "ytick.color": Ink.MUTED.value,
    "ytick.labelsize": 7.5,
    "ytick.left": False,
}


def check_drawing() -> None:
    """Makes sure, before long work, that a page with pictures can be made.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    for package in ("jinja2", "matplotlib.figure"):
        with OptionalPackage(package.partition(".")[0], "report", "the HTML report"):
            importlib.import_module(package)


class Drawing:
    """A figure in the page's style.

    Inside `with`, `figure` is there to be drawn on; afterwards `svg` is the picture.

    Args:
        width: inches; 9.6 fills the page.
        height: inches.
        name: makes the ids inside the picture its own.
    """

    figure: "Figure"

    def __init__(self, width: float, height: float, name: str):
        self.size = (width, height)
        self.name = name
        self.svg = ""

    def __enter__(self) -> "Drawing":
        check_drawing()
        import matplotlib
        from matplotlib.figure import Figure

        self._style = matplotlib.rc_context({**STYLE, "svg.hashsalt": self.name})
        self._style.__enter__()
        self.figure = Figure(figsize=self.size, layout="constrained")
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        try:
            if kind is None:
                buffer = io.StringIO()
                self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
                self.svg = embed(buffer.getvalue(), self.name)
        finally:
            self._style.__exit__(None, None, None)


def embed(text: str, name: str) -> str:
    """Turns an SVG file into an element of a page.

    Colours become the page's, fonts its own, ids unique; namespaces and metadata go.

    Args:
        text: as matplotlib writes it.
        name: prefix of all ids.
    """
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'^<svg([^>]*?)\swidth="[^"]*"', r"<svg\1", svg)
    svg = re.sub(r'^<svg([^>]*?)\sheight="[^"]*"', r"<svg\1", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    svg = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--sans)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    for ink in Ink:
        svg = svg.replace(ink.value, ink.variable)
    return svg.strip()


def plain_axes(axes: "Axes") -> None:
    """Removes grid, ticks and frame."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
