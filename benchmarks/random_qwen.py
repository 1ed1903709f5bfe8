"""Qwen2.5-VL-7B's text model with random weights, and long prompts of many images for it.

Speed does not depend on the values. Errors do: the weights are drawn so that attention is peaked
and weighs in the residual stream, and a wrong mask shows in the logits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

HEADS, KEY_HEADS = 28, 4
KEY_GAIN = 1.5
"""Of the query and key projections: scores have a standard deviation of 2.25."""
VISION = {
    "depth": 1,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 32,
    "fullatt_block_indexes": [0],
}
"""Never run."""


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        sizes: of the text model.
        mrope_section: how its rotary features are shared out.
        ids: of tokens, by their names in the configuration; text is below all of them.
        side: of an image, in tokens.
        first_text: tokens before the first image.
        between_text: tokens between two images.
        last_text: the fewest tokens behind the last image.
        layers: of the text model.
        tokens: lengths of prompts, unless others are asked for.
        gate_tokens: length of the prompt on which models are compared.
    """

    sizes: Mapping[str, int]
    mrope_section: tuple[int, int, int]
    ids: Mapping[str, int]
    side: int
    first_text: int
    between_text: int
    last_text: int
    layers: int
    tokens: tuple[int, ...]
    gate_tokens: int


def _ids(first: int) -> dict[str, int]:
    names = {"vision_start": 0, "vision_end": 1, "image": 3, "video": 4}
    return {f"{name}_token_id": first + place for name, place in names.items()}


SCALES = {
    "7b": Scale(
        {"hidden_size": 3584, "intermediate_size": 18944, "vocab_size": 152064},
        (16, 24, 24),
        _ids(151652),
        36,
        32,
        40,
        256,
        28,
        (36864, 73728, 131072),
        3000,
    ),
    "tiny": Scale(
        {"hidden_size": 448, "intermediate_size": 64, "vocab_size": 128},
        (2, 3, 3),
        _ids(120),
        6,
        8,
        5,
        16,
        2,
        (200, 300),
        150,
    ),
}
"""The real one, and one of which any processor makes short work."""


@dataclass(frozen=True)
class LongPrompt:
    """One prompt, its images already encoded.

    Attributes:
        ids: int64 [1, L].
        positions: int64 [3, 1, L], of the rotary embedding.
        places: int64 [M], where the tokens of images are.
        features: [M, hidden], what stands there instead of embeddings.
    """

    ids: Tensor
    positions: Tensor
    places: Tensor
    features: Tensor

    @property
    def tokens(self) -> int:
        """Returns the length."""
        return self.ids.shape[1]


def random_model(scale: Scale, layers: int, device: str) -> Any:
    """Draws a model in bfloat16 on a device, where it is also made."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [*scale.mrope_section]}
    text = {
        **scale.sizes,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "max_position_embeddings": 128000,
        "bos_token_id": None,
        "eos_token_id": None,
        "rms_norm_eps": 1e-6,
        "rope_parameters": rope,
        "tie_word_embeddings": False,
    }
    ids: dict[str, Any] = {**scale.ids}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config={**VISION, "out_hidden_size": scale.sizes["hidden_size"]},
        tie_word_embeddings=False,
        **ids,
    )
    with torch.device("meta"):
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    model.to(torch.bfloat16).to_empty(device=device)
    tower = model.model.language_model
    tower.rotary_emb = type(tower.rotary_emb)(config.text_config).to(device)
    model.set_attn_implementation("sdpa")
    draw(model, torch.Generator(device).manual_seed(0))
    return model.eval().requires_grad_(False)


@torch.no_grad()
def draw(model: Any, generator: torch.Generator) -> None:
    """Fills every parameter; what goes through keeps a standard deviation near 1."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(float(name.endswith("weight")))
            continue
        deviation = 1.0 if "embed_tokens" in name else parameter.shape[-1] ** -0.5
        if "q_proj" in name or "k_proj" in name:
            deviation *= KEY_GAIN
        parameter.normal_(std=deviation, generator=generator)


def long_prompt(scale: Scale, tokens: int, model: Any) -> LongPrompt:
    """Makes a prompt of as many images as fit, on the device of a model.

    Args:
        scale: of the parts.
        tokens: length.
        model: finds the positions.
    """
    ids, images = [1] * scale.first_text, 0
    start, end, image = (
        scale.ids[f"{name}_token_id"] for name in ("vision_start", "vision_end", "image")
    )
    while len(ids) + scale.side**2 + 2 + scale.between_text < tokens - scale.last_text:
        ids += [start, *[image] * scale.side**2, end, *[1] * scale.between_text]
        images += 1
    ids += [1] * (tokens - len(ids))
    generator = torch.Generator().manual_seed(tokens)
    found = torch.tensor([ids])
    text = torch.randint(2, start, found.shape, generator=generator)
    found = torch.where(found == 1, text, found)
    merged = model.config.vision_config.spatial_merge_size * scale.side
    inside = found == image
    positions, _ = model.model.get_rope_index(
        found,
        mm_token_type_ids=inside.int(),
        image_grid_thw=torch.tensor([[1, merged, merged]] * images),
    )
    places = inside[0].nonzero()[:, 0]
    device = model.device
    features = torch.empty(
        len(places), scale.sizes["hidden_size"], dtype=torch.bfloat16, device=device
    ).normal_(generator=torch.Generator(device).manual_seed(tokens))
    return LongPrompt(found.to(device), positions.to(device), places.to(device), features)
