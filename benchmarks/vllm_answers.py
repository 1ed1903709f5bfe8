"""Answers of picture-questions by transformers, for the gate of `vllm_first_token.py`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from photomask.attention import HeadPlan, Pattern, calibrate, convert, encode, plan
from photomask.zoo import picture_questions

CALIBRATION_PROMPTS = 24


def best_plan(device: str) -> tuple[HeadPlan, HeadPlan]:
    """Returns a dense plan of the shipped model, and one that calibration decides."""
    model, processor = picture_questions.load_vision_language()
    model = nn.Module.to(model, device)
    prompts = picture_questions.calibration_prompts(CALIBRATION_PROMPTS)
    found = plan(calibrate(model, processor, prompts))
    return HeadPlan.uniform(model, Pattern.DENSE), found


def transformers_answers(
    chosen: HeadPlan | None, questions: int, pictures: int, device: str
) -> list[dict[str, Any]]:
    """Answers questions by transformers, in bfloat16, one at a time.

    Args:
        chosen: the plan; None runs the original model.
        questions: how many of each task.
        pictures: how many each question has.
        device: the device.
    """
    model, processor = picture_questions.load_vision_language()
    model = nn.Module.to(model, device, torch.bfloat16)
    sparse = model if chosen is None else convert(model, chosen)
    found = []
    for prompt in picture_questions.held_out_prompts(questions, pictures=pictures):
        inputs = encode(processor, prompt, device).inputs
        with torch.inference_mode():
            made = sparse.generate(
                **inputs,
                max_new_tokens=2,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        first = made.logits[0][0].float().log_softmax(-1)
        ids = made.sequences[0, inputs["input_ids"].shape[1] :]
        text = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        found.append(
            {
                "task": prompt.task,
                "text": text,
                "right": text == str(prompt.answer).strip(),
                "logprobs": {str(token): float(value) for token, value in enumerate(first)},
            }
        )
    return found


def farthest(found: Sequence[Any], expected: Sequence[Any]) -> float:
    """Returns the median, over questions, of the largest difference of a log-probability.

    Only tokens that both name count, and of these the five likeliest, because the tails of a
    distribution in bfloat16 are rounding.
    """
    differences = []
    for mine, theirs in zip(found, expected, strict=True):
        likeliest = sorted(mine["logprobs"], key=mine["logprobs"].get, reverse=True)[:5]
        both = [token for token in likeliest if token in theirs["logprobs"]]
        apart = [abs(mine["logprobs"][token] - theirs["logprobs"][token]) for token in both]
        differences.append(max(apart, default=float("inf")))
    return sorted(differences)[len(differences) // 2]
