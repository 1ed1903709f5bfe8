"""Kind: the folder of a model of transformers, as far as the package reads it itself."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from photomask.zoo.picture_questions.loading import FOLDER, load_vision_language

from .plain import sha256, tensors_of
from .specimen import Files, Kind, WrongError

SMALL = {
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "layer_types": ["full_attention"] * 2,
        "rope_parameters": {"mrope_section": [2, 3, 3], "rope_theta": 10000.0,
                            "rope_type": "default"},
    },
    "vision_config": {
        "depth": 1,
        "fullatt_block_indexes": [0],
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "out_hidden_size": 32,
    },
}  # fmt: skip
"""What differs from the shipped model's configuration."""
SHARD_BYTES = 48 << 10


def _read(folder: Path) -> Any:
    with _quietly():
        return load_vision_language(folder)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps what transformers says from the terminal."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stderr(nowhere),
        ):
            yield
    finally:
        logging.set_verbosity(before)


def _held(found: Any) -> list[str]:
    """Returns the hash of every weight; the tied ones count once."""
    return sorted(
        _mark(list(tensor.shape), tensor.detach().numpy().tobytes())
        for tensor in found[0].parameters()
    )


def _said(files: Files) -> list[str]:
    """Returns the hash of every tensor of every file; all of them are weights of the model."""
    return sorted(
        _mark(list(array.shape), array.tobytes())
        for name, content in files.items()
        if name.endswith(".safetensors")
        for array in tensors_of(content)[0].values()
    )


def _mark(shape: list[int], content: bytes) -> str:
    return f"{shape} {sha256(content)}"


def _use(found: Any, files: Files) -> None:
    """Reads a prompt without a picture."""
    model, processor = found
    tokens = processor(text=["What does picture 1 show?"], return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens).logits
    if logits.shape[:2] != tokens["input_ids"].shape:
        raise WrongError("not one row of logits for each token")


KINDS = (
    Kind("model folder", _read, _held, _said, weight=1),
    Kind("sharded model", _read, _held, _said, weight=1),
)
"""Neither holds a hash."""


def make(folder: Path) -> None:
    """Writes a good specimen of each kind into a folder of its name."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    fields = Qwen2_5_VLConfig.from_pretrained(FOLDER).to_dict()
    for part, values in SMALL.items():
        fields[part] |= values
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_dict(fields))
    with _quietly():
        model.save_pretrained(folder / "model folder")
        model.save_pretrained(folder / "sharded model", max_shard_size=SHARD_BYTES)
    for kind in KINDS:
        for name in ("chat_template.jinja", "preprocessor_config.json", "tokenizer.json",
                     "tokenizer_config.json"):  # fmt: skip
            shutil.copy(FOLDER / name, folder / kind.name)
