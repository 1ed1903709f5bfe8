"""The table of model families. A row says how a family places images among the tokens."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from photomask.errors import UsageError


class Delimiters(enum.Enum):
    """How a family marks where an image starts and ends."""

    NAMED = "the configuration names both tokens"
    NEIGHBOURS = "always the tokens directly before and behind, which no configuration names"
    NONE = "there are none; only the processor knows where an image ends"


Lengths = dict[str, list[int]]
"""The number of tokens of each image ("image") and video segment ("video"), in batch order."""

_LengthRule = Callable[[Any, Mapping[str, Any]], Lengths]


@dataclass(frozen=True)
class Family:
    """A model family of transformers.

    Attributes:
        name: the name that messages use.
        model_types: the values of `model_type` in the configurations of the family.
        delimiters: how the family marks images.
        lengths: a function of the configuration and the processor's output. It returns the number
            of tokens of each image, and leaves out modalities that the processor says nothing of.
        start_id: the attribute of the configuration that holds the id of the start delimiter.
        end_id: the attribute that holds the id of the end delimiter.
        bidirectional: whether the tokens of an image see each other in both directions.
    """

    name: str
    model_types: tuple[str, ...]
    delimiters: Delimiters
    lengths: _LengthRule
    start_id: str = ""
    end_id: str = ""
    bidirectional: bool = False


def _qwen2_lengths(config: Any, processed: Mapping[str, Any]) -> Lengths:
    """Returns the lengths if each image and each video is one segment."""
    lengths: Lengths = {}
    for modality in ("image", "video"):
        grids = processed.get(f"{modality}_grid_thw")
        if grids is not None:
            merged = config.vision_config.spatial_merge_size**2
            lengths[modality] = [t * h * w // merged for t, h, w in grids.tolist()]
    return lengths


def _qwen3_lengths(config: Any, processed: Mapping[str, Any]) -> Lengths:
    """Returns the lengths if each image and each frame of a video is one segment."""
    lengths = _qwen2_lengths(config, processed)
    if "video" in lengths:
        grids = processed["video_grid_thw"].tolist()
        merged = config.vision_config.spatial_merge_size**2
        lengths["video"] = [h * w // merged for t, h, w in grids for _ in range(t)]
    return lengths


def _gemma3_lengths(config: Any, processed: Mapping[str, Any]) -> Lengths:
    """Returns the lengths if all images have the same one. Crops count as images."""
    pixels = processed.get("pixel_values")
    return {} if pixels is None else {"image": [config.mm_tokens_per_image] * len(pixels)}


def _unknown_lengths(config: Any, processed: Mapping[str, Any]) -> Lengths:
    """Returns no lengths, because the processor does not say how many tiles an image has."""
    del config, processed
    return {}


def _llava_onevision_lengths(config: Any, processed: Mapping[str, Any]) -> Lengths:
    """Returns the lengths of images and videos of LLaVA-OneVision.

    An image is cut into tiles if it is the only one of its prompt. A video is pooled.
    """
    side = config.vision_config.image_size // config.vision_config.patch_size
    lengths: Lengths = {}
    sizes, counts = processed.get("image_sizes"), processed.get("batch_num_images")
    if sizes is not None:
        per_prompt = [1] * len(sizes) if counts is None else torch.as_tensor(counts).tolist()
        tiled = [count == 1 for count in per_prompt for _ in range(count)]
        lengths["image"] = [
            _tiled_length(config, side, *size) if tile else side**2 + 1
            for size, tile in zip(torch.as_tensor(sizes).tolist(), tiled, strict=True)
        ]
    videos = processed.get("pixel_values_videos")
    if videos is not None:
        lengths["video"] = [videos.shape[1] * math.ceil(side / 2) ** 2 + 1] * videos.shape[0]
    for modality, encoded in (processed.get("mm_encoder_outputs") or {}).items():
        # Features that were cut to a chunk of the prompt have no hidden states. They hold all
        # images in one piece, so the boundaries between images are lost.
        if getattr(encoded, "last_hidden_state", None) is not None:
            lengths[modality] = [len(features) for features in encoded.pooler_output]
    return lengths


def _tiled_length(config: Any, side: int, height: int, width: int) -> int:
    """Returns the number of tokens of an image that is cut into tiles.

    They are the tokens of the overview, those of the tiles without their padding, and one newline
    token for each row of the tiles.
    """
    from transformers.image_processing_utils import select_best_resolution

    tile = config.vision_config.image_size
    best = select_best_resolution((height, width), config.image_grid_pinpoints)
    rows, columns = (length // tile * side for length in best)
    if width / height > columns / rows:
        rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
    most_tiles = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    ratio = math.sqrt(rows * columns / (most_tiles * side**2))
    if ratio > 1.1:
        rows, columns = int(rows // ratio), int(columns // ratio)
    return side**2 + rows * (columns + 1)


def _qwen(name: str, model_types: tuple[str, ...], lengths: _LengthRule) -> Family:
    """Returns the row of a Qwen family. These differ in their names and in how a video is cut."""
    ids = ("vision_start_token_id", "vision_end_token_id")
    return Family(name, model_types, Delimiters.NAMED, lengths, *ids)


FAMILIES = (
    _qwen("Qwen2-VL", ("qwen2_vl",), _qwen2_lengths),
    _qwen("Qwen2.5-VL", ("qwen2_5_vl",), _qwen2_lengths),
    _qwen("Qwen3-VL", ("qwen3_vl", "qwen3_vl_moe"), _qwen3_lengths),
    Family(
        "Gemma 3",
        ("gemma3",),
        Delimiters.NAMED,
        _gemma3_lengths,
        start_id="boi_token_id",
        end_id="eoi_token_id",
        bidirectional=True,
    ),
    Family("InternVL", ("internvl",), Delimiters.NEIGHBOURS, _unknown_lengths),
    Family("LLaVA-OneVision", ("llava_onevision",), Delimiters.NONE, _llava_onevision_lengths),
)
"""All supported families."""


def family_of(config: Any) -> Family:
    """Returns the family of a model's configuration.

    Raises:
        UsageError: no family has this model type.
    """
    model_type = getattr(config, "model_type", None)
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    supported = ", ".join(name for family in FAMILIES for name in family.model_types)
    raise UsageError(
        f"model type {model_type!r} ({type(config).__name__}) is not supported; supported are the "
        f"vision-language models {supported}"
    )
