"""Identifies the model that a plan or statistics belong to, by its shape and its weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from photomask.documents import Document
from photomask.errors import PlanError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

SAMPLES = 256
"""The number of evenly spaced values of each parameter that the fingerprint reads."""

SMALLEST = 2.0**-14
"""Smaller magnitudes count as zero, because float16 does not hold them exactly as bfloat16 does."""

_Count = Annotated[int, Field(ge=1)]


class ModelIdentity(Document):
    """The facts about a model that must agree before statistics and plans are valid for it.

    Attributes:
        model_type: the type in the configuration of the whole model, such as `qwen2_5_vl`. It names
            the family.
        layers: the number of layers of the text tower.
        heads: the number of query heads of a layer.
        kv_heads: the number of key and value heads of a layer.
        head_size: the number of features of a head.
        hidden_size: the number of features of a token between layers.
        vocabulary: the number of tokens that the text tower knows.
        fingerprint: the SHA-256 of the facts above, of every parameter's name and shape, and of a
            sample of its values. The values are rounded to bfloat16, so the fingerprint does not
            depend on the dtype and the device with which the model is loaded. Other weights of the
            same architecture give another fingerprint.
    """

    model_type: str
    layers: _Count
    heads: _Count
    kv_heads: _Count
    head_size: _Count
    hidden_size: _Count
    vocabulary: _Count
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @model_validator(mode="after")
    def _heads_share_keys_evenly(self) -> ModelIdentity:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key and value heads")
        return self

    def check(self, model: Any, what: str, remedy: str) -> None:
        """Checks that a model has this identity.

        Args:
            model: a model of transformers, or its identity.
            what: the thing that belongs to this identity, such as `the plan`. The error names it.
            remedy: a sentence that says what to do. The error ends with it.

        Raises:
            PlanError: the model has another architecture, other weights or another revision.
        """
        identity = model if isinstance(model, ModelIdentity) else identify(model)
        differences = self.differences(identity)
        if differences:
            raise PlanError(
                f"{what} belongs to another model (the value of {what} first, then the model's): "
                f"{'; '.join(differences)}. {remedy}"
            )

    def differences(self, other: ModelIdentity) -> list[str]:
        """Returns a text `field: mine, theirs` for each difference, or an empty list if none."""
        mine, theirs = self.model_dump(), other.model_dump()
        changed = [name for name in mine if mine[name] != theirs[name]]
        if changed == ["fingerprint"]:
            return [
                "same architecture, other weights or another revision (fingerprint "
                f"{self.fingerprint[:12]}…, {other.fingerprint[:12]}…)"
            ]
        return [
            f"{name}: {mine[name]}, {theirs[name]}" for name in changed if name != "fingerprint"
        ]


def identify(model: Any) -> ModelIdentity:
    """Returns the identity of a model of transformers, whether it is converted or not.

    The function reads `SAMPLES` values of each parameter. This takes well under a second for a
    model of 7 billion parameters.

    Args:
        model: the model, on any device and in any floating-point dtype, with its weights loaded.

    Raises:
        UsageError: it is not a model of transformers with a text tower, a weight is not loaded, or
            a quantized weight cannot be dequantized.
    """
    facts = architecture_of(getattr(model, "config", None), type(model).__name__)
    digest = hashlib.sha256(repr(facts).encode())
    parameters = sorted(model.named_parameters())
    for name, parameter in parameters:
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
    digest.update(_sample(parameters))
    return ModelIdentity(**facts, fingerprint=digest.hexdigest())


def architecture_of(config: Any, owner: str) -> dict[str, Any]:
    """Returns the facts of a `ModelIdentity` that a configuration states, without the fingerprint.

    Args:
        config: the configuration of the whole model, from transformers.
        owner: the thing that has this configuration. Errors name it.

    Raises:
        UsageError: the configuration has no text tower.
    """
    choose = getattr(config, "get_text_config", None)
    text = choose() if choose is not None else None
    expected = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")
    if config is None or text is None or not all(hasattr(text, name) for name in expected):
        raise UsageError(
            f"{owner} has no text tower to plan for; expected a vision-language model of "
            "transformers, such as AutoModelForImageTextToText.from_pretrained returns"
        )
    heads = text.num_attention_heads
    return {
        "model_type": config.model_type,
        "layers": text.num_hidden_layers,
        "heads": heads,
        "kv_heads": getattr(text, "num_key_value_heads", None) or heads,
        "head_size": getattr(text, "head_dim", None) or text.hidden_size // heads,
        "hidden_size": text.hidden_size,
        "vocabulary": text.vocab_size,
    }


def _plain(name: str, values: Tensor) -> Tensor:
    """Returns the values of a parameter. A quantized parameter is dequantized.

    Raises:
        UsageError: the parameter is quantized and cannot be dequantized.
    """
    if not is_traceable_wrapper_subclass(values):
        return values
    try:
        return values.dequantize()
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        raise UsageError(
            f"parameter {name} is a {type(values).__name__} that cannot be dequantized ({error}); "
            "make the plan for the model before it is quantized, and quantize other layers"
        ) from error


def _sample(parameters: Iterable[tuple[str, Tensor]]) -> bytes:
    """Returns a few values of every parameter as bfloat16, with one copy from each device.

    Raises:
        UsageError: a parameter has no values, or it cannot be dequantized.
    """
    samples: list[Tensor] = []
    places: dict[torch.device, list[int]] = {}
    for name, parameter in parameters:
        if parameter.is_meta:
            raise UsageError(
                f"parameter {name} has no values (it is on the meta device); load the weights first"
            )
        values = _plain(name, parameter.detach()).reshape(-1)
        values = values[:: max(1, values.numel() // SAMPLES)][:SAMPLES].to(torch.bfloat16)
        places.setdefault(parameter.device, []).append(len(samples))
        samples.append(torch.where(values.abs() < SMALLEST, torch.zeros_like(values), values))
    pieces = [b""] * len(samples)
    for members in places.values():
        joined = torch.cat([samples[place] for place in members]).cpu().view(torch.int16)
        sizes = [samples[place].numel() for place in members]
        for place, piece in zip(members, joined.split(sizes), strict=True):
            pieces[place] = piece.numpy().astype("<i2").tobytes()
    return b"".join(pieces)
