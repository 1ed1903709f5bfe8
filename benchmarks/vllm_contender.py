"""Runs one engine of vLLM and writes what it measured; `vllm_first_token.py` starts it.

    vllm_contender.py SETTINGS.json RESULT.json

An engine in a process of its own leaves no memory, graph or cache behind for the next one.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }
)
SIDE = 144
"""Pixels of a side of an image, which has 36 x 36 tokens."""
DECODED = 128
"""Tokens that each request of the traffic generates."""


def main(settings_file: str, result_file: str) -> None:
    """Measures what the settings ask for."""
    settings = json.loads(Path(settings_file).read_text())
    if settings["ranks"] == 1:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    engine = Engine(settings)
    measure = {"answers": engine.answers, "first token": engine.first_tokens}
    measure |= {"traffic": engine.traffic, "text": engine.text}
    found = measure[settings["part"]]()
    Path(result_file).write_text(json.dumps(found))


class Engine:
    """An engine of vLLM with or without a plan."""

    def __init__(self, settings: dict[str, Any]):
        import torch
        from transformers import AutoProcessor
        from vllm import LLM  # pyright: ignore[reportMissingImports]

        self._torch, self._settings = torch, settings
        options: dict[str, Any] = {
            "model": settings["model"],
            "dtype": "bfloat16",
            "load_format": settings["load_format"],
            "max_model_len": settings["longest"],
            "max_num_batched_tokens": settings["chunk"],
            "enforce_eager": settings["eager"],
            "enable_prefix_caching": False,
            "mm_processor_cache_gb": 0,
            "limit_mm_per_prompt": {"image": settings["images"], "video": 0},
            "gpu_memory_utilization": settings["memory"],
            "tensor_parallel_size": settings["ranks"],
            "disable_log_stats": False,
            "seed": 0,
        }
        if settings["plan"] is not None:
            options |= {
                "attention_config": {"backend": "CUSTOM"},
                "additional_config": {"photomask": {"plan": settings["plan"]}},
                "hf_overrides": {"is_mm_prefix_lm": True},
            }
        self._engine = LLM(**options)
        self._processor = AutoProcessor.from_pretrained(settings["model"])

    def answers(self) -> list[dict[str, Any]]:
        """Returns the answer to each picture question, and the likeliest first tokens."""
        from photomask.zoo import picture_questions

        prompts = picture_questions.held_out_prompts(
            self._settings["questions"], pictures=self._settings["pictures"]
        )
        requests = [self._request(prompt.messages(), prompt.images()) for prompt in prompts]
        found = []
        for prompt, output in zip(prompts, self._generate(requests, 2, logprobs=20), strict=True):
            first = output.outputs[0].logprobs[0]
            found.append(
                {
                    "task": prompt.task,
                    "text": output.outputs[0].text.strip(),
                    "right": output.outputs[0].text.strip() == str(prompt.answer).strip(),
                    "logprobs": {str(token): each.logprob for token, each in first.items()},
                }
            )
        return found

    def first_tokens(self) -> list[dict[str, Any]]:
        """Times prompts with many images, one alone and several at once."""
        found = []
        for images in self._settings["prompts"]:
            for count in self._settings["requests"]:
                for repetition in range(self._settings["repetitions"] + 1):
                    requests = [self._pictures(images, 97 * repetition + at) for at in range(count)]
                    row = self._timed(requests, 1)
                    row |= {"images": images, "requests": count}
                    if repetition:  # the first pass compiles kernels
                        found.append(row)
        return found

    def traffic(self) -> list[dict[str, Any]]:
        """Times one prompt with many images that comes among requests of text that decode."""
        found = []
        for images in self._settings["prompts"]:
            for repetition in range(self._settings["repetitions"] + 1):
                texts = [self._text(64, at) for at in range(16)]
                requests = [*texts, self._pictures(images, repetition)]
                row = self._timed(requests, DECODED) | {"images": images, "requests": 17}
                if repetition:
                    found.append(row)
        return found

    def text(self) -> list[dict[str, Any]]:
        """Times text alone: prefill and decoding."""
        found = []
        for repetition in range(self._settings["repetitions"] + 1):
            requests = [self._text(512, 100 * repetition + at) for at in range(64)]
            row = self._timed(requests, DECODED) | {"images": 0, "requests": 64}
            if repetition:
                found.append(row)
        return found

    def _timed(self, requests: list[Any], tokens: int) -> dict[str, Any]:
        """Generates, and returns seconds, tokens and memory. Each request ends after `tokens`."""
        torch, alone = self._torch, self._settings["ranks"] == 1
        gc.collect()
        if alone:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
        started = time.perf_counter()
        outputs = self._generate(requests, tokens, ignore_eos=True, detokenize=False)
        seconds = time.perf_counter() - started
        last = outputs[-1]
        return {
            "seconds": seconds,
            "tokens": len(last.prompt_token_ids),
            "generated": sum(len(output.outputs[0].token_ids) for output in outputs),
            "first_token": getattr(last.metrics, "first_token_latency", None),
            "extra_gib": (torch.cuda.max_memory_allocated() - held) / 2**30 if alone else None,
        }

    def _generate(self, requests: list[Any], tokens: int, **options: Any) -> list[Any]:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        sampling = SamplingParams(max_tokens=tokens, temperature=0, **options)
        return self._engine.generate(requests, sampling, use_tqdm=False)

    def _request(self, messages: list[Any], images: list[Any]) -> dict[str, Any]:
        text = self._processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        return {"prompt": text, "multi_modal_data": {"image": images}}

    def _pictures(self, count: int, seed: int) -> dict[str, Any]:
        """Returns a request with images of noise."""
        import numpy as np
        from PIL import Image

        random = np.random.default_rng(seed)
        shape = (SIDE, SIDE, 3)
        images = [
            Image.fromarray(random.integers(0, 255, shape, dtype=np.uint8)) for _ in range(count)
        ]
        content: list[dict[str, str]] = [{"type": "image"} for _ in range(count)]
        content.append({"type": "text", "text": "Same kind?"})
        return self._request([{"role": "user", "content": content}], images)

    def _text(self, tokens: int, seed: int) -> dict[str, Any]:
        """Returns a request of random text."""
        import numpy as np

        ids = np.random.default_rng(seed).integers(10, 60, tokens)
        return {"prompt_token_ids": [int(each) for each in ids]}


if __name__ == "__main__":
    main(*sys.argv[1:])
