"""Do token pruning and a head plan add up?

The shipped model answers questions about pictures with all picture tokens, and with a part of them.
The pruners are those of the examples: `prune_tokens_by_diversity.py` is like DivPrune, and
`prune_tokens_by_merging.py` is like VisionZip. Random tokens are the control. Each runs dense, and
with one head plan that was decided from unpruned prompts. The rows are the share of the pairs of
query and key of the dense model that were computed, and the share of right answers.

Nothing is counted before the pruned and planned model agrees with itself: a pruner that keeps all
tokens must give the logits that token ids give.
"""

import argparse
import runpy
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ours import RedGateError
from photomask.attention import (
    EncodedPrompt,
    TokenKind,
    calibrate,
    convert,
    encode,
    last_prefill,
    layout_of,
    plan,
    prompt_layout,
)
from photomask.zoo import picture_questions
from rows import FOLDER, Results, Subject

WHAT = "token_pruning"
EXAMPLES = Path(__file__).parents[1] / "examples"
KEPT = (24, 12)
"""The tokens that remain of the 49 of a picture."""
PICTURES = 12
Prune = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def main(argv: Sequence[str] | None = None) -> int:
    """Checks the gate, then answers every question by every contender."""
    arguments = parse(argv)
    results = Results(WHAT, arguments.results)
    torch.set_num_threads(1)
    bench = Bench(arguments.device, arguments.samples)
    prompts = picture_questions.held_out_prompts(arguments.questions, pictures=PICTURES)
    try:
        bench.gate(encode(bench.processor, prompts[0], arguments.device))
    except RedGateError as error:
        results.skipped(Subject(WHAT, "photomask", "picture questions"), f"red gate: {error}")
        return 1
    for prompt in prompts:
        bench.answer(encode(bench.processor, prompt, arguments.device))
    bench.report(results)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=12, help="of each of six tasks")
    parser.add_argument("--samples", type=int, default=8, help="calibration prompts of each task")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the rows")
    return parser.parse_args(argv)


class Bench:
    """The model, dense and with a plan, and what was counted so far."""

    def __init__(self, device: str, samples: int):
        model, self.processor = picture_questions.load_vision_language()
        self.model: Any = model.to(device)
        prompts = picture_questions.calibration_prompts(samples)
        self.sparse: Any = convert(self.model, plan(calibrate(self.model, self.processor, prompts)))
        self.pruners: dict[str, Prune] = {
            "DivPrune-like": example("prune_tokens_by_diversity"),
            "VisionZip-like": example("prune_tokens_by_merging"),
            "random": at_random(0),
        }
        self.pairs: dict[str, list[float]] = defaultdict(list)
        self.right: dict[str, list[bool]] = defaultdict(list)

    @torch.inference_mode()
    def gate(self, prompt: EncodedPrompt) -> None:
        """Raises RedGateError unless embeddings of all tokens give what their ids give."""
        for model in (self.model, self.sparse):
            expected = model(**prompt.inputs).logits
            found, _ = self.run(model, prompt, lambda features, _: (all_of(features), features), 0)
            if not torch.allclose(found, expected[0, -1], atol=1e-3, rtol=1e-3):
                raise RedGateError("embeddings of all tokens give other logits than their ids")

    @torch.inference_mode()
    def answer(self, prompt: EncodedPrompt) -> None:
        """Answers one question by every contender."""
        logits = self.sparse(**prompt.inputs).logits[0, -1]
        full = last_prefill(self.sparse)
        self.count("dense", 1.0, self.model(**prompt.inputs).logits[0, -1], prompt)
        self.count("photomask", full.density, logits, prompt)
        for name, prune in self.pruners.items():
            for kept in KEPT:
                logits, _ = self.run(self.model, prompt, prune, kept)
                planned, pruned = self.run(self.sparse, prompt, prune, kept)
                causal = full.prompts[0].causal
                label = f"{name}, {kept} of 49"
                self.count(label, pruned.causal / causal, logits, prompt)
                self.count(f"photomask, {label}", pruned.visible / causal, planned, prompt)

    def run(self, model: Any, prompt: EncodedPrompt, prune: Prune, kept: int) -> tuple[Tensor, Any]:
        """Returns the last logits of a pruned prompt, and the prefill of the sparse model."""
        inputs, layout = prompt.inputs, layout_of(model.config, **prompt.inputs)
        pixels, grid = inputs["pixel_values"], inputs["image_grid_thw"]
        pictures = model.get_image_features(pixels, grid, return_dict=True).pooler_output
        pruned = [prune(features, kept) for features in pictures]
        inside = layout.kind == TokenKind.IMAGE
        embeddings = model.get_input_embeddings()(inputs["input_ids"])
        embeddings[inside] = torch.cat([features for _, features in pruned])
        remains = torch.ones_like(inside)
        remains[inside] = torch.cat([remaining for remaining, _ in pruned])
        positions = model.model.get_rope_index(**inputs)[0][:, remains][:, None]
        arguments = {
            "inputs_embeds": embeddings[remains][None],
            "position_ids": positions,
            "attention_mask": torch.ones_like(positions[0]),
        }
        with prompt_layout(self.sparse, layout.keep(remains)):
            logits = model(**arguments).logits[0, -1]
        prefill = last_prefill(self.sparse)
        return logits, prefill and prefill.prompts[0]

    def count(self, label: str, share: float, logits: Tensor, prompt: EncodedPrompt) -> None:
        """Adds the answer of a contender."""
        self.pairs[label].append(share)
        self.right[label].append(int(logits.argmax()) == prompt.answer[0])

    def report(self, results: Results) -> None:
        """Writes two rows for each contender."""
        for label, shares in self.pairs.items():
            subject = Subject(WHAT, label, f"{PICTURES} pictures")
            note = f"{len(shares)} questions"
            results.samples(subject, "pairs_of_dense", shares, "share", note=note)
            right = sum(self.right[label]) / len(shares)
            results.number(subject, "accuracy", right, "share", note=note)


def all_of(features: Tensor) -> Tensor:
    """Returns a mask that keeps every token of a picture."""
    return torch.ones(len(features), dtype=torch.bool, device=features.device)


def example(name: str) -> Prune:
    """Returns the pruner of an example."""
    prune = runpy.run_path(str(EXAMPLES / f"{name}.py"))["prune"]

    def on_cpu(features: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        remains, merged = prune(features.cpu(), kept)
        return remains.to(features.device), merged.to(features.device)

    return on_cpu


def at_random(seed: int) -> Prune:
    """Returns a pruner that keeps random tokens."""
    random = torch.Generator().manual_seed(seed)

    def prune(features: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randperm(len(features), generator=random)[:kept]
        return torch.isin(torch.arange(len(features)), chosen).to(features.device), features

    return prune


if __name__ == "__main__":
    sys.exit(main())
