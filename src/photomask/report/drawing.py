"""Pictures for a page: matplotlib figures as `<svg>` that takes the page's own colours and font."""

import importlib
import io
from typing import TYPE_CHECKING, Any

from photomask.dependencies import OptionalPackage
from photomask.report.svg import Ink, embed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
        self._marks: list[tuple[str, str]] = []

    def mark(self, hint: str, link: str = "") -> str:
        """Returns an address for artists, which then show a text when they are pointed at.

        It is given to a patch or a line by `set_url`, and to each element of a collection, such as
        `scatter` and `vlines` return, by `set_urls`.

        Args:
            hint: the text.
            link: the anchor of the page to which a click leads; none where it is empty.
        """
        self._marks.append((hint, link))
        return f"mark:{len(self._marks) - 1}"

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
                self.svg = embed(buffer.getvalue(), self.name, self._marks)
        finally:
            self._style.__exit__(None, None, None)


def plain_axes(axes: "Axes") -> None:
    """Removes grid, ticks and frame."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
