"""A small vision-language model, and questions over several pictures to ask it.

The model is a Qwen2.5-VL of 3.5 million parameters, trained by `scripts/train_vlm.py` on questions
over 2 to 16 Fashion-MNIST pictures. The card beside its weights says how well it answers which.
"""

from photomask.zoo.picture_questions.loading import load_vision_language
from photomask.zoo.picture_questions.questions import (
    KINDS,
    TASKS,
    Question,
    build_prompt,
    calibration_prompts,
    chance,
    draw_question,
    held_out_prompts,
)

__all__ = [
    "KINDS",
    "TASKS",
    "Question",
    "build_prompt",
    "calibration_prompts",
    "chance",
    "draw_question",
    "held_out_prompts",
    "load_vision_language",
]
