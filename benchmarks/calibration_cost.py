"""What does calibration cost, beside the dense prefill that it measures?

Time and memory of `calibrate` over those of the dense passes alone, on the same prompts: on the
shipped model, and on a GPU also on randomly initialised layers of Qwen2.5-VL-7B's shape with long
prompts. Probing, one prompt in so many, is counted in.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from photomask.attention import EncodedPrompt, SinkRule, calibrate, encode
from photomask.attention.calibration import PASSES_PER_PROBE, PromptMeasurer
from photomask.zoo import picture_questions
from rows import Results, Subject

LAYERS = 4
"""Of the random model; each costs the same."""
IMAGE_TOKENS = 36
"""On each side of an image."""


def main() -> None:
    """Measures on the device that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    cuda = arguments.device.startswith("cuda")
    device = torch.cuda.get_device_name() if cuda else None
    results = Results("calibration_cost")
    torch.set_num_threads(1)
    shipped(
        results,
        arguments,
        Subject("calibration_cost", "photomask", "picture-questions", device=device),
    )
    if cuda:
        for images in (8, 27):
            long_prompts(results, images, device)


def shipped(results: Results, arguments: argparse.Namespace, subject: Subject) -> None:
    """Calibrates the shipped model and runs its dense passes."""
    model, processor = picture_questions.load_vision_language()
    model = model.to(arguments.device)
    prompts = picture_questions.calibration_prompts(arguments.prompts)

    @torch.inference_mode()
    def dense() -> None:
        for prompt in prompts:
            inputs = encode(processor, prompt, arguments.device).inputs
            model(**inputs, use_cache=False, logits_to_keep=1)

    ratios = []
    for _ in range(arguments.repetitions):
        base = seconds(dense)
        ratios.append(seconds(lambda: calibrate(model, processor, prompts)) / base)
    note = f"{len(prompts)} prompts, encoding included in both"
    results.samples(subject, "time over dense prefill", ratios, "ratio", note=note)


def long_prompts(results: Results, images: int, device: str | None) -> None:
    """Measures one long prompt on random layers; probing is added as its share of the passes."""
    model, prompt = random_model(), long_prompt(images)
    measurer = PromptMeasurer(model, SinkRule())
    inputs = {name: value.cuda() for name, value in prompt.inputs.items()}

    @torch.inference_mode()
    def dense() -> None:
        model(**inputs, use_cache=False, logits_to_keep=1)

    def measured(probed: bool = False) -> None:
        measurer.measure(inputs, "0" * 64, 0, "default", probed)

    dense(), measured(True)
    base, base_bytes = min(seconds(dense) for _ in range(3)), peak_bytes(dense)
    plain, probed = (min(seconds(lambda p=p: measured(p)) for _ in range(3)) for p in (False, True))
    share = 1 / (PASSES_PER_PROBE * LAYERS)
    subject = Subject(
        "calibration_cost", "photomask", f"7B layers, {prompt.tokens} tokens", device=device
    )
    note = f"{LAYERS} layers, bfloat16"
    results.number(subject, "dense prefill", base, "s", note=note)
    results.number(subject, "measured over dense", plain / base, "ratio", note=note)
    cost = (plain + share * (probed - plain)) / base
    results.number(subject, "time over dense prefill", cost, "ratio", note=note)
    extra = (peak_bytes(measured) - base_bytes) / prompt.tokens
    results.number(subject, "memory beside dense", extra, "bytes a token", note=note)


def seconds(work: Callable[[], object]) -> float:
    """Returns how long work takes, the device's included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_bytes(work: Callable[[], object]) -> int:
    """Returns the most device memory that work takes."""
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated()


def random_model() -> Any:
    """Returns a few layers of Qwen2.5-VL-7B's shape and a tiny vision tower, bfloat16."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": 1024,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [16, 24, 24],
        },
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "out_hidden_size": 3584,
        "num_heads": 2,
        "intermediate_size": 32,
        "fullatt_block_indexes": [0],
    }
    ids = {
        "image_token_id": 1000,
        "video_token_id": 1001,
        "vision_start_token_id": 1002,
        "vision_end_token_id": 1003,
    }
    torch.manual_seed(0)
    with torch.device("cuda"):
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        return Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16).eval()


def long_prompt(images: int) -> EncodedPrompt:
    """Returns images of 1,296 tokens with 40 tokens of text between them."""
    text = list(range(40))
    ids = list(text)
    for _ in range(images):
        ids += [1002, *[1000] * IMAGE_TOKENS**2, 1003, *text]
    side = 2 * IMAGE_TOKENS
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images * side**2, 3 * 2 * 14 * 14, generator=generator)
    input_ids = torch.tensor([ids])
    inputs = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "mm_token_type_ids": (input_ids == 1000).long(),
        "pixel_values": pixels.bfloat16(),
        "image_grid_thw": torch.tensor([[1, side, side]] * images),
    }
    return EncodedPrompt(inputs, ())


if __name__ == "__main__":
    main()
