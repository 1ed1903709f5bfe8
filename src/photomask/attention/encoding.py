"""A prompt as the tensors that a model takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from photomask.errors import DataError
from photomask.prompts import Prompt


def encode(
    processor: Any, prompt: Prompt, device: torch.device | str = "cpu", answer: bool = False
) -> dict[str, Tensor]:
    """Turns one prompt into a model's inputs, by the processor's own chat template.

    Args:
        processor: of the model, from transformers.
        prompt: text and pictures.
        device: where the tensors are wanted.
        answer: append the prompt's answer, so that one pass tells whether greedy decoding would
            give it.

    Returns:
        `input_ids` [1, L] and what else the processor makes of the pictures.

    Raises:
        DataError: the processor refuses the prompt, or there is no answer to append.
    """
    if answer and prompt.answer is None:
        raise DataError(f"a prompt of task {prompt.task!r} has no answer")
    images = prompt.images()
    try:
        text = processor.apply_chat_template(
            prompt.messages(), tokenize=False, add_generation_prompt=True
        )
        text += prompt.answer if answer else ""
        inputs = processor(text=[text], images=images or None, return_tensors="pt")
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise DataError(
            f"{type(processor).__name__} refuses a prompt of task {prompt.task!r} with "
            f"{len(images)} pictures: {error}"
        ) from error
    return {name: value.to(device) for name, value in inputs.items() if isinstance(value, Tensor)}
