"""Writes products with scattered zeros: each weight that is not zero drives a loop over positions.

The operands are copied to planes, one for each input channel, in which adjacent outputs read
adjacent elements. Two weights of an output then multiply the operands of all places of a tile, and
add the products to sums that stay in registers. Weights that are zero are neither stored nor read.
"""

from dataclasses import dataclass

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.c.context import Context, read
from photomask.chip.forms.c.plane import Plane
from photomask.chip.forms.c.sparse_kernels import tile_kernel
from photomask.chip.forms.c.sparse_tiles import Planes, Tiles
from photomask.chip.forms.c.sparse_weights import Entries
from photomask.chip.forms.c.text import affine, arithmetic_type, c_type, indent, literal
from photomask.chip.forms.c.zero_blocks import BlockList

OPERAND, SUM = "int16_t", "int32_t"
"""The C types of the operands in the planes and of the sums."""
INT16 = Interval(-(1 << 15), (1 << 15) - 1)
MOST_WORK = 0.25
"""The most products, with those of unused places, as a share of the dense products.

This and the other limits are where the code was measured to be as fast as the dense code. Dense
sums of few terms are slower for each term, so that the limit of short sums is higher.
"""
MOST_WORK_OF_SHORT_SUMS = 0.6
SHORT_SUM = 192
"""The most terms of a short sum."""
WIDE = 32
"""The fewest columns of a tile for the limit of short sums."""
FEWEST_OUTPUTS = 8
"""The fewest outputs of a group that repay copying the operands to planes."""


@dataclass(frozen=True)
class Places:
    """Where the operands and the results lie."""

    x: tuple[int, int, int, int]
    """The strides of batch, channel, row and column."""
    y: tuple[int, int, int, int]
    batch: int
    channel_axis: int
    """The output's own axis of channels."""


def sparse_products(
    context: Context, plane: Plane, weight: np.ndarray, places: Places, x: Interval
) -> list[str] | None:
    """Returns a body that reads only the weights that are not zero.

    Args:
        context: the step.
        plane: the convolution.
        weight: [outputs, inputs, kernel rows, kernel columns].
        places: where the operands and the results lie.
        x: the interval of the operands.

    Returns:
        The body, or None where other code is faster: where a group has fewer than `FEWEST_OUTPUTS`
        outputs, where whole blocks are zero, or where the products of the stored weights, at all
        places that the tiles compute, are more than `MOST_WORK` of the dense products, or
        `MOST_WORK_OF_SHORT_SUMS` of them for short sums and wide tiles. It is also None if operands
        do not fit in 16 bits, or sums do not fit in 32.
    """
    outputs, channels = weight.shape[:2]
    tiles = Tiles.of(plane)
    short = weight[0].size <= SHORT_SUM and tiles.columns >= WIDE
    share = MOST_WORK_OF_SHORT_SUMS if short else MOST_WORK
    positions = plane.out_height * plane.out_width
    most = share * weight.size * positions / tiles.computed(plane)
    if outputs < FEWEST_OUTPUTS * plane.groups or np.count_nonzero(weight) > most:
        return None
    rows = weight.transpose(0, 2, 3, 1).reshape(outputs, -1)
    if plane.groups == 1 and BlockList.of(rows) is not None:
        return None
    entries = Entries.of(rows)
    if not 0 < entries.values.size <= most or not _is_per_channel(context, places):
        return None
    values = Interval(min(int(weight.min()), -1), int(weight.max()))
    if arithmetic_type(context.output.interval) != SUM or not Interval.hull(x, values).within(
        INT16
    ):
        return None
    planes = Planes.of(plane, tiles)
    layer = _Layer(context, plane, places, tiles, planes, entries, outputs, channels)
    context.scratch["planes"] = (OPERAND, plane.groups * channels * planes.channel)
    context.scratch["sums"] = (SUM, tiles.sums)
    context.scratch["codes"] = (context.store.y.ctype, outputs * tiles.sums)
    context.helpers += layer.copy()
    return layer.body()


