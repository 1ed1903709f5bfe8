"""The program as a graph: one row for each step, with its widths, noise, cycles and bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from photomask.chip.verification.program_lanes import Lanes, Line, Row, assign_lanes
from photomask.chip.verification.step_documents import EdgeFacts, StepReport
from photomask.chip.verification.words import (
    bare_db,
    count,
    gist,
    numbers_text,
    place_text,
    shape_text,
    size,
    sqnr_tone,
)
from photomask.report import Tone, row_anchor

ROW = 17
"""Height of a row in pixels."""
LANE = 11
"""Width of a lane in pixels."""
NAME = 10
"""Where the column of names begins: pixels behind the lanes."""
OPERATOR = 300
WIDTHS = 400
NOISE = 600
"""Where the column of SQNR ends: pixels behind the lanes."""
CYCLES = 690
LIVE = 790
BAR = 70
"""Length of the longest bar in pixels."""
_INKS = {Tone.PLAIN: "good", Tone.WARN: "warn", Tone.BAD: "bad"}


def draw_program(
    title: str, inputs: Sequence[EdgeFacts], steps: Sequence[StepReport], outputs: Sequence[str]
) -> str:
    """Returns an SVG element in which every step is a link to its row of a table.

    Args:
        title: of the section whose table has a row for each step.
        inputs: of the program.
        steps: in the order of computation.
        outputs: names of the output edges.
    """
    return _Graph(title, inputs, steps, outputs).svg()


@dataclass(frozen=True)
class _Graph:
    title: str
    inputs: Sequence[EdgeFacts]
    steps: Sequence[StepReport]
    outputs: Sequence[str]

    def svg(self) -> str:
        """Returns the whole picture."""
        rows = [Row(edge.name, (), edge.name) for edge in self.inputs]
        rows += [Row(step.name, step.inputs, step.output.name) for step in self.steps]
        lanes = assign_lanes(rows)
        left = lanes.count * LANE + 6
        width, height = left + LIVE + 10, (len(rows) + 1) * ROW + 8
        formats = {edge.name: str(edge.format) for edge in self.inputs}
        formats |= {step.output.name: str(step.output.format) for step in self.steps}
        noise = {step.node: step.sqnr_db for step in self.steps if step.sqnr_db is not None}
        most_cycles = max((step.cycles or 0 for step in self.steps), default=0) or 1
        most_bytes = max((step.live_activation_bytes for step in self.steps), default=0) or 1
        parts = [
            f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'font-size="11" font-family="var(--sans)" fill="var(--text)">',
            _heads(left),
            '<g fill="none" stroke="var(--muted)" stroke-width="1.3">',
            *(_line(line, lanes) for line in lanes.lines),
            "</g>",
        ]
        for number, edge in enumerate(self.inputs):
            parts.append(_input_row(edge, number, lanes, left))
        for place, step in enumerate(self.steps):
            number = place + len(self.inputs)
            shares = ((step.cycles or 0) / most_cycles, step.live_activation_bytes / most_bytes)
            ink = _ink(noise.get(step.node))
            parts.append(self._row(step, number, lanes, left, formats, shares, ink))
        return "".join([*parts, "</svg>"])

    def _row(
        self,
        step: StepReport,
        number: int,
        lanes: Lanes,
        left: int,
        formats: dict[str, str],
        shares: tuple[float, float],
        ink: str,
    ) -> str:
        """Returns a row: a link around the node, the step's name and its numbers."""
        y = _y(number)
        fused = step.fused_into is not None
        is_output = step.output.name in self.outputs
        reads = "×".join(dict.fromkeys(formats[name] for name in step.inputs))
        weight = step.tensor("weight")
        reads += f" · {weight.format}" if weight is not None else ""
        texts = [
            _text(left + NAME, y, gist(step.name, 44), quiet=fused, bold=is_output),
            _text(left + OPERATOR, y, step.operator, quiet=True),
            _text(left + WIDTHS, y, f"{reads} → {step.output.format}".lstrip(" →"), quiet=fused),
        ]
        if step.sqnr_db is not None:
            texts.append(_text(left + NOISE, y, bare_db(step.sqnr_db), end=True, ink=ink))
        if step.cycles:
            texts.append(_text(left + CYCLES, y, count(step.cycles), end=True))
            texts.append(_bar(left + CYCLES, y, shares[0]))
        texts.append(_text(left + LIVE, y, size(step.live_activation_bytes), end=True, quiet=True))
        texts.append(_bar(left + LIVE, y, shares[1], soft=True))
        radius = 2.5 if fused else 4
        node = (
            f'<circle cx="{_x(lanes.nodes[number])}" cy="{y}" r="{radius}" fill="var(--{ink})" '
            f'stroke="var(--paper)"/>'
        )
        link = row_anchor(self.title, step.name)
        return (
            f'<a href="#{escape(link)}"><title>{escape(_hint(step))}</title>'
            f'<rect x="0" y="{y - ROW / 2}" width="{left + LIVE + 10}" height="{ROW}" '
            f'fill="transparent"/>{node}{"".join(texts)}</a>'
        )


