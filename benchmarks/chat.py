"""What a user sees of a language model: how often the integers choose the float model's token.

Answers are those that the float model writes greedily. Both models are fed these answers, so one
different choice does not change what comes after it, and all positions can be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smollm2 import LanguageModel

ANSWER = 64
"""Tokens of an answer at most; its end-of-text token counts."""
BATCH = 10
"""Dialogues at a time."""


@dataclass(frozen=True)
class Dialogue:
    """A prompt and what the float model answers.

    Attributes:
        prompt: int64 [count], in the format of the model's chats.
        answer: int64 [count].
    """

    prompt: Tensor
    answer: Tensor


@dataclass(frozen=True)
class Agreement:
    """What two models have in common over the answers of one of them.

    Attributes:
        positions: tokens of all answers.
        top_1: share of positions where both choose the same token.
        first: share of dialogues where both choose the same first token.
        divergence: mean of `KL(float || other)` over all positions, in nats.
        whole: share of dialogues where both choose every token alike.
    """

    positions: int
    top_1: float
    first: float
    divergence: float
    whole: float


def answer(
    language: LanguageModel, questions: Sequence[str], count: int = ANSWER
) -> list[Dialogue]:
    """Returns questions with the answers that the float model writes greedily.

    Args:
        language: the float model, on any device.
        questions: each begins a dialogue of its own.
        count: tokens of an answer at most.
    """
    model, end = language.model, language.tokenizer.eos_token_id
    device = next(model.parameters()).device
    prompts = [language.prompt(question) for question in questions]
    length = max(len(prompt) for prompt in prompts) + count
    texts = torch.full((len(prompts), length), end, device=device)
    for row, prompt in zip(texts, prompts, strict=True):
        row[: len(prompt)] = prompt
    ends = torch.tensor([len(prompt) for prompt in prompts], device=device)
    rows = torch.arange(len(prompts), device=device)
    with torch.no_grad():
        for written in range(count):
            # What fills a row up stands behind the answer, where no earlier token sees it.
            hidden = model.model(input_ids=texts[:, : int(ends.max()) + written]).last_hidden_state
            logits = model.lm_head(hidden[rows, ends + written - 1])
            texts[rows, ends + written] = logits.argmax(dim=-1)
    dialogues = []
    for row, prompt in zip(texts.cpu(), prompts, strict=True):
        written = row[len(prompt) : len(prompt) + count]
        stops = (written == end).nonzero()
        stop = int(stops[0]) + 1 if len(stops) else count
        dialogues.append(Dialogue(prompt.cpu(), written[:stop]))
    return dialogues


def opened_windows(dialogues: Sequence[Dialogue], length: int) -> Tensor:
    """Returns a window for each dialogue that begins with it, int64 [count, length].

    What is left of a window holds the dialogues that follow.
    """
    texts = [torch.cat([dialogue.prompt, dialogue.answer]) for dialogue in dialogues]
    windows = []
    for at in range(len(texts)):
        text = torch.cat(texts[at:] + texts[:at])
        while len(text) < length:
            text = torch.cat([text, text])
        windows.append(text[:length])
    return torch.stack(windows)


def agree(
    model: nn.Module | Callable[[Tensor], Tensor],
    other: Callable[[Tensor], Tensor],
    dialogues: Sequence[Dialogue],
    length: int,
) -> Agreement:
    """Compares the choices of two models over the same answers.

    Args:
        model: tokens [batch, length] to logits; its answers they are.
        other: likewise.
        dialogues: none longer than `length`.
        length: what every text is filled up to; what fills it stands behind the answer.
    """
    same = []
    first = []
    divergence = []
    with torch.no_grad():
        for start in range(0, len(dialogues), BATCH):
            part = dialogues[start : start + BATCH]
            texts = torch.zeros(len(part), length, dtype=torch.int64)
            for row, dialogue in zip(texts, part, strict=True):
                text = torch.cat([dialogue.prompt, dialogue.answer])
                row[: len(text)] = text
            expected, found = model(texts), other(texts)
            for at, dialogue in enumerate(part):
                # The logits before a token choose it.
                begin = len(dialogue.prompt) - 1
                places = slice(begin, begin + len(dialogue.answer))
                p, q = (x[at, places].double().log_softmax(dim=-1) for x in (expected, found))
                q = q.to(p.device)
                equal = p.argmax(dim=-1) == q.argmax(dim=-1)
                same.append(equal.cpu())
                first.append(bool(equal[0]))
                divergence.append((p.exp() * (p - q)).sum(dim=-1).cpu())
    every = torch.cat(same)
    return Agreement(
        positions=len(every),
        top_1=float(every.double().mean()),
        first=sum(first) / len(first),
        divergence=float(torch.cat(divergence).mean()),
        whole=sum(bool(equal.all()) for equal in same) / len(same),
    )
