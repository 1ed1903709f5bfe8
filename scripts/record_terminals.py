"""Records the two terminals that the README shows: real commands, and what they print.

Long outputs are cut in the middle, and a line says how many lines are left out. The pictures are
SVG files without fonts from the network; they are dark, so they can be read on any background.

    python scripts/record_terminals.py chip attention
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLUMNS = 124
FAULTY = Path("simulated/0/blocks.3.convolution1.hex")
FAULTY_LINE = 100
"""Of a golden vector in which one bit is changed, as by a simulator with a fault."""

TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" class="rich-terminal">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


@dataclass(frozen=True)
class Command:
    """A command, and how much of its output is shown.

    Attributes:
        line: as a reader types it, a comment before it included; a continued line has its
            backslash.
        first: lines shown from the beginning.
        last: lines shown from the end.
    """

    line: str
    first: int
    last: int


def chip() -> Iterator[Command]:
    """A network becomes a folder, and a simulator's fault is found."""
    yield Command(
        "photomask chip convert resnet20 --recipe w8a8-minmax --data fashion-mnist \\\n"
        "    --calibration-samples 64 --output out/resnet20",
        first=7,
        last=7,
    )
    shutil.copytree("out/resnet20/golden", "simulated")
    words = FAULTY.read_text(encoding="utf-8").splitlines()
    words[FAULTY_LINE] = f"{int(words[FAULTY_LINE], 16) ^ 1:0{len(words[FAULTY_LINE])}x}"
    FAULTY.write_text("\n".join(words) + "\n", encoding="utf-8")
    yield Command(
        "# a simulator has written its results into simulated/, one bit of them wrong\n"
        "photomask chip check out/resnet20 simulated",
        first=2,
        last=7,
    )


def attention() -> Iterator[Command]:
    """Two budgets become two plans for the heads of a model."""
    calibrate_picture_questions(Path("out/statistics.safetensors"))
    for budget in ("0.02", "0.1"):
        yield Command(
            f"photomask attention plan out/statistics.safetensors --budget {budget} "
            "--output out/plan.json",
            first=20,
            last=20,
        )


def calibrate_picture_questions(place: Path) -> None:
    """Measures the heads of the shipped model on eight prompts."""
    from photomask.attention import calibrate
    from photomask.zoo import picture_questions

    model, processor = picture_questions.load_vision_language()
    calibrate(model, processor, picture_questions.calibration_prompts(8), save_to=place)


RECORDINGS: dict[str, Callable[[], Iterator[Command]]] = {"chip": chip, "attention": attention}


def main() -> int:
    """Records what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="+", choices=RECORDINGS)
    for name in parser.parse_args().recordings:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            (IMAGES / f"{name}.svg").write_text(record(name), encoding="utf-8")
        print(f"recorded {name}.svg")
    return 0


def record(name: str) -> str:
    """Returns a recording as SVG; the commands run in the current folder."""
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, record=True, width=COLUMNS, force_terminal=True)
        for command in RECORDINGS[name]():
            for line in command.line.splitlines():
                prompt = "" if line.startswith(("#", " ")) else "$ "
                console.print(Text(f"{prompt}{line}", style="bold"))
            for line in shown(printed(command.line), command.first, command.last):
                console.print(Text(line, no_wrap=True, overflow="ellipsis"))
            console.print()
        return console.export_svg(
            title=f"photomask {name}", theme=MONOKAI, code_format=TEMPLATE, unique_id=name
        )


def printed(line: str) -> list[str]:
    """Returns the lines that a command prints to its standard output."""
    words = shlex.split(line.replace("\\\n", " "), comments=True)
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env={**os.environ, "COLUMNS": str(COLUMNS), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode > 1:  # 1 is a check that failed, which one of them shows
        raise RuntimeError(f"{line}: exit status {done.returncode}")
    return done.stdout.rstrip().splitlines()


def shown(lines: list[str], first: int, last: int) -> list[str]:
    """Returns the lines at both ends, and in between how many are left out."""
    left_out = len(lines) - first - last
    if left_out <= 0:
        return lines
    return [*lines[:first], f"… {left_out} more lines", *lines[-last:]]


if __name__ == "__main__":
    sys.exit(main())
