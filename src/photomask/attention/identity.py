"""Which model a plan or statistics belong to: its shape, and a fingerprint of its weights."""

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
"""Values of each parameter that the fingerprint reads, evenly spaced."""

SMALLEST = 2.0**-14
"""Values below count as zero: float16 does not hold them as bfloat16 does."""

_Count = Annotated[int, Field(ge=1)]


class ModelIdentity(Document):
    """What must agree for statistics and plans to hold for a model.

    Attributes:
        model_type: of the whole model's configuration, such as `qwen2_5_vl`; names the family.
        layers: of the text tower.
        heads: query heads of a layer.
        kv_heads: key and value heads of a layer.
        head_size: features of a head.
        hidden_size: features of a token between layers.
        vocabulary: tokens that the text tower knows.
        fingerprint: SHA-256 over the above, every parameter's name and shape, and a sample of
            its values rounded to bfloat16, so that it does not depend on the dtype and the device
            the model is loaded with, and tells other weights of the same architecture apart.
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
        """Holds that a model is this one.

        Args:
            model: of transformers, or its identity.
            what: belongs to this identity, such as `the plan`; named in the error.
            remedy: what to do instead.

        Raises:
            PlanError: another architecture, other weights or another revision.
        """
        identity = model if isinstance(model, ModelIdentity) else identify(model)
        differences = self.differences(identity)
        if differences:
            raise PlanError(
                f"{what} belongs to another model ({what} first, then the model): "
                f"{'; '.join(differences)}. {remedy}"
            )

    def differences(self, other: ModelIdentity) -> list[str]:
        """Says what differs, one `field: mine, theirs` each; empty for the same model."""
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
    """Identifies a model of transformers, converted or not.

    Reads `SAMPLES` values of each parameter, which takes well under a second for 7B parameters.

    Args:
        model: on any device and in any floating-point dtype, with its weights loaded.

    Raises:
        UsageError: not a model of transformers with a text tower, or a weight is not loaded.
    """
    text = _text_configuration(model)
    heads = text.num_attention_heads
    facts = {
        "model_type": model.config.model_type,
        "layers": text.num_hidden_layers,
        "heads": heads,
        "kv_heads": getattr(text, "num_key_value_heads", None) or heads,
        "head_size": getattr(text, "head_dim", None) or text.hidden_size // heads,
        "hidden_size": text.hidden_size,
        "vocabulary": text.vocab_size,
    }
    digest = hashlib.sha256(repr(facts).encode())
    parameters = sorted(model.named_parameters())
    for name, parameter in parameters:
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
    digest.update(_sample(parameters))
    return ModelIdentity(**facts, fingerprint=digest.hexdigest())


def _text_configuration(model: Any) -> Any:
    """Returns the configuration of the text tower."""
    choose = getattr(getattr(model, "config", None), "get_text_config", None)
    text = choose() if choose is not None else None
    expected = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")
    if text is None or not all(hasattr(text, name) for name in expected):
        raise UsageError(
            f"{type(model).__name__} has no text tower to plan for; expected a vision-language "
            "model of transformers, such as AutoModelForImageTextToText.from_pretrained gives"
        )
    return text


def _plain(name: str, values: Tensor) -> Tensor:
    """Returns the values of a parameter; of a quantized one, what its codes stand for.

    Raises:
        UsageError: it is of a kind that does not tell them.
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
    """Reads a few values of every parameter as bfloat16, with one copy from each device."""
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
