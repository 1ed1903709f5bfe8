"""Draws where the time to the first token goes, from the rows of `time_to_first_token.py` alone."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rows import FOLDER, read

WHAT = "time_to_first_token"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "time-to-first-token.png"
TOTAL = "time to first token"
COLOURS = {  # parts of a prefill, as `where_time_goes.py` names them
    "attention": "#c4513f",
    "linear layers": "#4a7ba6",
    "rest": "#b9bec4",
    "schedule": "#e0a83a",
}
Row = dict[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the picture, if there are rows to draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=FOLDER)
    parser.add_argument("--output", type=Path, default=PICTURE)
    arguments = parser.parse_args(argv)
    rows = [row for row in read(WHAT, arguments.results) if row["metric"] in (TOTAL, *COLOURS)]
    panels = panels_of(rows)
    if not panels:
        print("there are no rows to draw")
        return 0
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    devices = {row["network"]: row["device"] for row in rows}
    origin = f"PyTorch {rows[-1]['torch']}, {max(row['date'] for row in rows)[:10]}"
    draw(panels, devices, origin, arguments.output)
    print(f"wrote {arguments.output.name}")
    return 0


def panels_of(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns seconds by length, contender and metric, of the contenders that were timed."""
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        panel = panels.setdefault(row["network"], {})
        panel.setdefault(row["implementation"], {})[row["metric"]] = float(row["value"]) / 1000
    complete = {
        length: {name: found for name, found in panel.items() if TOTAL in found and len(found) > 1}
        for length, panel in panels.items()
    }
    shown = {length: panel for length, panel in complete.items() if panel}
    return dict(sorted(shown.items(), key=lambda item: int(item[0].partition(" ")[0])))


def draw(
    panels: dict[str, dict[str, dict[str, float]]],
    devices: dict[str, str],
    origin: str,
    path: Path,
) -> None:
    """Draws a panel for each length, on its device, and a stacked bar for each contender."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import patches, pyplot

    bars = [len(panel) for panel in panels.values()]
    figure, axes = pyplot.subplots(
        len(panels),
        1,
        figsize=(8, 0.6 + sum(0.3 * count + 0.55 for count in bars)),
        height_ratios=[count + 1 for count in bars],
        squeeze=False,
        layout="constrained",
    )
    for axis, (length, panel) in zip(axes[:, 0], panels.items(), strict=True):
        draw_panel(axis, panel)
        title = f"{int(length.partition(' ')[0]):,} tokens, {devices[length]}"
        axis.set_title(title, loc="left", fontsize=10)
    axes[-1, 0].set_xlabel(f"seconds to the first token; {origin}", fontsize=8)
    handles = [patches.Patch(color=colour) for colour in COLOURS.values()]
    figure.legend(
        handles, list(COLOURS), loc="outside upper right", ncols=4, fontsize=8, frameon=False
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_panel(axis: Any, panel: dict[str, dict[str, float]]) -> None:
    """Draws the contenders at one length; ratios are to the fastest dense one."""
    dense = [found[TOTAL] for name, found in panel.items() if not name.startswith("photomask")]
    longest = max(found[TOTAL] for found in panel.values())
    for place, (name, found) in enumerate(panel.items()):
        left = 0.0
        for part, colour in COLOURS.items():
            width = max(0.0, found.get(part, 0.0))
            axis.barh(place, width, left=left, color=colour, height=0.72)
            left += width
        text = f" {found[TOTAL]:.3g} s"
        if dense and name.startswith("photomask"):
            text += f", {min(dense) / found[TOTAL]:.2f}×"
        axis.text(max(left, found[TOTAL]), place, text, va="center", fontsize=8)
    axis.set_yticks(range(len(panel)), list(panel), fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.2 * longest)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
