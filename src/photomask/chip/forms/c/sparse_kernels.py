"""Writes the inner loops of layers with many zeros: with the instructions of AVX2, and without."""

from collections.abc import Sequence

from photomask.chip.forms.c.sparse_tiles import VECTOR, Tiles
from photomask.chip.forms.c.text import affine, indent

INCLUDE = ["#if defined(__AVX2__)", "#include <immintrin.h>", "#endif"]
"""What the wide loops need at the top of the source."""


def wide_kernel(tiles: Tiles, pitch: int, kind: str, next_terms: Sequence[str]) -> list[str]:
    """Returns loops that multiply the operands of two terms at sixteen places at once.

    The operands of the two terms are interleaved, so that `vpmaddwd` adds the two products of a
    place. Compilers do not find this instruction in plain C.

    Args:
        tiles: the places.
        pitch: the distance of two rows of operands.
        kind: the C type of the weights, `int8_t` or `int16_t`.
        next_terms: lines that make `x0` and `x1` point to the operands of the next two terms.
    """
    places = range(0, tiles.sums, VECTOR)
    both = "int16_t" if kind == "int8_t" else "int32_t"
    spread = {
        "int8_t": "_mm256_cvtepi8_epi16(_mm_set1_epi16(both))",
        "int16_t": "_mm256_set1_epi32(both)",
    }[kind]
    inner = [
        *next_terms,
        f"{both} both;",
        "memcpy(&both, values + 2 * p, sizeof both);",
        f"const __m256i w = {spread};",
        "__m256i u, v;",
    ]
    for place in places:
        row, column = divmod(place, tiles.columns)
        for name, source in (("u", "x0"), ("v", "x1")):
            at = _plus(source, row * pitch + column)
            load = f"_mm256_loadu_si256((const __m256i *)(const void *)({at}))"
            if tiles.columns < VECTOR:
                low, high = (
                    f"_mm_loadu_si128((const __m128i *)(const void *)({_plus(source, start)}))"
                    for start in (row * pitch, (row + 1) * pitch)
                )
                load = f"_mm256_inserti128_si256(_mm256_castsi128_si256({low}),\n        {high}, 1)"
            inner += f"{name} = {load};".split("\n")
        for half, name in (("lo", "a"), ("hi", "b")):
            sums = f"{name}{place // VECTOR}"
            product = f"_mm256_madd_epi16(w, _mm256_unpack{half}_epi16(u, v))"
            inner.append(f"{sums} = _mm256_add_epi32({sums}, {product});")
    stores = []
    for place in places:
        pair = f"a{place // VECTOR}, b{place // VECTOR}"
        for start, control in ((place, "0x20"), (place + VECTOR // 2, "0x31")):
            to = f"(__m256i *)(void *)({_plus('sums', start)})"
            value = f"_mm256_permute2x128_si256({pair}, {control})"
            stores.append(f"_mm256_storeu_si256({to}, {value});")
    return [
        *(
            f"__m256i a{n} = _mm256_set1_epi32(bias), b{n} = a{n};"
            for n in range(tiles.sums // VECTOR)
        ),
        "for (int p = 0; p < pairs; p++) {",
        *indent(inner),
        "}",
        *stores,
    ]


def plain_kernel(tiles: Tiles, pitch: int, next_terms: Sequence[str]) -> list[str]:
    """Returns loops in plain C that compute the same sums; see `wide_kernel`."""
    place = affine(("r", tiles.columns), ("q", 1))
    at = affine(("r", pitch), ("q", 1))
    return [
        f"for (int s = 0; s < {tiles.sums}; s++) {{",
        "    sums[s] = bias;",
        "}",
        "for (int p = 0; p < pairs; p++) {",
        *indent(next_terms),
        "    const int32_t w0 = values[2 * p], w1 = values[2 * p + 1];",
        f"    for (int r = 0; r < {tiles.rows}; r++) {{",
        f"        for (int q = 0; q < {tiles.columns}; q++) {{",
        f"            sums[{place}] += w0 * x0[{at}] + w1 * x1[{at}];",
        "        }",
        "    }",
        "}",
    ]


def _plus(name: str, offset: int) -> str:
    return f"{name} + {offset}" if offset else name
