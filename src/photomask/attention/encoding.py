"""A prompt as the tensors that a model takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from photomask.errors import DataError
from photomask.prompts import Prompt


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt, ready for a model.

    Attributes:
        inputs: what the processor makes of it: `input_ids` [1, L], pictures, and so on.
        answer: token ids that greedy decoding gives if the answer is right; empty where the prompt
            has none.
    """

    inputs: dict[str, Tensor]
    answer: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Length of the prompt."""
        return self.inputs["input_ids"].shape[1]

    def with_answer(self) -> dict[str, Tensor]:
        """Returns the inputs with the answer behind the prompt, for one pass over both."""
        ids = self.inputs["input_ids"]
        tail = torch.tensor([self.answer], dtype=ids.dtype, device=ids.device)
        longer = dict(self.inputs)
        for name, value in self.inputs.items():
            if value.shape[:2] != ids.shape or value.ndim != 2 or value.is_floating_point():
                continue  # not one number a token
            # Masks are 1 and token types 0 for text, as for the last token of the prompt.
            end = tail if name == "input_ids" else value[:, -1:].expand_as(tail)
            longer[name] = torch.cat([value, end.to(value.dtype)], 1)
        return longer


def encode(processor: Any, prompt: Prompt, device: torch.device | str = "cpu") -> EncodedPrompt:
    """Turns one prompt into a model's inputs, by the processor's own chat template.

    Args:
        processor: of the model, from transformers.
        prompt: text and pictures.
        device: where the tensors are wanted.

    Raises:
        DataError: the processor refuses the prompt, or its answer has no token.
    """
    images = prompt.images()
    try:
        text = processor.apply_chat_template(
            prompt.messages(), tokenize=False, add_generation_prompt=True
        )
        found = processor(text=[text], images=images or None, return_tensors="pt")
        answer: list[int] = []
        if prompt.answer is not None:
            answer = processor.tokenizer(prompt.answer, add_special_tokens=False)["input_ids"]
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise DataError(
            f"{type(processor).__name__} refuses a prompt of task {prompt.task!r} with "
            f"{len(images)} pictures: {error}"
        ) from error
    if prompt.answer is not None and not answer:
        raise DataError(f"the answer {prompt.answer!r} of task {prompt.task!r} has no token")
    inputs = {name: value.to(device) for name, value in found.items() if isinstance(value, Tensor)}
    return EncodedPrompt(inputs, tuple(answer))
