"""How fast is sparse prefill on a GPU, beside the best dense attention of PyTorch?

One layer, bfloat16, images of 1,296 tokens with 40 tokens of text between them, and plans that
leave a share of the heads dense. Nothing is timed before sampled rows of every head equal
attention in float32 with the mask written out.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from triton.testing import do_bench

from ours import RedGateError
from photomask.attention.kernels import prefill_attention
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, Pattern, SinkRule, is_sink
from photomask.attention.schedule import Schedule, build_schedule
from photomask.attention.visible_pairs import visible_pairs
from rows import Results, Subject

WHAT = "prefill_attention"
HEADS, KEY_HEADS, HEAD_SIZE = 28, 4, 128
IMAGE, TEXT, FIRST_TEXT, LAST_TEXT = 1296, 40, 32, 256
LARGEST_ERROR = 1e-2
DENSE = {
    "cuDNN dense (SDPA)": SDPBackend.CUDNN_ATTENTION,
    "FlashAttention-2 dense (SDPA)": SDPBackend.FLASH_ATTENTION,
}
PLANS = {  # heads that are dense, sink, intra-image, intra-image+sink
    "0 % dense": (0, 7, 9, 12),
    "30 % dense": (9, 5, 6, 8),
    "50 % dense": (14, 4, 4, 6),
    "100 % dense": (28, 0, 0, 0),
}
ORDER = (Pattern.DENSE, Pattern.SINK, Pattern.INTRA_IMAGE, Pattern.INTRA_IMAGE_SINK)


@dataclass(frozen=True)
class Layer:
    """Tensors of one layer, and the prompt they belong to."""

    query: Tensor
    key: Tensor
    value: Tensor
    layout: PromptLayout
    sinks: SinkRule

    def run(self, schedule: Schedule, patterns: Tensor) -> Tensor:
        """Computes sparse prefill."""
        return prefill_attention(
            self.query, self.key, self.value, schedule, patterns, HEAD_SIZE**-0.5
        )

    def run_dense(self, backend: SDPBackend) -> Tensor:
        """Computes dense attention."""
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(
                self.query, self.key, self.value, is_causal=True, enable_gqa=True
            )


def main() -> int:
    """Times every length and plan; the exit status is 1 if a gate is red."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", nargs="*", type=int, default=[36864, 131072])
    parser.add_argument("--milliseconds", type=int, default=1000, help="to repeat a call for")
    arguments = parser.parse_args()
    results = Results(WHAT)
    if not torch.cuda.is_available():
        results.skipped(Subject(WHAT, "photomask", "all"), "needs a CUDA device")
        return 0
    torch.manual_seed(0)
    red = False
    for tokens in arguments.tokens:
        try:
            measure(results, make_layer(tokens), arguments.milliseconds)
        except RedGateError as error:
            subject = Subject(WHAT, "photomask", f"{tokens} tokens")
            results.skipped(subject, f"red gate: {error}")
            red = True
    return int(red)


