"""Time and memory to the first token, in words and as a table."""

from __future__ import annotations

from photomask.attention.verification.documents import FirstToken, Spread
from photomask.report import Cell, Column, Row, Section, Tone

_COLUMNS = (
    Column("model", number=False),
    Column("median time", meaning="From the prompt's tokens to the first token, one forward pass."),
    Column("20 % are faster than", meaning="20th percentile over the passes."),
    Column("80 % are faster than", meaning="80th percentile over the passes."),
    Column("peak memory", meaning="Most memory of the tensors of a pass, without the weights."),
)


def first_token_facts(found: FirstToken) -> list[tuple[str, str]]:
    """Returns the facts of the verdict: times, and which model is slower."""
    before, after = (_time(each.p50) for each in (found.dense_ms, found.sparse_ms))
    return [
        ("time to the first token, dense → sparse", f"{before} → {after}"),
        ("first token, the sparse model is", _comparison(found)),
        (
            "peak memory, dense → sparse",
            f"{_size(found.dense_bytes)} → {_size(found.sparse_bytes)}",
        ),
    ]


def first_token_section(found: FirstToken) -> Section:
    """Returns a row for each model, and says where the sparse one is slower."""
    text = (
        f"Both models in turn, {found.repeats} passes each, on the longest prompt: "
        f"{found.tokens:,} tokens. The sparse model is {_comparison(found)}."
    )
    if found.is_told_apart and found.speedup < 1:
        text += (
            " A plan saves attention alone. Where a prompt is short or a model is small, attention "
            "takes little of the time, and choosing the keys costs more than it saves; on a CPU "
            "the sparse layers run in plain PyTorch. Serve this model dense for such prompts."
        )
    rows = [
        _row("dense", found.dense_ms, found.dense_bytes, Tone.PLAIN),
        _row("sparse", found.sparse_ms, found.sparse_bytes, _tone(found)),
    ]
    return Section("Time and memory to the first token", text, _COLUMNS, rows)


def _row(name: str, times: Spread, size: int, tone: Tone) -> Row:
    return (
        name,
        Cell(_time(times.p50), tone, sort=times.p50 / 1000),
        Cell(_time(times.p20), sort=times.p20 / 1000),
        Cell(_time(times.p80), sort=times.p80 / 1000),
        Cell(_size(size), sort=size),
    )


def _tone(found: FirstToken) -> Tone:
    if not found.is_told_apart:
        return Tone.PLAIN
    return Tone.GOOD if found.speedup > 1 else Tone.WARN


def _comparison(found: FirstToken) -> str:
    """Returns how the sparse model's time compares, as what follows "it is"."""
    if not found.is_told_apart:
        return "as fast as dense, within the spread"
    if found.speedup > 1:
        return f"{found.speedup:.2f} times as fast as dense"
    return f"SLOWER than dense, by {100 * (1 / found.speedup - 1):.0f} %"


def _time(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.2f} s"
    return f"{milliseconds:.3g} ms"


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"
