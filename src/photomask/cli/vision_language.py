"""Vision-language models and prompts by what a user types."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomask.cli.sources import device_of
from photomask.dependencies import OptionalPackage
from photomask.documents import is_file
from photomask.errors import PhotomaskError, UsageError
from photomask.pretrained import check_model_folder, load_pretrained
from photomask.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from torch import nn

ZOO_MODEL = "picture-questions"
"""The model that comes with the package, and its questions."""
ZOO_PURPOSE = "A small Qwen2.5-VL, which answers questions over 2 to 16 pictures of clothes."
ZOO_PROMPTS_PURPOSE = "The questions that this model answers, with their pictures."

FAILED_IMPORT = "Failed to import"
"""How the error begins that transformers makes of an error of an import."""

CALIBRATION_PROMPTS = 48
HELD_OUT_PROMPTS_PER_TASK = 60


def load_vision_language_model(name: str, device: str | None) -> "tuple[nn.Module, Any]":
    """Loads a model and its processor.

    Args:
        name: `picture-questions`, a folder that `save_pretrained` wrote, or an id of the hub.
        device: such as `cuda:0`; None takes a GPU where there is one.

    Raises:
        UsageError: there is no such model or device.
        DataError: the checkpoint lacks a weight of the model.
        DocumentError: the folder holds something that is not to be opened.
        MissingDependencyError: transformers is not installed.
    """
    from torch import nn

    place = device_of(device)
    if name == ZOO_MODEL:
        from photomask.zoo import picture_questions

        model, processor = picture_questions.load_vision_language()
        return nn.Module.to(model, place), processor
    with OptionalPackage("transformers", "attention", "loading a vision-language model"):
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
    check_model_folder(name)
    try:
        AutoConfig.from_pretrained(name)  # one small file tells soonest that there is no model
        processor = AutoProcessor.from_pretrained(name)
        model = load_pretrained(AutoModelForImageTextToText, name, dtype="auto")
    except PhotomaskError:
        raise
    except Exception as error:
        # transformers, tokenizers and safetensors have no common error.
        if isinstance(error, ImportError) or str(error).startswith(FAILED_IMPORT):
            raise UsageError(
                f"cannot load the model {name!r}, because a package that it needs is missing or "
                f"broken: {error}"
            ) from error
        raise UsageError(
            f"cannot load the model {name!r}: {error}\n"
            f"expected {ZOO_MODEL!r}, a folder that save_pretrained wrote, or an id of the hub"
        ) from error
    return nn.Module.to(model, place).eval(), processor


def load_prompts(source: str, *, held_out: bool) -> Sequence[Prompt]:
    """Loads prompts.

    Args:
        source: a file of JSON lines, or `picture-questions`.
        held_out: take the zoo's questions over test pictures, not those over training pictures.

    Raises:
        UsageError: there is no such source.
        DocumentError: a line is not a prompt.
        DataError: a picture is missing, or there is no prompt.
    """
    if source == ZOO_MODEL:
        from photomask.zoo import picture_questions

        if held_out:
            return picture_questions.held_out_prompts(HELD_OUT_PROMPTS_PER_TASK)
        return picture_questions.calibration_prompts(CALIBRATION_PROMPTS)
    path = Path(source)
    if not is_file(path):
        raise UsageError(f"no prompts {source!r}: expected {ZOO_MODEL!r} or a file of JSON lines")
    return read_prompts(path)