def _is_per_channel(context: Context, places: Places) -> bool:
    """Tells whether results share one factor, or have one for each channel."""
    rescale = context.store.rescale
    if rescale is None or rescale.strides is None:
        return True
    return all(
        stride == (axis == places.channel_axis) for axis, stride in enumerate(rescale.strides)
    )


@dataclass(frozen=True)
class _Layer:
    """A layer whose weights are read as entries."""

    context: Context
    plane: Plane
    places: Places
    tiles: Tiles
    planes: Planes
    entries: Entries
    outputs: int
    channels: int
    """The input channels of a group."""

    def body(self) -> list[str]:
        """Returns loops over samples, parts of columns, bands of rows, and tiles."""
        plane, tiles = self.plane, self.tiles
        x = self.places.x
        source = f"x + n * {x[0]}" if self.places.batch > 1 else "x"
        lines = [
            f"{self.context.name}_columns({source}, first, left, planes);",
            *_steps("top", tiles.band, tiles.rows, self._tile()),
        ]
        lines = _steps("first", plane.out_height, tiles.band, lines)
        lines = _steps("left", plane.out_width, tiles.columns, lines)
        if self.places.batch > 1:
            lines = [f"for (int n = 0; n < {self.places.batch}; n++) {{", *indent(lines), "}"]
        return lines

    def _tile(self) -> list[str]:
        """Returns lines that compute the sums of a tile for each output, and store them."""
        constant, entries = self.context.constant, self.entries
        low, high = int(entries.values.min()), int(entries.values.max())
        kind = c_type(Interval(min(low, -1), max(high, 0)))
        offsets = self.planes.offsets(self.plane, self.channels)
        offset = c_type(Interval(0, int(offsets.max())))
        values = constant("weight", entries.values, "weights [output, entry]", kind)
        steps = constant("steps", entries.packed_steps, "steps between entries", "uint8_t")
        pairs = constant("pairs", entries.pairs, "pairs of entries", c_type(_hull(entries.pairs)))
        places = constant("places", offsets, "places of terms in the planes", offset)
        bias = constant("bias", self.context.parameters["bias"], "biases", SUM)
        start = affine(("planes", 1), ("top", self.planes.pitch))
        if self.plane.groups > 1:
            group = f"(o / {self.outputs // self.plane.groups})"
            start = affine((start, 1), (group, self.channels * self.planes.channel))
        kernel = self._kernel(kind, offset)
        return [
            f"const {kind} *values = {values};",
            f"const uint8_t *steps = {steps};",
            f"for (int o = 0; o < {self.outputs}; o++) {{",
            f"    const int count = {pairs}[o];",
            f"    {kernel}({start}, values, steps, {places}, count, {bias}[o], sums);",
            "    values += 2 * count;",
            f"    steps += {'2 * count' if entries.step_bits == 8 else 'count'};",
            *indent(self._rescale()),
            "}",
            *self._store(),
        ]

    def _rescale(self) -> list[str]:
        """Returns a loop that turns the sums of a tile into results."""
        result = self.context.store.result("sums[s]", SUM, {"factor": "o"})
        place = affine(("o", self.tiles.sums), ("s", 1))
        return [
            f"for (int s = 0; s < {self.tiles.sums}; s++) {{",
            f"    codes[{place}] = {result};",
            "}",
        ]

    def _store(self) -> list[str]:
        """Returns loops that move the results of a tile to where they belong."""
        tiles, y = self.tiles, self.places.y
        batch = y[0] if self.places.batch > 1 else 0
        to = affine(("n", batch), ("(first + top + r)", y[2]), ("(left + q)", y[3]), ("o", y[1]))
        code = affine(("o", tiles.sums), ("r", tiles.columns), ("q", 1))
        move = [
            f"for (int o = 0; o < {self.outputs}; o++) {{",
            f"    y[{to}] = codes[{code}];",
            "}",
        ]
        width = min(tiles.columns, self.plane.out_width)
        columns = [f"for (int q = 0; q < {width}; q++) {{", *indent(move), "}"]
        rows = min(tiles.rows, self.plane.out_height)
        return [f"for (int r = 0; r < {rows}; r++) {{", *indent(columns), "}"]

    def _kernel(self, kind: str, offset: str) -> str:
        """Adds the function that computes the sums of a tile for one output; returns its name."""
        tiles, pitch = self.tiles, self.planes.pitch
        bits = self.entries.step_bits
        short = "_".join(t.removesuffix("_t").replace("int", "i") for t in (kind, offset))
        name = f"sparse_{tiles.rows}x{tiles.columns}_{pitch}_{bits}_{short}"
        next_terms = [
            f"term += {'steps[p] & 15' if bits == 4 else 'steps[2 * p]'};",
            f"const {OPERAND} *restrict x0 = operands + *term;",
            f"term += {'steps[p] >> 4' if bits == 4 else 'steps[2 * p + 1]'};",
            f"const {OPERAND} *restrict x1 = operands + *term;",
        ]
        self.context.kernels.setdefault(
            name,
            [
                f"/* The sums of one output at {tiles.rows} rows and {tiles.columns} columns.",
                " * It is proven that sums in any order fit their type. */",
                f"static void {name}(",
                f"    const {OPERAND} *restrict x, const {kind} *restrict values,",
                f"    const uint8_t *restrict steps, const {offset} *restrict terms, int pairs,",
                f"    {SUM} bias, {SUM} *restrict sums)",
                "{",
                f"    const {offset} *restrict term;",
                *tile_kernel(tiles, pitch, kind, next_terms),
                "}",
            ],
        )
        return name

    def copy(self) -> list[str]:
        """Returns the function that copies the operands of a part of a band to the planes."""
        plane, planes = self.plane, self.planes
        x = self.context.inputs[0]
        _, channel, row, column = self.places.x
        value = read("x", affine(("h", row), ("w", column), ("c", channel)), x, OPERAND)
        padding = literal(plane.padding_value, OPERAND)
        lines: list[str] = []
        for (a, b), base in planes.bases.items():
            to = affine(("c", planes.channel), ("r", planes.pitch), ("q", 1), constant=base)
            h = affine(("(first + r)", plane.stride[0]), constant=a - plane.before[0])
            w = affine(("(left + q)", plane.stride[1]), constant=b - plane.before[1])
            inside = f"h >= 0 && h < {plane.height} && w >= 0 && w < {plane.width}"
            every = f"for (int c = 0; c < {plane.groups * self.channels}; c++) {{"
            lines += [
                f"for (int r = 0; r < {planes.heights[a, b]}; r++) {{",
                f"    const int h = {h};",
                f"    for (int q = 0; q < {planes.pitch}; q++) {{",
                f"        const int w = {w};",
                f"        if ({inside}) {{",
                *indent([every, f"    planes[{to}] = {value};", "}"], 3),
                "        } else {",
                *indent([every, f"    planes[{to}] = {padding};", "}"], 3),
                "        }",
                "    }",
                "}",
            ]
        return [
            f"/* Copies the operands of some outputs of {self.context.name} to planes, which are",
            " * [channel, row, column]. */",
            f"static void {self.context.name}_columns(",
            f"    const {x.ctype} *restrict x, int first, int left, {OPERAND} *restrict planes)",
            "{",
            *indent(lines),
            "}",
            "",
        ]


def _steps(name: str, size: int, step: int, body: list[str]) -> list[str]:
    """Returns a loop in steps, whose last step begins early enough to end at `size`."""
    if step >= size:
        return ["{", f"    const int {name} = 0;", *indent(body), "}"]
    if size % step == 0:
        return [f"for (int {name} = 0; {name} < {size}; {name} += {step}) {{", *indent(body), "}"]
    last = size - step
    return [
        f"for (int {name}_at = 0; {name}_at < {size}; {name}_at += {step}) {{",
        f"    const int {name} = {name}_at < {last} ? {name}_at : {last};",
        *indent(body),
        "}",
    ]


def _hull(values: np.ndarray) -> Interval:
    return Interval(int(values.min()), int(values.max()))
