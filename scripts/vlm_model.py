"""The architecture, the tokenizer and the processor files of the small vision-language model."""

import json
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from photomask.zoo import fashion_mnist
from photomask.zoo.picture_questions import questions

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|unk|>",
)
"""The delimiters of Qwen2.5-VL under their own names, and what stands for an unknown word."""

PIECES = r"\n|[.,:?!]"
"""What is a token of its own beside words, which spaces separate."""

PICTURE_SIZE = 28
PATCH_SIZE = 2
MERGE_SIZE = 2
TOKENS_PER_PICTURE = (PICTURE_SIZE // PATCH_SIZE // MERGE_SIZE) ** 2

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'text' -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Makes a tokenizer of whole words: those of the questions, the answers and the chat roles."""
    texts = ["\n", "system user assistant", "Picture :", *questions.QUESTIONS.values()]
    numbers = [str(number) for number in range(questions.MOST_PICTURES + 1)]
    texts += [*numbers, *questions.KINDS, "yes", "no"]
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" +"), "removed"),
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
        ]
    )
    words = [
        word
        for text in texts
        for word, _ in splitter.pre_tokenize_str(
            text.replace("{first}", "").replace("{second}", "")
        )
    ]
    vocabulary = {
        word: index for index, word in enumerate(dict.fromkeys([*SPECIAL_TOKENS, *words]))
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = splitter
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|unk|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:-1]),
        model_max_length=2048,
    )


def make_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Describes the model: Qwen2.5-VL with fewer, narrower layers and smaller patches."""
    token = tokenizer.convert_tokens_to_ids
    width = 192
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 352,
            "num_hidden_layers": 8,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "initializer_range": 0.04,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": None,
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "initializer_range": 0.04,
            "patch_size": PATCH_SIZE,
            "temporal_patch_size": 2,
            "spatial_merge_size": MERGE_SIZE,
            "window_size": PICTURE_SIZE,
            "out_hidden_size": width,
            "fullatt_block_indexes": [0, 1, 2, 3],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """Builds the model with random weights, float32."""
    return Qwen2_5_VLForConditionalGeneration(make_config(tokenizer))


def save_checkpoint(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Writes a folder that `from_pretrained` and `load_vision_language` read.

    The weights are written as bfloat16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    pixels = PICTURE_SIZE**2
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "size": {"shortest_edge": pixels, "longest_edge": pixels},
        "image_mean": [fashion_mnist.MEAN] * 3,
        "image_std": [fashion_mnist.STANDARD_DEVIATION] * 3,
        "patch_size": PATCH_SIZE,
        "temporal_patch_size": 2,
        "merge_size": MERGE_SIZE,
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
