"""Defines callbacks, which training calls at the ends of its epochs and steps."""

from typing import Any


class Callback:
    """A callback that does nothing; a subclass overrides the methods that it needs.

    A parameter that a callback freezes (`requires_grad_(False)`) keeps its value. Checkpoints hold
    the names of the frozen parameters and the result of `state`, so a resumed training continues
    with both.

    The argument `prepared` is the module that is trained: in quantization-aware training the
    `PreparedModel`, in other trainings the float module.
    """

    def on_epoch_start(self, prepared: Any, epoch: int) -> None:
        """Runs before the first step of an epoch, counted from 0; it may change the model."""

    def on_step_end(self, prepared: Any, step: int) -> None:
        """Runs after each step of the optimizer, counted from 0 over all epochs."""

    def on_epoch_end(self, prepared: Any, epoch: int, loss: float) -> None:
        """Runs after the last step of an epoch, with its mean loss, before the checkpoint."""

    def state(self) -> dict[str, Any]:
        """Returns the state that a resumed training needs, as JSON values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the state that `state` returned."""
