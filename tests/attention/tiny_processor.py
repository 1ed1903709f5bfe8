"""A processor for the random models, which needs no tokenizer and no picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from PIL import Image
from tests.attention.tiny_models import tiny_inputs
from torch import Tensor

from photomask.prompts import Prompt


class TinyProcessor:
    """Turns prompts whose texts are numbers of tokens into inputs of a random model."""

    def __init__(self, family: str):
        self.family = family
        self.calls = 0

    def apply_chat_template(self, messages: Any, **options: object) -> str:
        """Returns the parts of the prompt: numbers of text tokens, and images."""
        assert options == {"tokenize": False, "add_generation_prompt": True}
        return json.dumps([int(part.get("text", -1)) for part in messages[0]["content"]])

    def __call__(
        self, text: list[str], images: Sequence[Image.Image] | None, return_tensors: str
    ) -> dict[str, Tensor]:
        """Makes random pixels that depend on the brightness of the first picture."""
        assert return_tensors == "pt"
        self.calls += 1
        parts = [number if number >= 0 else "image" for number in json.loads(text[0])]
        seed = images[0].getpixel((0, 0)) if images else 0
        assert isinstance(seed, int)
        return tiny_inputs(self.family, [parts], seed=seed)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the numbers of the tokens."""
        return " ".join(map(str, ids))


def tiny_prompt(*images: int, text: int = 4, task: str = "default") -> Prompt:
    """Returns a prompt with a grey picture of each brightness, and text between them."""
    content: list[str | Image.Image] = [str(text)]
    for brightness in images:
        content += [Image.new("L", (4, 4), brightness), str(text)]
    return Prompt(tuple(content), task=task)
