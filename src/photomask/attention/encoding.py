"""Turns a prompt into the tensors that a model takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from photomask.errors import DataError
from photomask.prompts import Prompt


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as a model takes it.

    Attributes:
        inputs: the outputs of the processor: `input_ids` [1, L], the pictures, and so on.
        answer: the token ids that greedy decoding returns if the answer is right; empty if the
            prompt has no answer.
    """

    inputs: dict[str, Tensor]
    answer: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """The number of tokens of the prompt."""
        return self.inputs["input_ids"].shape[1]

    def with_answer(self) -> dict[str, Tensor]:
        """Returns the inputs of the prompt and the answer behind it, for one pass over both."""
        ids = self.inputs["input_ids"]
        tail = torch.tensor([self.answer], dtype=ids.dtype, device=ids.device)
        longer = dict(self.inputs)
        for name, value in self.inputs.items():
            if value.shape[:2] != ids.shape or value.ndim != 2 or value.is_floating_point():
                continue  # this input does not hold one integer for each token
            # Text has the mask 1 and the token type 0, and so has the last token of the prompt.
            end = tail if name == "input_ids" else value[:, -1:].expand_as(tail)
            longer[name] = torch.cat([value, end.to(value.dtype)], 1)
        return longer


def encode(processor: Any, prompt: Prompt, device: torch.device | str = "cpu") -> EncodedPrompt:
    """Returns the inputs of a model for one prompt, by the processor's own chat template.

    Args:
        processor: the processor of the model, from transformers.
        prompt: the prompt, with its text and pictures.
        device: the device of the returned tensors.

    Raises:
        DataError: the processor refuses the prompt, or the answer of the prompt has no token.
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
        raise DataError(
            f"the answer {prompt.answer!r} of task {prompt.task!r} has no token; give an answer "
            "with text, or None"
        )
    inputs = {name: value.to(device) for name, value in found.items() if isinstance(value, Tensor)}
    return EncodedPrompt(inputs, tuple(answer))
