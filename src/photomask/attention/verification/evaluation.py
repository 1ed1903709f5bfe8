"""What models answer, prompt by prompt."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from photomask.attention.encoding import EncodedPrompt
from photomask.attention.probing import logit_change
from photomask.attention.verification.documents import TaskResult
from photomask.errors import DataError
from photomask.prompts import Prompt
from photomask.report import Progress


@dataclass
class Answers:
    """What one model says to every prompt.

    Attributes:
        first: log-probabilities of the first token of the answer, float32 [V] each, on the CPU.
        right: whether greedy decoding gives the prompt's answer; None where it has none.
        said: token ids of greedy decoding, up to the first that is not the answer's.
        seconds: of all passes together.
    """

    first: list[Tensor] = field(default_factory=list)
    right: list[bool | None] = field(default_factory=list)
    said: list[tuple[int, ...]] = field(default_factory=list)
    seconds: float = 0.0

    def at(self, places: Sequence[int]) -> Answers:
        """Returns what is said to some of the prompts."""
        return Answers([self.first[n] for n in places], [self.right[n] for n in places])


def answer_all(
    model: nn.Module, prompts: Sequence[EncodedPrompt], progress: Progress, label: str
) -> Answers:
    """Runs a model once over every prompt with its answer behind it.

    Greedy decoding gives exactly the expected answer if and only if every one of its tokens is the
    most likely one behind the tokens before it, so one pass decides.

    Raises:
        DataError: a logit is not finite.
    """
    answers = Answers()
    for number, prompt in enumerate(progress(prompts, label)):
        started = time.perf_counter()
        logits = answer_logits(model, prompt)
        answers.seconds += time.perf_counter() - started
        if not logits.isfinite().all():
            raise DataError(f"prompt {number}: the model's logits are not finite")
        expected = torch.tensor(prompt.answer)
        found = logits.argmax(1)
        same = (found[: len(expected)] == expected).tolist()
        answers.right.append(all(same) if same else None)
        first_wrong = same.index(False) if False in same else len(same)
        answers.said.append(tuple(found[: first_wrong + 1].tolist()))
        answers.first.append(logits[0].log_softmax(0))
    return answers


@torch.inference_mode()
def answer_logits(model: nn.Module, prompt: EncodedPrompt) -> Tensor:
    """Returns the logits that predict the answer's tokens, float32 [max(answer, 1), V], CPU."""
    inputs = prompt.with_answer() if prompt.answer else prompt.inputs
    kept = len(prompt.answer) + 1
    logits = model(**inputs, use_cache=False, logits_to_keep=kept).logits[0].float().cpu()
    return logits[: max(len(prompt.answer), 1)]


def hash_prompts(prompts: Sequence[EncodedPrompt]) -> str:
    """Returns the SHA-256 over all prompts as the model reads them: tokens, pixels, answers."""
    digest = hashlib.sha256()
    for prompt in prompts:
        for name, value in sorted(prompt.inputs.items()):
            digest.update(f"{name} {list(value.shape)} {value.dtype}".encode())
            digest.update(value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        digest.update(repr(prompt.answer).encode())
    return digest.hexdigest()


def compare_tasks(prompts: Sequence[Prompt], dense: Answers, sparse: Answers) -> list[TaskResult]:
    """Counts, task by task in order of appearance, who answers rightly."""
    results = []
    for task in dict.fromkeys(prompt.task for prompt in prompts if prompt.answer is not None):
        pairs = [
            (bool(a), bool(b))
            for prompt, a, b in zip(prompts, dense.right, sparse.right, strict=True)
            if prompt.task == task and prompt.answer is not None
        ]
        results.append(
            TaskResult(
                task=task,
                questions=len(pairs),
                both_right=pairs.count((True, True)),
                only_dense=pairs.count((True, False)),
                only_sparse=pairs.count((False, True)),
            )
        )
    return results


def balanced(prompts: Sequence[Prompt], count: int) -> list[int]:
    """Returns the places of some prompts, as many of every task, whatever their order."""
    seen: Counter[str] = Counter()
    turns = []
    for place, prompt in enumerate(prompts):
        turns.append((seen[prompt.task], place))
        seen[prompt.task] += 1
    return sorted(place for _, place in sorted(turns)[:count])


def divergences(dense: Answers, sparse: Answers) -> Tensor:
    """Returns the Kullback-Leibler divergence of the first token, nats, float32 [prompts].

    `sum over tokens t of p(t) (log p(t) - log q(t))`, p of the dense, q of the sparse model.
    """
    pairs = zip(dense.first, sparse.first, strict=True)
    return torch.stack([(p.exp() * (p - q)).sum() for p, q in pairs]).clamp(min=0)


def lost_output(dense: Answers, sparse: Answers) -> float:
    """Returns the root mean square over the prompts of the relative change of the logits."""
    pairs = zip(dense.first, sparse.first, strict=True)
    return float(torch.stack([logit_change(p, q) for p, q in pairs]).mean().sqrt())


def agreement(dense: Answers, sparse: Answers) -> float:
    """Returns the percentage of prompts whose most likely first token is the same."""
    pairs = zip(dense.first, sparse.first, strict=True)
    same = [bool(p.argmax() == q.argmax()) for p, q in pairs]
    return 100 * sum(same) / len(same)
