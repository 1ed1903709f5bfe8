"""What a training calls at the ends of its epochs and steps."""

from typing import Any

from photomask.chip.preparation import PreparedModel


class Callback:
    """Does nothing; a subclass overrides what it needs.

    A parameter that a callback freezes (`requires_grad_(False)`) stays as it is; which ones are
    frozen is part of a checkpoint. So is `state`: training that is resumed goes on with it.
    """

    def on_epoch_start(self, prepared: PreparedModel, epoch: int) -> None:
        """Called before the first step of an epoch, counted from 0; the model may be changed."""

    def on_step_end(self, prepared: PreparedModel, step: int) -> None:
        """Called after each step of the optimizer, counted from 0 over all epochs."""

    def on_epoch_end(self, prepared: PreparedModel, epoch: int, loss: float) -> None:
        """Called after the last step of an epoch, with its mean loss, before the checkpoint."""

    def state(self) -> dict[str, Any]:
        """Returns what a resumed training must know, as JSON values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over what `state` returned."""
