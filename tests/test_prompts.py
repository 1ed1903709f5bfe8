from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photomask.errors import DataError, DocumentError
from photomask.prompts import Prompt, read_prompts, write_prompts


def _picture(shade: int) -> Image.Image:
    return Image.fromarray(np.full((4, 6, 3), shade, np.uint8))


def test_a_file_gives_back_what_was_written(tmp_path: Path):
    prompts = [
        Prompt(("Picture 1:", _picture(10), _picture(20), "Same?"), "no", "compare"),
        Prompt(('Only text, with a "quote" and ü',)),
    ]
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    first, second = read_prompts(tmp_path / "prompts.jsonl")
    assert (first.task, first.answer, first.content[0]) == ("compare", "no", "Picture 1:")
    pixels = [np.asarray(image)[0, 0, 0] for image in first.images()]
    assert pixels == [10, 20]
    assert second == prompts[1]


def test_messages_keep_the_order_of_text_and_pictures():
    prompt = Prompt(("a", _picture(0), "b"))
    (message,) = prompt.messages()
    kinds = [part["type"] for part in message["content"]]  # pyright: ignore
    assert (message["role"], kinds) == ("user", ["text", "image", "text"])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"content": []}', "line 1: field content: has no part"),
        ('{"content": [{"text": "a", "image": "b"}]}', "either a text or an image"),
        ('{"content": [{}]}', "either a text or an image"),
        ('{"content": [{"text": "a"}], "tsak": "x"}', "tsak"),
        ('{"content": [{"text": 3}]}', "valid string"),
        ("not json", "line 1"),
    ],
)
def test_a_line_that_is_no_prompt_is_refused(tmp_path: Path, line: str, problem: str):
    (tmp_path / "p.jsonl").write_text(line)
    with pytest.raises(DocumentError, match=problem):
        read_prompts(tmp_path / "p.jsonl")


def test_a_missing_picture_is_named_with_its_line(tmp_path: Path):
    (tmp_path / "p.jsonl").write_text('\n{"content": [{"image": "gone.png"}]}')
    with pytest.raises(DataError, match=r"line 2: there is no picture .*gone\.png"):
        read_prompts(tmp_path / "p.jsonl")


def test_an_empty_file_is_refused(tmp_path: Path):
    (tmp_path / "p.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="holds no prompt"):
        read_prompts(tmp_path / "p.jsonl")


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"cannot read the picture .*a\.png"):
        Prompt((tmp_path / "a.png",)).images()
