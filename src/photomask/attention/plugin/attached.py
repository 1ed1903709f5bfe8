"""What an attached model keeps: the original model, the handler, and its last prefill."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from photomask.attention.plugin.calls import AttentionCall, AttentionHandler

_WHOLE = "_photomask_attachment"
_PART = "_photomask_attachment_of_whole"


@dataclass(frozen=True, eq=False)
class LastForward:
    """What the layers did in the last forward with tokens of images.

    Attributes:
        calls: the calls of the layers, by the number of the layer; empty before the first such
            forward.
        kernels: the names of the functions that computed a layer, by the number of the layer.
    """

    calls: dict[int, AttentionCall] = field(default_factory=dict)
    kernels: dict[int, tuple[str, ...]] = field(default_factory=dict)


class Attachment:
    """The data that an attached model keeps.

    Attributes:
        original: the model that was given to `attach`.
        handler: the handler of the attention calls.
        last: what the layers did in the last forward with tokens of images.
    """

    def __init__(self, original: nn.Module, handler: AttentionHandler):
        """Keeps the original model and the handler.

        Args:
            original: the model that was given to `attach`.
            handler: the handler of the attention calls.
        """
        self.original: Any = original
        self.handler = handler
        self.last = LastForward()

    def keep_on(self, model: nn.Module, parts: list[nn.Module]) -> None:
        """Stores this on a model and its parts, as a plain attribute and not as a submodule.

        Args:
            model: the attached model.
            parts: the modules inside it that run its text tower.
        """
        model.__dict__[_WHOLE] = self
        for part in parts:
            part.__dict__[_PART] = self

    def __deepcopy__(self, memo: dict[int, Any]) -> Attachment:
        """Returns an attachment to the same original, so that a copied model is attached too."""
        del memo
        return Attachment(self.original, self.handler)


def attachment_of(module: object) -> Attachment | None:
    """Returns the attachment of a whole attached model, or None if the object is none."""
    return getattr(module, "__dict__", {}).get(_WHOLE)


def attachment_around(part: nn.Module) -> Attachment | None:
    """Returns the attachment of the model that a part belongs to, or None if there is none."""
    return part.__dict__.get(_PART)
