"""Merge unimportant picture tokens (as VisionZip does), with a head plan behind it.

The tokens with the most attention remain, and a few that the others are merged into: Yang et al.
2024, arXiv:2412.04467. The attention here is that among the features of the vision tower.
"""

import torch
from torch import Tensor

from photomask import attention
from photomask.zoo import picture_questions


def prune(features: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Returns which tokens of a picture remain, bool [n], and the features of all, [n, E]."""
    scores = features @ features.T / features.shape[1] ** 0.5
    received = scores.softmax(-1).mean(0)
    context = kept // 4  # so many tokens take in the others
    remains = torch.zeros(len(features), dtype=torch.bool)
    remains[received.topk(kept - context).indices] = True
    others = (~remains).nonzero()[:, 0]
    targets = others[torch.linspace(0, len(others) - 1, context).long()]
    nearest = targets[scores[others][:, targets].argmax(1)]
    nearest[torch.isin(others, targets)] = targets  # each target is its own nearest one
    remains[targets] = True
    members = torch.eye(len(features))[nearest].T  # members[target] marks what is merged into it
    merged = members[targets] @ features[others] / members[targets].sum(1, keepdim=True)
    return remains, features.index_copy(0, targets, merged)


@torch.inference_mode()
def main() -> None:
    """Answers questions with all tokens, with a third of them, and with the plan too."""
    model, processor = picture_questions.load_vision_language()
    samples = picture_questions.calibration_prompts(1)
    plan = attention.plan(attention.calibrate(model, processor, samples))
    sparse = attention.convert(model, plan)
    for question in picture_questions.held_out_prompts(1, pictures=6)[:4]:
        inputs = attention.encode(processor, question).inputs
        pixels, grid = inputs["pixel_values"], inputs["image_grid_thw"]
        pictures = model.get_image_features(pixels, grid, return_dict=True).pooler_output
        layout = attention.layout_of(model.config, **inputs)
        inside = layout.kind == attention.TokenKind.IMAGE
        embeddings = model.get_input_embeddings()(inputs["input_ids"])
        embeddings[inside] = torch.cat(pictures)
        kept = torch.ones_like(inside)
        kept[inside] = torch.cat([prune(features, 16)[0] for features in pictures])
        positions = model.model.get_rope_index(**inputs)[0][:, kept][:, None]
        pruned = {"inputs_embeds": embeddings[kept][None], "position_ids": positions}
        pruned["attention_mask"] = torch.ones(positions.shape[1:], dtype=torch.int64)
        with attention.prompt_layout(sparse, layout.keep(kept)):
            outputs = [model(**inputs), model(**pruned), sparse(**pruned)]
        (prefill,) = attention.last_prefill(sparse).prompts
        heads = sum(map(len, plan.patterns))
        pairs = [heads * layout.tokens * (layout.tokens + 1) // 2, prefill.causal, prefill.visible]
        words = processor.batch_decode([output.logits[0, -1:].argmax(-1) for output in outputs])
        print(f"{question.answer}: {words} from {' > '.join(map('{:,}'.format, pairs))} pairs")


if __name__ == "__main__":
    main()
