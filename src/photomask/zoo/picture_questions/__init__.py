"""A small vision-language model, and questions about several pictures for it.

The model is a Qwen2.5-VL with 3.5 million parameters. `scripts/train_vlm.py` trained it on
questions about 2 to 16 Fashion-MNIST pictures. The card beside its weights states the accuracy for
each kind of question.
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
