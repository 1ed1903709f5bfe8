"""Writes products with weights that are zero in whole blocks: only the other blocks are read.

A block has eight outputs and eight consecutive terms, which are eight input channels at one kernel
position if the channels are a multiple of eight. The code reads each block that is not zero once
for the columns that the dense code would multiply, and adds two terms of eight outputs at a time.
"""

from dataclasses import dataclass

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.c.context import Context
from photomask.chip.forms.c.sparse_kernels import by_processor
from photomask.chip.forms.c.text import c_type, indent
from photomask.chip.sparsity import Blocks

SIDE = 8
"""The outputs and the terms of a block."""
MOST_BLOCKS = 0.7
"""The most blocks that are not zero, as a share of all, with which this code is used."""


@dataclass(frozen=True)
class BlockList:
    """The blocks of a weight that are not zero."""

    values: np.ndarray
    """[block, pair of terms, output, term of the pair]."""
    places: np.ndarray
    """Which eight terms each block has: its first term is eight times this number, [blocks]."""
    counts: np.ndarray
    """The number of blocks of each eight outputs."""

    @classmethod
    def of(cls, weight: np.ndarray) -> "BlockList | None":
        """Returns the blocks, or None where so many are not zero that dense code is as fast.

        Args:
            weight: integers [outputs, terms].
        """
        outputs, terms = weight.shape
        if outputs % SIDE or terms % SIDE:
            return None
        occupied = Blocks(outputs=SIDE, inputs=SIDE).occupied(weight)
        if not 0 < occupied.sum() <= MOST_BLOCKS * occupied.size:
            return None
        blocks = weight.reshape(outputs // SIDE, SIDE, terms // SIDE, SIDE // 2, 2)
        kept = blocks.transpose(0, 2, 3, 1, 4)[occupied]
        return cls(kept, np.nonzero(occupied)[1], occupied.sum(axis=1))


def block_products_call(
    context: Context, weight: np.ndarray, columns: int, types: tuple[str, str, str], bias: str
) -> str | None:
    """Adds the blocks of a weight and the loops that multiply them by columns of operands.

    Args:
        context: the step.
        weight: [outputs, terms].
        columns: how many columns are computed at once.
        types: the C types of the operands, the weights and the sums.
        bias: the C expression for the biases.

    Returns:
        The call, or None where the dense code is as fast or the types are wider than this code's.
    """
    found = BlockList.of(weight) if types == ("int16_t", "int8_t", "int32_t") else None
    if found is None:
        return None
    outputs, terms = weight.shape
    place = c_type(Interval(0, int(found.places.max())))
    count = c_type(Interval(0, int(found.counts.max())))
    w = context.constant("weight", found.values, "weights [block, pair, output, term]", "int8_t")
    places = context.constant("places", found.places, "terms of the blocks, by eight", place)
    counts = context.constant("pairs", found.counts, "blocks of each eight outputs", count)
    name = _kernel(context, columns, place, count)
    arguments = f"columns, {w}, {places}, {counts}, {bias}, {terms}, {outputs}, sums"
    return f"{name}({arguments})"


def _kernel(context: Context, columns: int, place: str, count: str) -> str:
    """Adds the function that multiplies the blocks by some columns, and returns its name."""
    short = "_".join(t.removesuffix("_t").replace("int", "i") for t in (place, count))
    name = f"sparse_blocks_{columns}_{short}"
    starts = [f"columns + {'terms + ' if p else ''}{SIDE} * *places" for p in range(columns)]
    context.kernels.setdefault(
        name,
        [
            "/* sums[column, o] = biases[o] + sum(columns[column, t] * weights[o, t]), over blocks "
            "that are",
            " * not zero. It is proven that sums in any order fit their type. */",
            f"static void {name}(",
            "    const int16_t *restrict columns, const int8_t *restrict weights,",
            f"    const {place} *restrict places, const {count} *restrict counts,",
            "    const int32_t *restrict biases, int terms, int outputs, int32_t *restrict sums)",
            "{",
            *([] if columns > 1 else ["    (void)terms;"]),
            f"    for (int o = 0; o < outputs; o += {SIDE}) {{",
            *by_processor(
                indent(_avx2(columns, starts), 2),
                indent(_sse2(columns, starts), 2),
                indent(_plain(columns, starts), 2),
            ),
            "    }",
            "}",
        ],
    )
    return name


def _avx2(columns: int, starts: list[str]) -> list[str]:
    """Returns lines that add two terms of eight outputs at once, with `vpmaddwd`."""
    load = "_mm256_loadu_si256((const __m256i *)(const void *)(biases + o))"
    block: list[str] = []
    for p in range(columns):
        block.append(f"const int16_t *restrict x{p} = {starts[p]};")
    block.append("__m256i w;")
    block += [f"int32_t both{p};" for p in range(columns)]
    for pair in range(SIDE // 2):
        at = f"weights + {2 * SIDE * pair}" if pair else "weights"
        block.append(
            f"w = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)({at})));"
        )
        for p in range(columns):
            block.append(f"memcpy(&both{p}, x{p}{f' + {2 * pair}' if pair else ''}, 4);")
            product = f"_mm256_madd_epi16(w, _mm256_set1_epi32(both{p}))"
            block.append(f"s{p} = _mm256_add_epi32(s{p}, {product});")
    block += [f"weights += {SIDE * SIDE};", "places++;"]
    return [
        *(f"__m256i s{p} = {load};" for p in range(columns)),
        f"for (int n = counts[o / {SIDE}]; n > 0; n--) {{",
        *indent(block),
        "}",
        *(
            f"_mm256_storeu_si256((__m256i *)(void *)(sums + {'outputs + ' if p else ''}o), s{p});"
            for p in range(columns)
        ),
    ]


def _sse2(columns: int, starts: list[str]) -> list[str]:
    """Returns lines that add two terms of four outputs at once, with `pmaddwd`."""
    block = [f"const int16_t *restrict x{p} = {starts[p]};" for p in range(columns)]
    block.append("__m128i w, low, high;")
    block += [f"int32_t both{p};" for p in range(columns)]
    for pair in range(SIDE // 2):
        at = f"(weights + {2 * SIDE * pair})" if pair else "weights"
        block += [
            f"w = _mm_loadu_si128((const __m128i *)(const void *){at});",
            # Each byte is put above a copy of itself, and the shift extends its sign.
            "low = _mm_srai_epi16(_mm_unpacklo_epi8(w, w), 8);",
            "high = _mm_srai_epi16(_mm_unpackhi_epi8(w, w), 8);",
        ]
        for p in range(columns):
            block.append(f"memcpy(&both{p}, x{p}{f' + {2 * pair}' if pair else ''}, 4);")
            for sums, weights in ((f"a{p}", "low"), (f"b{p}", "high")):
                product = f"_mm_madd_epi16({weights}, _mm_set1_epi32(both{p}))"
                block.append(f"{sums} = _mm_add_epi32({sums}, {product});")
    block += [f"weights += {SIDE * SIDE};", "places++;"]
    lines, stores = [], []
    for p in range(columns):
        for sums, start in ((f"a{p}", "o"), (f"b{p}", f"o + {SIDE // 2}")):
            load = f"_mm_loadu_si128((const __m128i *)(const void *)(biases + {start}))"
            lines.append(f"__m128i {sums} = {load};")
            to = f"(__m128i *)(void *)(sums + {'outputs + ' if p else ''}{start})"
            stores.append(f"_mm_storeu_si128({to}, {sums});")
    return [
        *lines,
        f"for (int n = counts[o / {SIDE}]; n > 0; n--) {{",
        *indent(block),
        "}",
        *stores,
    ]


def _plain(columns: int, starts: list[str]) -> list[str]:
    """Returns loops in plain C that compute the same sums, each in a variable of its own."""
    block: list[str] = []
    for p in range(columns):
        adds = [f"const int16_t *restrict x{p} = {starts[p]};"]
        inner = [f"const int32_t u = x{p}[t], v = x{p}[t + 1];"]
        inner += [
            f"s{p}{i} += u * weights[{SIDE} * t + {2 * i}] + v * weights[{SIDE} * t + {2 * i + 1}];"
            for i in range(SIDE)
        ]
        block += [*adds, f"for (int t = 0; t < {SIDE}; t += 2) {{", *indent(inner), "}"]
    block += [f"weights += {SIDE * SIDE};", "places++;"]
    every = [(p, i) for p in range(columns) for i in range(SIDE)]
    return [
        *(f"int32_t s{p}{i} = biases[o + {i}];" for p, i in every),
        f"for (int n = counts[o / {SIDE}]; n > 0; n--) {{",
        *indent(block),
        "}",
        *(f"sums[{'outputs + ' if p else ''}o + {i}] = s{p}{i};" for p, i in every),
    ]
