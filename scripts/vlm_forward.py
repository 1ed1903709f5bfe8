"""A fast forward pass for training, with the weights of transformers' model.

Equal to the model's own forward (`train_vlm.py --check` compares them) but for layout: pictures of
one size make one batch, questions share the pictures before them, and only the logits of answers
are computed. Residual sums are float32, products of the dtype that the caller names.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import maybe_mark_dynamic
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from vlm_batches import Layout
from vlm_model import MERGE_SIZE, PATCH_SIZE, PICTURE_SIZE

EPSILON = 1e-6


def _norm(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    x = x.float()
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * weight).to(dtype)


def _apply(x: Tensor, weights: list[Tensor]) -> Tensor:
    return linear(x, *(weight.to(x.dtype) for weight in weights))


def _gated(x: Tensor, gate: list[Tensor], up: list[Tensor], down: list[Tensor]) -> Tensor:
    return _apply(silu(_apply(x, gate)) * _apply(x, up), down)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates heads [B, heads, L, d] by angles [L, d]."""
    low, high = x.float().chunk(2, -1)
    turned = torch.cat((-high, low), -1)
    return (x.float() * cosine + turned * sine).to(x.dtype)


def _weights(layer: nn.Linear) -> list[Tensor]:
    return [layer.weight] if layer.bias is None else [layer.weight, layer.bias]


