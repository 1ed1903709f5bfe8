"""Loads the shipped vision-language model and its processor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomask.dependencies import OptionalPackage
from photomask.documents import read_text
from photomask.errors import DataError, PhotomaskError
from photomask.pretrained import load_pretrained

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

FOLDER = Path(__file__).parent.parent / "weights" / "picture_questions"
"""The folder of the weights, the tokenizer, the chat template and the model card."""


def load_vision_language(folder: Path = FOLDER) -> tuple[Qwen2_5_VLForConditionalGeneration, Any]:
    """Loads the shipped vision-language model, a small Qwen2.5-VL, and its processor.

    The processor takes pictures and text. It is the processor of transformers for this architecture
    without the part for videos, because that part needs torchvision.
    `AutoProcessor.from_pretrained(FOLDER)` needs torchvision for the same reason.

    Args:
        folder: the folder of a checkpoint of the same form; the shipped one by default.

    Returns:
        The model in evaluation mode, float32, on the CPU, and the processor.

    Raises:
        MissingDependencyError: transformers or Pillow is not installed.
        DataError: a file is missing or damaged.
    """
    import torch

    with OptionalPackage("pillow", "attention", "load_vision_language"):
        import PIL  # noqa: F401
    with OptionalPackage("transformers", "attention", "load_vision_language"):
        from transformers import Qwen2_5_VLForConditionalGeneration
    if not (folder / "config.json").is_file():
        raise DataError(f"there is no model in {folder}: reinstall photomask")
    try:
        model = load_pretrained(
            Qwen2_5_VLForConditionalGeneration,
            folder,
            exact=True,
            dtype=torch.float32,
            local_files_only=True,
        )
        processor = _load_processor(folder)
    except PhotomaskError:
        raise
    except Exception as error:
        # The errors of transformers, tokenizers and safetensors have no common base class.
        raise DataError(
            f"{folder} is damaged ({error}): reinstall photomask, or train the model again with "
            "scripts/train_vlm.py"
        ) from error
    return model.eval(), processor


def _load_processor(folder: Path) -> Any:
    with OptionalPackage("transformers", "attention", "load_vision_language"):
        from transformers import AutoTokenizer, Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil
        from transformers.processing_utils import ProcessorMixin

    class PictureProcessor(Qwen2_5_VLProcessor):
        """The processor of transformers without its video processor."""

        def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None = None):
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    return PictureProcessor(
        Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True),
        AutoTokenizer.from_pretrained(folder, local_files_only=True),
        chat_template=read_text(folder / "chat_template.jinja"),
    )