def _ink(sqnr_db: float | None) -> str:
    """Returns the colour of a node by what its layer's result has of noise."""
    return "muted" if sqnr_db is None else _INKS[sqnr_tone(sqnr_db)]


def _heads(left: int) -> str:
    y = ROW * 0.75
    columns = ((NAME, "step"), (OPERATOR, "operator"), (WIDTHS, "reads · weights → result"))
    ends = ((NOISE, "SQNR dB"), (CYCLES, "cycles"), (LIVE, "alive"))
    return "".join(
        [
            *(_text(left + x, y, text, quiet=True) for x, text in columns),
            *(_text(left + x, y, text, quiet=True, end=True) for x, text in ends),
        ]
    )


def _input_row(edge: EdgeFacts, number: int, lanes: Lanes, left: int) -> str:
    """Returns the row of an input: an empty node, its name and its format."""
    y = _y(number)
    return (
        f'<circle cx="{_x(lanes.nodes[number])}" cy="{y}" r="4" fill="var(--paper)" '
        f'stroke="var(--text)" stroke-width="1.3"/>'
        + _text(left + NAME, y, gist(edge.name, 44), bold=True)
        + _text(left + OPERATOR, y, "input", quiet=True)
        + _text(left + WIDTHS, y, f"{edge.format} {shape_text(edge.shape)}")
    )


def _line(line: Line, lanes: Lanes) -> str:
    """Returns the path of an edge: down its lane, with a bend to each node that reads it."""
    if not line.readers:
        return ""
    x, top = _x(line.lane), _y(line.start)
    last = line.readers[-1]
    straight = lanes.nodes[last] == line.lane
    bottom = _y(last) if straight else _y(last) - ROW
    path = f"M{x} {top}V{bottom}" if bottom > top else ""
    for reader in line.readers:
        end = _x(lanes.nodes[reader])
        if end != x:
            y = _y(reader)
            path += f"M{x} {y - ROW}C{x} {y - ROW / 4} {end} {y - ROW * 3 / 4} {end} {y}"
    return f'<path d="{path}"><title>{escape(line.edge)}</title></path>'


def _hint(step: StepReport) -> str:
    """Returns what a step says when it is pointed at: a line for each fact."""
    output = step.output
    lines = [
        f"{step.name}: {step.operator}",
        f"{output.format} {shape_text(output.shape)}, values {output.low} to {output.high}",
        f"scale {numbers_text(output.scale)}, zero point {output.zero_point}",
    ]
    for role in ("multiplier", "shift"):
        tensor = step.tensor(role)
        if tensor is not None:
            lines.append(f"{role} {numbers_text(tensor.numbers)}")
    if step.sqnr_db is not None:
        lines.append(f"SQNR {bare_db(step.sqnr_db)} dB")
    if step.fused_into is not None:
        lines.append(f"done with {step.fused_into} on the accelerator")
    elif step.cycles is not None:
        lines.append(f"{step.cycles:,} cycles")
    if output.place is not None:
        lines.append(f"RTL: {place_text(output.place)}")
    if output.arena_offset is not None:
        lines.append(f"C: byte {output.arena_offset} of the arena")
    lines.append(f"{output.bytes:,} bytes; {step.live_activation_bytes:,} bytes alive")
    return "\n".join(lines)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    quiet: bool = False,
    bold: bool = False,
    end: bool = False,
    ink: str = "",
) -> str:
    ink = "muted" if quiet else ink
    attributes = f' fill="var(--{ink})"' if ink and ink != "good" else ""
    attributes += ' text-anchor="end"' if end else ""
    attributes += ' font-weight="600"' if bold else ""
    return f'<text x="{x}" y="{y + 4:g}"{attributes}>{escape(text)}</text>'


def _bar(end: int, y: float, share: float, *, soft: bool = False) -> str:
    """Returns a bar below a number that ends at `end`."""
    length = round(share * BAR, 1)
    ink = "line" if soft else "accent"
    return (
        f'<rect x="{end - length:g}" y="{y + ROW / 2 - 2:g}" width="{length:g}" height="1.5" '
        f'fill="var(--{ink})"/>'
    )


def _x(lane: int) -> float:
    return lane * LANE + LANE / 2 + 2


def _y(number: int) -> float:
    return (number + 1) * ROW + ROW / 2 + 2
