"""Merge unimportant picture tokens (as VisionZip does), with a head plan behind it.

The tokens with the most attention remain, and a few that the others are merged into: Yang et al.
2024, arXiv:2412.04467. The attention here is that among the features of the vision tower.
"""

import torch

from photomask import attention
from photomask.zoo import picture_questions


def prune(features: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns which tokens of a picture remain, bool [n], and the features of all, [n, E]."""
    scores = features @ features.T / features.shape[1] ** 0.5
    received = scores.softmax(-1).mean(0)
    context = kept // 4
    remains = received >= received.topk(kept - context).values[-1]
    others = (~remains).nonzero()[:, 0]
    targets = others[torch.linspace(0, len(others) - 1, context).long()]
    nearest = targets[scores[others][:, targets].argmax(1)]
    nearest[torch.isin(others, targets)] = targets  # each target is its own nearest one
    remains[targets] = True
    members = torch.eye(len(features))[nearest].T  # members[target] marks what is merged into it
    merged = members @ features[others] / members.sum(1, keepdim=True)
    return remains, torch.where(members.any(1, keepdim=True), merged, features)


@torch.inference_mode()
def main() -> None:
    """Answers questions with all tokens, with a third of them, and with the plan too."""
    model, processor = picture_questions.load_vision_language()
    statistics = attention.calibrate(model, processor, picture_questions.calibration_prompts(1))
    plan = attention.plan(statistics)
    sparse = attention.convert(model, plan)
    for question in picture_questions.held_out_prompts(1, pictures=6)[:4]:
        inputs = attention.encode(processor, question).inputs
        vision = {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
        pictures = model.get_image_features(**vision, return_dict=True).pooler_output
        layout = attention.layout_of(model.config, **inputs)
        inside = layout.kind == attention.TokenKind.IMAGE
        embeddings = model.get_input_embeddings()(inputs["input_ids"])
        pruned = [prune(features, 16) for features in pictures]
        embeddings[inside] = torch.cat([features for _, features in pruned])
        kept = torch.ones_like(inside)
        kept[inside] = torch.cat([remains for remains, _ in pruned])
        positions = model.model.get_rope_index(**inputs)[0][:, kept][:, None]
        fewer = {"inputs_embeds": embeddings[kept][None], "position_ids": positions}
        with attention.prompt_layout(sparse, layout.keep(kept)):
            outputs = [model(**inputs), model(**fewer), sparse(**fewer)]
        (prefill,) = attention.last_prefill(sparse).prompts
        dense = sum(map(len, plan.patterns)) * layout.tokens * (layout.tokens + 1) // 2
        pairs = [dense, prefill.causal, prefill.visible]
        words = processor.batch_decode([output.logits[0, -1:].argmax(-1) for output in outputs])
        print(f"{question.answer}: {words} from {' > '.join(map('{:,}'.format, pairs))} pairs")


if __name__ == "__main__":
    main()