def make_layer(tokens: int) -> Layer:
    """Draws a layer for a prompt of images, as many as fit."""
    kinds, images = [TokenKind.TEXT] * FIRST_TEXT, [-1] * FIRST_TEXT
    number = 0
    while len(kinds) + IMAGE + 2 + TEXT < tokens - LAST_TEXT:
        kinds += [TokenKind.START, *[TokenKind.IMAGE] * IMAGE, TokenKind.END]
        images += [number] * (IMAGE + 2)
        kinds += [TokenKind.TEXT] * TEXT
        images += [-1] * TEXT
        number += 1
    kinds += [TokenKind.TEXT] * (tokens - len(kinds))
    images += [-1] * (tokens - len(images))
    layout = PromptLayout.of(
        torch.tensor([kinds], device="cuda"), torch.tensor([images], device="cuda")
    )
    query, key, value = (
        torch.randn(1, heads, tokens, HEAD_SIZE, device="cuda", dtype=torch.bfloat16)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    return Layer(query, key, value, layout, SinkRule())


def measure(results: Results, layer: Layer, milliseconds: int) -> None:
    """Gates and times one length.

    Raises:
        RedGateError: rows differ from the reference.
    """
    device, network = torch.cuda.get_device_name(), f"{layer.layout.tokens} tokens"
    note = f"{HEADS}/{KEY_HEADS} heads of {HEAD_SIZE}, bfloat16, batch 1"

    def time(call: Callable[[], object]) -> list[float]:
        return do_bench(call, warmup=milliseconds // 5, rep=milliseconds, return_mode="all")

    schedule = build_schedule(layer.layout, layer.sinks, DenseRule())
    plans = {name: shuffled(counts) for name, counts in PLANS.items()}
    for patterns in plans.values():
        require_right(layer, schedule, patterns)
    usual: dict[str, float] = {}
    for name, backend in DENSE.items():
        times = time(lambda backend=backend: layer.run_dense(backend))
        results.samples(
            Subject(WHAT, name, network, "torch", device), "time", times, "ms", note=note
        )
        usual[name] = statistics.median(times)
    for name, patterns in plans.items():
        subject = Subject(WHAT, f"photomask, {name}", network, device=device)
        codes = torch.tensor(patterns, dtype=torch.int8, device="cuda")
        times = time(lambda codes=codes: layer.run(schedule, codes))
        results.samples(subject, "time", times, "ms", note=note)
        for baseline, median in usual.items():
            ratios = [median / each for each in times]
            results.samples(subject, f"speed over {baseline}", ratios, "ratio", note=note)
        share = density(layer, patterns)
        results.number(subject, "density", share, "ratio", note="visible pairs over causal pairs")
        rate = 4 * HEAD_SIZE * HEADS * layer.layout.tokens**2 / 2 * share
        rates = [rate / each / 1e9 for each in times]
        results.samples(subject, "rate", rates, "TFLOP/s", note="of visible pairs")
    times = time(lambda: build_schedule(layer.layout, layer.sinks, DenseRule()))
    subject = Subject(WHAT, "photomask", network, device=device)
    results.samples(subject, "schedule", times, "ms", note="once a prompt")


def shuffled(counts: Sequence[int]) -> list[Pattern]:
    """Spreads patterns over the heads, the same way every time."""
    patterns = [pattern for pattern, count in zip(ORDER, counts, strict=True) for _ in range(count)]
    order = torch.randperm(HEADS, generator=torch.Generator().manual_seed(0))
    return [patterns[place] for place in order]


def density(layer: Layer, patterns: Sequence[Pattern]) -> float:
    """Returns the share of the causal pairs that all heads see together."""
    pairs = {
        pattern: visible_pairs(layer.layout, pattern, layer.sinks, DenseRule()).item()
        for pattern in Pattern
    }
    return sum(pairs[pattern] for pattern in patterns) / (HEADS * pairs[Pattern.DENSE])


def require_right(layer: Layer, schedule: Schedule, patterns: Sequence[Pattern]) -> None:
    """Compares sampled rows of every head with attention in float32.

    Raises:
        RedGateError: a head is too far off.
    """
    output = layer.run(schedule, torch.tensor(patterns, dtype=torch.int8, device="cuda"))
    for head, pattern in enumerate(patterns):
        rows = torch.randint(layer.layout.tokens, (64,), device="cuda")
        owner = head // (HEADS // KEY_HEADS)
        scores = layer.query[0, head, rows].float() @ layer.key[0, owner].float().T
        scores *= HEAD_SIZE**-0.5
        scores = scores.masked_fill(~rows_of_mask(layer, pattern, rows), -torch.inf)
        expected = scores.softmax(-1) @ layer.value[0, owner].float()
        error = (output[0, head, rows].float() - expected).norm() / expected.norm()
        if not error < LARGEST_ERROR:
            raise RedGateError(f"head {head}, {pattern.label}: relative error {error:.1e}")


def rows_of_mask(layer: Layer, pattern: Pattern, rows: Tensor) -> Tensor:
    """Writes out some rows of what `visible` defines for causal images: bool [rows, L]."""
    layout, keys = layer.layout, layer.layout.positions
    kind, image, offset = layout.kind[0], layout.image[0], layout.offset[0]
    in_image = kind == TokenKind.IMAGE
    own = (image[rows, None] == image) & in_image
    kept = (kind == TokenKind.TEXT).expand_as(own)
    before = keys < layout.first[0, rows, None]
    if pattern is Pattern.SINK:
        block = layer.sinks.diagonal_block
        kept = kept | (own & (offset[rows, None] // block == offset // block))
    else:
        kept = kept | own
    if pattern is Pattern.INTRA_IMAGE:
        kept = kept | ((kind == TokenKind.START) & (image[rows, None] == image))
    else:
        kept = kept | (is_sink(layout, layer.sinks)[0] & before)
    if pattern is Pattern.DENSE:
        kept = torch.ones_like(kept)
    return (kept | ~in_image[rows, None]) & (keys <= rows[:, None])


if __name__ == "__main__":
    sys.exit(main())