def vision_heads(
    x: Tensor, weights: list[list[Tensor]], angles: tuple[Tensor, Tensor], heads: int, dtype: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes queries, keys and values of a vision block for pictures [P, patches, width]."""
    norm, qkv = weights[:2]
    parts = _apply(_norm(x, norm[0], dtype), qkv).view(*x.shape[:2], 3, heads, -1)
    query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
    return _rotate(query, *angles), _rotate(key, *angles), value


def text_heads(
    x: Tensor,
    weights: list[list[Tensor]],
    angles: tuple[Tensor, Tensor],
    heads: tuple[int, int],
    dtype: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes queries, keys and values, one for each query head, of sequences [B, L, width]."""
    norm, query_of, key_of, value_of = weights[:4]
    h, (queries, keys) = _norm(x, norm[0], dtype), heads

    def split(projection: list[Tensor], count: int) -> Tensor:
        return _apply(h, projection).view(*x.shape[:2], count, -1).transpose(1, 2)

    key = _rotate(split(key_of, keys), *angles).repeat_interleave(queries // keys, 1)
    value = split(value_of, keys).repeat_interleave(queries // keys, 1)
    return _rotate(split(query_of, queries), *angles), key, value


def finish_block(x: Tensor, mixed: Tensor, weights: list[list[Tensor]], dtype: Any) -> Tensor:
    """Adds what the heads [B, heads, L, d] found, and then the gated layers' output."""
    output, norm, gate, up, down = weights[-5:]
    x = x + _apply(mixed.transpose(1, 2).flatten(2), output)
    return x + _gated(_norm(x, norm[0], dtype), gate, up, down)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attends causally before the questions, and by the bias [questions, L] within them."""
    prefix = query.shape[2] - bias.shape[0]
    before = scaled_dot_product_attention(
        query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], is_causal=True
    )
    asked = scaled_dot_product_attention(query[:, :, prefix:], key, value, attn_mask=bias)
    return torch.cat((before, asked), 2)


def merge(x: Tensor, weights: list[list[Tensor]], dtype: torch.dtype) -> Tensor:
    """Joins the patches of every 2x2 block to one token of the language model."""
    norm, first, second = weights
    x = _norm(x, norm[0], dtype).reshape(len(x), -1, x.shape[2] * MERGE_SIZE**2)
    return _apply(nn.functional.gelu(_apply(x, first)), second)


def to_patches(images: Tensor) -> Tensor:
    """Cuts grey images [P, 1, 28, 28] as the image processor does; gives [P, 196, 24]."""
    grid = PICTURE_SIZE // PATCH_SIZE // MERGE_SIZE
    patches = images.reshape(-1, grid, MERGE_SIZE, PATCH_SIZE, grid, MERGE_SIZE, PATCH_SIZE)
    patches = patches.permute(0, 1, 4, 2, 5, 3, 6).reshape(len(images), -1, 1, PATCH_SIZE**2)
    return patches.expand(-1, -1, 6, -1).flatten(2)  # three colours, two points of time


class FastModel:
    """Runs a transformers model on batches of one layout.

    Args:
        model: whose weights are used, and trained.
        dtype: of products.
        compiled: whether blocks and layers are compiled.
    """

    def __init__(self, model: Any, dtype: torch.dtype, compiled: bool):
        self.model, self.dtype = model, dtype
        self.visual, self.text = model.model.visual, model.model.language_model
        functions = [vision_heads, text_heads, finish_block, merge]
        if compiled:
            functions = [torch.compile(function) for function in functions]
        self.vision_heads, self.text_heads, self.finish_block, self.merge = functions
        self.vision_angles = self._vision_angles()

    def _vision_angles(self) -> tuple[Tensor, Tensor]:
        grid = PICTURE_SIZE // PATCH_SIZE
        rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
        places = torch.stack((rows, columns), -1).float()
        half = grid // MERGE_SIZE
        places = places.reshape(half, MERGE_SIZE, half, MERGE_SIZE, 2).transpose(1, 2)
        places = places.reshape(-1, 2, 1).to(self.model.device)
        angles = (places * self.visual.rotary_pos_emb.inv_freq.float()).flatten(1)
        angles = torch.cat((angles, angles), -1)
        return angles.cos(), angles.sin()

    def see(self, images: Tensor) -> Tensor:
        """Returns the tokens [P, 49, width] of pictures [P, 1, 28, 28]."""
        visual = self.visual
        kernel = visual.patch_embed.proj.weight.flatten(1)
        x = linear(to_patches(images).to(self.dtype), kernel.to(self.dtype)).float()
        maybe_mark_dynamic(x, 0)
        for block in visual.blocks:
            weights = [
                [block.norm1.weight],
                _weights(block.attn.qkv),
                _weights(block.attn.proj),
                [block.norm2.weight],
                *(_weights(getattr(block.mlp, f"{name}_proj")) for name in ("gate", "up", "down")),
            ]
            heads = self.vision_heads(
                x, weights, self.vision_angles, block.attn.num_heads, self.dtype
            )
            x = self.finish_block(x, scaled_dot_product_attention(*heads), weights, self.dtype)
        merger = visual.merger
        weights = [[merger.ln_q.weight], _weights(merger.mlp[0]), _weights(merger.mlp[2])]
        return self.merge(x, weights, self.dtype)

    def answer(self, tokens: Tensor, seen: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Computes the logits of the answers, and of what follows them.

        Args:
            tokens: [B, L].
            seen: what `see` gave for the B * pictures pictures, in order.
            layout: of the sequences.

        Returns:
            Two tensors [B, slots, vocabulary], float32.
        """
        embedding = self.text.embed_tokens.weight
        x = torch.nn.functional.embedding(tokens, embedding).float()
        x = x.index_copy(1, layout.images, seen.float().reshape(len(x), -1, x.shape[2]))
        angles = self._text_angles(layout.positions)
        bias = layout.bias.to(self.dtype)
        maybe_mark_dynamic(x, (0, 1))
        for tensor in angles:
            maybe_mark_dynamic(tensor, 0)
        for layer in self.text.layers:
            attention, gated = layer.self_attn, layer.mlp
            weights = [
                [layer.input_layernorm.weight],
                *(_weights(getattr(attention, f"{name}_proj")) for name in "qkvo"),
                [layer.post_attention_layernorm.weight],
                *(_weights(getattr(gated, f"{name}_proj")) for name in ("gate", "up", "down")),
            ]
            config = self.text.config
            heads = (config.num_attention_heads, config.num_key_value_heads)
            parts = self.text_heads(x, weights, angles, heads, self.dtype)
            x = self.finish_block(x, attend(*parts, bias), weights, self.dtype)
        places = torch.cat((layout.answers - 1, layout.answers))
        logits = linear(_norm(x[:, places], self.text.norm.weight, torch.float32), embedding)
        first, second = logits.chunk(2, 1)
        return first, second

    def _text_angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        rotary = self.text.rotary_emb
        angles = positions[..., None].float() * rotary.inv_freq.float()
        parts = angles.split(rotary.mrope_section, -1)
        angles = torch.cat([part[index % 3] for index, part in enumerate(parts)], -1)
        angles = torch.cat((angles, angles), -1)
        return angles.cos(), angles.sin()
