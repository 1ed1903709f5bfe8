"""Random models of every supported family, of transformers' own classes, and inputs made by hand.

A prompt is a list of parts: a number is so many text tokens, `"image"` an image, `"video"` a video
of two frames. Sizes of images differ where the family allows it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TEXT_IDS = range(5, 50)
PAD = 0
IMAGE = 60
VIDEO = 61
START = 62
END = 63
FAMILY_NAMES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3", "internvl", "llava_onevision")
"""One of each row of the table; `qwen3_vl_moe` exists too."""

WITH_VIDEO = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "llava_onevision")

Prompt = Sequence[int | str]

TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
QWEN_IDS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}


def _qwen2_vl() -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    text = {**TEXT, "hidden_size": 64, "rope_parameters": MROPE}
    vision = {
        "depth": 1,
        "embed_dim": 16,
        "hidden_size": 64,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 4,
    }
    return Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(text_config=text, vision_config=vision, **QWEN_IDS)
    )


def _qwen2_5_vl() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {**TEXT, "hidden_size": 64, "rope_parameters": MROPE}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "out_hidden_size": 64,
        "intermediate_size": 24,
        "num_heads": 2,
        "patch_size": 4,
        "window_size": 16,
        "fullatt_block_indexes": [0],
    }
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision, **QWEN_IDS)
    )


def _qwen3_vl(experts: int = 0) -> Any:
    import transformers

    name = "Qwen3VLMoe" if experts else "Qwen3VL"
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "out_hidden_size": 32,
        "intermediate_size": 24,
        "num_heads": 2,
        "patch_size": 4,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    text = {**TEXT, "rope_parameters": {**MROPE, "mrope_interleaved": True}}
    if experts:
        text |= {"num_experts": experts, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    config = getattr(transformers, f"{name}Config")
    model = getattr(transformers, f"{name}ForConditionalGeneration")
    return model(config(text_config=text, vision_config=vision, **QWEN_IDS))


def _siglip(side: int) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": 4,
        "vision_use_head": False,
    }


def _gemma3(window: int = 24) -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {
        **TEXT,
        "sliding_window": window,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "query_pre_attn_scalar": 16,
    }
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=text,
            vision_config=_siglip(32),
            mm_tokens_per_image=16,
            image_token_index=IMAGE,
            boi_token_index=START,
            eoi_token_index=END,
        )
    )


def _internvl() -> Any:
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": [16, 16],
        "patch_size": [4, 4],
    }
    return InternVLForConditionalGeneration(
        InternVLConfig(
            text_config={**TEXT, "model_type": "qwen2"},
            vision_config=vision,
            image_token_id=IMAGE,
            image_seq_length=4,
        )
    )


def _llava_onevision() -> Any:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    return LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            text_config={**TEXT, "model_type": "qwen2"},
            vision_config=_siglip(16),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=[[16, 16], [16, 32], [32, 16], [32, 32]],
        )
    )


_BUILDERS: dict[str, Callable[[], Any]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": functools.partial(_qwen3_vl, experts=4),
    "gemma3": _gemma3,
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
}


@functools.cache
def tiny_model(family: str) -> Any:
    """Returns a random model in evaluation mode, always the same one: nobody may change it.

    Weights are larger than at initialisation, so that attention is far from uniform.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        model = _BUILDERS[family]()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "newline" in name:
                torch.nn.init.normal_(parameter, std=1.5 * parameter.shape[-1] ** -0.5)
    return model.eval()


@dataclass
class _Parts:
    """What a prompt's parts become: token ids, and the pixels in order."""

    ids: list[int]
    images: list[Any]
    videos: list[Any]


