"""Drop picture tokens that resemble others (DivPrune), with a head plan behind it.

Of each picture, those tokens remain whose smallest distance to each other is largest: Alvar et al.
2025, arXiv:2503.02175. The kept tokens have the positions that they had in the whole prompt.
"""

import torch

from photomask import attention
from photomask.zoo import picture_questions


def prune(features: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns which tokens of a picture remain, bool [n], and the features of all, [n, E]."""
    directions = torch.nn.functional.normalize(features, dim=-1)
    distance = 1 - directions @ directions.T
    chosen = [int(distance.clone().fill_diagonal_(torch.inf).amin(1).argmax())]
    nearest = distance[chosen[0]].clone()  # from each token to the nearest chosen one
    while len(chosen) < kept:
        nearest[chosen] = -torch.inf
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distance[chosen[-1]])
    return torch.isin(torch.arange(len(features)), torch.tensor(chosen)), features


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
