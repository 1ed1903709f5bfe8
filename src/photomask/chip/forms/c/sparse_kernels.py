"""Writes the inner loops of layers with scattered zeros, for AVX2, for SSE2, and in plain C."""

from collections.abc import Sequence

from photomask.chip.forms.c.sparse_tiles import VECTOR, Tiles
from photomask.chip.forms.c.text import indent

INCLUDE = ["#if defined(__SSE2__)", "#include <immintrin.h>", "#endif"]
"""What the loops for AVX2 and SSE2 need at the top of the source."""
HALF = VECTOR // 2


def by_processor(avx2: Sequence[str], sse2: Sequence[str], plain: Sequence[str]) -> list[str]:
    """Returns lines of which the compiler takes those for its processor."""
    return [
        "#if defined(__AVX2__)", *avx2, "#elif defined(__SSE2__)", *sse2, "#else", *plain, "#endif",
    ]  # fmt: skip


def tile_kernel(tiles: Tiles, pitch: int, kind: str, next_terms: Sequence[str]) -> list[str]:
    """Returns lines that add all entries of an output to the sums of a tile.

    Args:
        tiles: the places of the tile.
        pitch: the distance of two rows of operands.
        kind: the C type of the weights, `int8_t` or `int16_t`.
        next_terms: lines that make `x0` and `x1` point to the operands of the next two terms.
    """
    return by_processor(
        indent(_avx2(tiles, pitch, kind, next_terms)),
        indent(_sse2(tiles, pitch, next_terms)),
        indent(_plain(tiles, pitch, next_terms)),
    )


def _avx2(tiles: Tiles, pitch: int, kind: str, next_terms: Sequence[str]) -> list[str]:
    """Returns loops over the entries that multiply sixteen places at once.

    The operands of two terms are interleaved, so that `vpmaddwd` adds the two products of a place.
    Compilers do not find this instruction in plain C.
    """
    both, spread = "int16_t", "_mm256_cvtepi8_epi16(_mm_set1_epi16(both))"
    if kind != "int8_t":
        both, spread = "int32_t", "_mm256_set1_epi32(both)"
    inner = [
        *next_terms,
        f"{both} both;",
        "memcpy(&both, values + 2 * p, sizeof both);",
        f"const __m256i w = {spread};",
        "__m256i u, v;",
    ]
    stores = []
    for n, place in enumerate(range(0, tiles.sums, VECTOR)):
        row, column = divmod(place, tiles.columns)
        for name, source in (("u", "x0"), ("v", "x1")):
            if tiles.columns >= VECTOR:
                at = _pointer("__m256i", source, row * pitch + column)
                inner.append(f"{name} = _mm256_loadu_si256({at});")
                continue
            low = _pointer("__m128i", source, row * pitch)
            high = _pointer("__m128i", source, (row + 1) * pitch)
            inner += [
                f"{name} = _mm256_castsi128_si256(_mm_loadu_si128({low}));",
                f"{name} = _mm256_inserti128_si256({name}, _mm_loadu_si128({high}), 1);",
            ]
        for half, sums in (("lo", f"a{n}"), ("hi", f"b{n}")):
            product = f"_mm256_madd_epi16(w, _mm256_unpack{half}_epi16(u, v))"
            inner.append(f"{sums} = _mm256_add_epi32({sums}, {product});")
        # Interleaving works on halves of the register, so that the halves of the sums are mixed.
        for start, control in ((place, "0x20"), (place + HALF, "0x31")):
            to = _pointer("__m256i", "sums", start, constant=False)
            value = f"_mm256_permute2x128_si256(a{n}, b{n}, {control})"
            stores.append(f"_mm256_storeu_si256({to}, {value});")
    count = tiles.sums // VECTOR
    return [
        "const int16_t *const operands = x;",
        *(f"__m256i a{n} = _mm256_set1_epi32(bias), b{n} = a{n};" for n in range(count)),
        *_entries(inner),
        *stores,
    ]


def _sse2(tiles: Tiles, pitch: int, next_terms: Sequence[str]) -> list[str]:
    """Returns a loop over groups of eight places, as many as eight registers have sums for."""
    rows = next(n for n in (4, 2) if tiles.rows % n == 0) if tiles.columns == HALF else 1
    columns = next(n for n in (32, 16, HALF) if tiles.columns % n == 0)
    places = [(r, q) for r in range(rows) for q in range(0, columns, HALF)]
    inner = [
        *next_terms,
        "const uint32_t low = (uint32_t)values[2 * p] & 0xffff;",
        "const uint32_t high = (uint32_t)values[2 * p + 1] << 16;",
        "const __m128i w = _mm_set1_epi32((int32_t)(high | low));",
        "__m128i u, v;",
    ]
    stores = []
    for n, (r, q) in enumerate(places):
        for name, source in (("u", "x0"), ("v", "x1")):
            at = _pointer("__m128i", source, r * pitch + q)
            inner.append(f"{name} = _mm_loadu_si128({at});")
        for half, sums in (("lo", f"a{n}"), ("hi", f"b{n}")):
            product = f"_mm_madd_epi16(w, _mm_unpack{half}_epi16(u, v))"
            inner.append(f"{sums} = _mm_add_epi32({sums}, {product});")
        for start, sums in ((0, f"a{n}"), (HALF // 2, f"b{n}")):
            to = _pointer("__m128i", "to", r * tiles.columns + q + start, constant=False)
            stores.append(f"_mm_storeu_si128({to}, {sums});")
    body = [
        *(f"__m128i a{n} = _mm_set1_epi32(bias), b{n} = a{n};" for n in range(len(places))),
        *_entries(inner),
        f"int32_t *const to = sums + r * {tiles.columns} + q;",
        *stores,
    ]
    return _parts(tiles, pitch, rows, columns, body)


def _plain(tiles: Tiles, pitch: int, next_terms: Sequence[str]) -> list[str]:
    """Returns a loop over groups of eight places, whose sums are variables."""
    inner = [
        *next_terms,
        "const int32_t w0 = values[2 * p], w1 = values[2 * p + 1];",
        *(f"s{n} += w0 * x0[{n}] + w1 * x1[{n}];" for n in range(HALF)),
    ]
    body = [
        *(f"int32_t s{n} = bias;" for n in range(HALF)),
        *_entries(inner),
        f"int32_t *const to = sums + r * {tiles.columns} + q;",
        *(f"to[{n}] = s{n};" for n in range(HALF)),
    ]
    return _parts(tiles, pitch, 1, HALF, body)


def _entries(inner: Sequence[str]) -> list[str]:
    """Returns a loop over all entries."""
    return [
        "term = terms;",
        "for (int p = 0; p < pairs; p++) {",
        *indent(inner),
        "}",
    ]


def _parts(tiles: Tiles, pitch: int, rows: int, columns: int, body: Sequence[str]) -> list[str]:
    """Returns loops over the parts of a tile."""
    return [
        f"for (int r = 0; r < {tiles.rows}; r += {rows}) {{",
        f"    for (int q = 0; q < {tiles.columns}; q += {columns}) {{",
        f"        const int16_t *restrict operands = x + r * {pitch} + q;",
        *indent(body, 2),
        "    }",
        "}",
    ]


def _pointer(kind: str, name: str, offset: int, *, constant: bool = True) -> str:
    """Returns an address as a pointer to a register's worth of integers."""
    at = f"({name} + {offset})" if offset else name
    return f"(const {kind} *)(const void *){at}" if constant else f"({kind} *)(void *){at}"