def tiny_inputs(
    family: str, prompts: Sequence[Prompt], padding: str = "left", seed: int = 0
) -> dict[str, Tensor]:
    """Returns what the family's processor would return for prompts of these parts.

    Args:
        family: see `FAMILY_NAMES`.
        prompts: see the module.
        padding: side, when prompts differ in length.
        seed: of pixels, text tokens and image sizes.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [_parts(family, prompt, generator) for prompt in prompts]
    length = max(len(part.ids) for part in parts)
    ids, mask = [], []
    for part in parts:
        missing = length - len(part.ids)
        fill, ones = [PAD] * missing, [1] * len(part.ids)
        left = padding == "left"
        ids.append(fill + part.ids if left else part.ids + fill)
        mask.append([0] * missing + ones if left else ones + [0] * missing)
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    images = [image for part in parts for image in part.images]
    videos = [video for part in parts for video in part.videos]
    inputs |= _pixels(family, parts, images, videos)
    types = (inputs["input_ids"] == IMAGE).long() + 2 * (inputs["input_ids"] == VIDEO).long()
    if family.startswith("qwen"):
        inputs["mm_token_type_ids"] = types
    if family == "gemma3":
        inputs["token_type_ids"] = types
    return inputs


def _parts(family: str, prompt: Prompt, generator: torch.Generator) -> _Parts:
    """Builds one prompt."""
    made = _Parts([], [], [])
    alone = sum(part == "image" for part in prompt) == 1
    for part in prompt:
        if isinstance(part, int):
            ids = torch.randint(TEXT_IDS.start, TEXT_IDS.stop, (part,), generator=generator)
            made.ids += ids.tolist()
        elif part == "image":
            tokens, pixels = _image(family, alone, generator)
            made.images.append(pixels)
            made.ids += _wrapped(family, IMAGE, tokens)
        else:
            tokens, pixels = _video(family, generator)
            made.videos.append(pixels)
            frames = 2 if family.startswith("qwen3_vl") else 1
            for frame in range(frames):
                made.ids += [TEXT_IDS[frame]] * (frames > 1) + _wrapped(family, VIDEO, tokens)
    return made


def _wrapped(family: str, token: int, tokens: int) -> list[int]:
    """Puts delimiters around the tokens of an image, where the family has them."""
    inner = [token] * tokens
    return inner if family == "llava_onevision" else [START, *inner, END]


def _image(family: str, alone: bool, generator: torch.Generator) -> tuple[int, Any]:
    """Returns number of tokens and pixels of an image."""
    if family.startswith("qwen"):
        return _grid(1, generator)
    if family == "gemma3":
        return 16, torch.randn(1, 3, 32, 32, generator=generator)
    if family == "internvl":
        tiles = int(torch.randint(1, 4, (), generator=generator))
        return 4 * tiles, torch.randn(tiles, 3, 16, 16, generator=generator)
    pixels = torch.randn(5, 3, 16, 16, generator=generator)
    # A picture of 32 x 24 in tiles of 32 x 32: overview 16, and 8 rows of 6 tokens and a newline.
    return (16 + 8 * 7, (pixels, (32, 24))) if alone else (17, (pixels, (32, 24)))


def _video(family: str, generator: torch.Generator) -> tuple[int, Any]:
    """Returns number of tokens of a segment and pixels of a video with two time steps."""
    if family.startswith("qwen"):
        tokens, pixels = _grid(2, generator)
        return (tokens // 2 if family.startswith("qwen3_vl") else tokens), pixels
    return 2 * 4 + 1, torch.randn(1, 2, 3, 16, 16, generator=generator)


def _grid(steps: int, generator: torch.Generator) -> tuple[int, Any]:
    """Returns number of tokens, and patches with their grid, of the Qwen families."""
    height, width = (2 * torch.randint(2, 5, (2,), generator=generator)).tolist()
    patches = torch.randn(steps * height * width, 3 * 2 * 4 * 4, generator=generator)
    return steps * height * width // 4, (patches, [steps, height, width])


def _pixels(
    family: str, parts: Sequence[_Parts], images: list[Any], videos: list[Any]
) -> dict[str, Tensor]:
    """Collects pixels of all prompts as the processor does."""
    found: dict[str, Tensor] = {}
    if family.startswith("qwen"):
        for name, items in (("image", images), ("video", videos)):
            if items:
                key = "pixel_values" if name == "image" else "pixel_values_videos"
                found[key] = torch.cat([patches for patches, _ in items])
                found[f"{name}_grid_thw"] = torch.tensor([grid for _, grid in items])
        return found
    if family == "llava_onevision":
        if images:
            found["pixel_values"] = torch.stack([pixels for pixels, _ in images])
            found["image_sizes"] = torch.tensor([size for _, size in images])
            counts = [len(part.images) for part in parts]
            found["batch_num_images"] = torch.tensor(counts)
        if videos:
            found["pixel_values_videos"] = torch.cat(videos)
        return found
    return {"pixel_values": torch.cat(images)} if images else {}
