"""Where a prepared model stands between `prepare` and `convert`.

Every public function that changes or reads a prepared model says by `@changes(...)` what it does to
the calibration. A call in a wrong order is then an error, and never a wrong result:

    prepare → smooth, equalize, … → calibrate → compensate_rounding, reconstruct or train
            → align_to_target → convert

Weights that are written by hand are noticed by a checksum of the weights that the scales were
fitted to. Biases of layers have no scale of their own; they may move by one unit of the sums that
they are added to, to which a program rounds them anyway.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from photomask.chip.graph.module_keys import module_key
from photomask.chip.quantizers import Quantizer
from photomask.chip.target import Target
from photomask.errors import OrderError

P = ParamSpec("P")
R = TypeVar("R")

ORDER = (
    "The order of calls is: prepare; smooth, smooth_products, equalize, scale_salient_channels or "
    "set_constant; calibrate; compensate_rounding, reconstruct or train; align_to_target; convert"
)
UNKNOWN = -1
"""Checksum of weights that nobody has looked at since they were loaded or given scales by hand."""
SHOWN_CALLS = 6
"""Calls that an error names, the last ones."""


class Phase(Enum):
    """How far a prepared model has come."""

    PREPARED = "its scales are not decided"
    CALIBRATED = "its scales are decided"
    ROUNDED = "its weights are rounded to codes already"


class Effect(Enum):
    """What a function does to a calibration, and in which phases it can be called."""

    CALIBRATES = "decides all scales"
    REWRITES = "changes the weights or ranges that calibrate measures, so calibrate follows"
    CORRECTS = "changes biases by what rounding does; before calibrate or after it"
    ROUNDS = "rounds the weights for the scales that calibrate decided"
    TRAINS = "trains weights and scales together"
    ACCEPTS = "takes the weights as a training of the user's own left them"
    KEEPS = "changes how the model is held, and neither weights nor scales"
    ALIGNS = "moves scales to ratios that a target's multipliers hold"
    READS = "needs scales that fit the weights"
    INSPECTS = "measures the float weights"
    LOADS = "takes weights, scales and standing from a file"


UNROUNDED = frozenset({Effect.CALIBRATES, Effect.REWRITES, Effect.CORRECTS, Effect.ROUNDS})
"""What would lose, or find nothing left of, the weights that roundings were chosen for."""
CALIBRATED = frozenset({Effect.ROUNDS, Effect.TRAINS, Effect.ACCEPTS, Effect.ALIGNS, Effect.READS})
"""What needs scales."""
FITTING = (CALIBRATED | {Effect.CORRECTS}) - {Effect.ACCEPTS}
"""What needs the weights that the scales were fitted to, where there are scales."""
FOLDED = frozenset({Effect.ROUNDS, Effect.ALIGNS, Effect.READS})
"""What needs layers without batch norms beside them."""
CHANGING = frozenset(Effect) - {Effect.READS, Effect.INSPECTS, Effect.LOADS}
"""What is remembered, and ends an alignment."""


class Standing(nn.Module):
    """What was done to a prepared model, and whether its scales still fit its weights.

    Attributes:
        record: int64 [2], part of `state_dict`: whether the weights were rounded to codes, and the
            checksum of the weights that the scales were fitted to.
        calls: the functions that changed the model, in order.
        target: whose multipliers the scales were aligned to, or None.
    """

    record: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("record", torch.tensor([0, UNKNOWN]))
        self.calls: tuple[str, ...] = ("prepare",)
        self.target: Target | None = None
        self._ended_by: str | None = None
        self._biases: dict[str, tuple[Tensor, Tensor]] | None = None
        self._aligned = UNKNOWN
        self._depth = 0

    def phase(self, prepared: Any) -> Phase:
        """Returns how far the model has come."""
        if not all(quantizer.is_fitted for quantizer in _quantizers(prepared)):
            return Phase.PREPARED
        return Phase.ROUNDED if bool(self.record[0]) else Phase.CALIBRATED

    def align(self, prepared: Any, target: Target | None) -> None:
        """Remembers the target that scales are aligned to now."""
        self.target = target
        self._aligned = _checksum_of_scales(prepared)

    def settle(self, prepared: Any, *, rounded: bool) -> None:
        """Remembers that the scales fit the weights of now."""
        self._write(rounded, _checksum_of_weights(prepared))
        self._biases = {
            layer.node.name: (
                layer.bias.detach().cpu().clone(),
                layer.unit.cpu(),
            )
            for layer in _layers(prepared)
        }

    @contextmanager
    def call(
        self, name: str, effect: Effect, prepared: Any, *, checked: bool = True
    ) -> Iterator[None]:
        """Checks that a call may come now, and remembers it; calls inside it are part of it.

        A call that fails is remembered where it has changed a weight or a scale.

        Args:
            name: of the function.
            effect: what it does.
            prepared: the model.
            checked: False for a call that may come in any phase this once.

        Raises:
            OrderError: it may not.
        """
        if self._depth:
            yield
            return
        if checked:
            self.demand(name, effect, prepared)
        phase = self.phase(prepared)
        fits = phase is Phase.PREPARED or self._fits(prepared)
        before = _checksums(prepared, phase)
        self._depth += 1
        try:
            yield
        except BaseException:
            if effect in CHANGING and _checksums(prepared, phase) != before:
                self._remember(name, effect, prepared, phase, fits)
            raise
        else:
            if effect in CHANGING:
                self._remember(name, effect, prepared, phase, fits)
        finally:
            self._depth -= 1

    def demand(self, name: str, effect: Effect, prepared: Any) -> None:
        """Refuses a call that cannot come now.

        Raises:
            OrderError: says what was done, what is expected, and the order of calls.
        """
        phase = self.phase(prepared)
        if effect in FOLDED:
            prepared.demand_folded()
        if effect in CALIBRATED and phase is Phase.PREPARED:
            found = f"{self._ended_by} ended the calibration"
            if self._ended_by is None:
                found = "the model was never calibrated"
            self._refuse(name, effect, found, "calibrate(prepared, data)")
        if effect in (UNROUNDED | {Effect.INSPECTS}) and phase is Phase.ROUNDED:
            self._refuse(
                name,
                effect,
                "the weights are rounded already for the scales of calibrate",
                "a model that is prepared anew, with this call before the rounding",
            )
        if effect not in FITTING or phase is Phase.PREPARED:
            return
        if not self._fits(prepared):
            self._refuse(
                name,
                effect,
                "weights were changed by hand since their scales were decided",
                "fit_biases(prepared) after a training loop of your own, calibrate(prepared, data) "
                "after any other change",
            )
        if effect is Effect.READS and not self._is_aligned(prepared):
            self._refuse(
                name,
                effect,
                f"weights or scales were changed since they were aligned to {self._target_name}",
                "align_to_target(prepared, target)",
            )

    def _fits(self, prepared: Any) -> bool:
        """Tells whether the weights are those that the scales were fitted to."""
        now, fitted = _checksum_of_weights(prepared), int(self.record[1])
        if fitted not in (UNKNOWN, now):
            return False
        if self._biases is None or fitted == UNKNOWN:
            self.settle(prepared, rounded=bool(self.record[0]))
        known = self._biases or {}
        return all(
            layer.node.name in known and _is_near(layer.bias, *known[layer.node.name])
            for layer in _layers(prepared)
        )

    def _is_aligned(self, prepared: Any) -> bool:
        return self.target is None or self._aligned == _checksum_of_scales(prepared)

    @property
    def _target_name(self) -> str:
        return repr(self.target.name) if self.target is not None else "a target"

    def _remember(self, name: str, effect: Effect, prepared: Any, phase: Phase, fits: bool) -> None:
        """Notes what a call has made of the model.

        Args:
            name: of the function.
            effect: what it does.
            prepared: as it is now.
            phase: before the call.
            fits: whether the scales fitted the weights before it.
        """
        self.calls = (*self.calls, name)
        if effect is Effect.ALIGNS:
            self.settle(prepared, rounded=phase is Phase.ROUNDED)
            self.align(prepared, self.target)
            return
        self.target = None
        if effect is Effect.REWRITES:
            self._ended_by = self._ended_by if phase is Phase.PREPARED else name
            for quantizer in _quantizers(prepared):
                quantizer.forget()
        if self.phase(prepared) is Phase.PREPARED:
            self._write(False, UNKNOWN)
            return
        rounded = phase is Phase.ROUNDED
        if effect in (Effect.CALIBRATES, Effect.TRAINS) or (effect is Effect.ACCEPTS and not fits):
            rounded = False
        if effect is Effect.ROUNDS:
            rounded = int(self.record[1]) != _checksum_of_weights(prepared)
        if fits or effect in (Effect.CALIBRATES, Effect.TRAINS, Effect.ACCEPTS):
            self.settle(prepared, rounded=rounded)

    def _write(self, rounded: bool, checksum: int) -> None:
        self.record = torch.tensor([int(rounded), checksum], device=self.record.device)

    def _refuse(self, name: str, effect: Effect, found: str, expected: str) -> None:
        done = self.calls[-SHOWN_CALLS:]
        more = "…, " if len(done) < len(self.calls) else ""
        raise OrderError(
            f"{name} cannot come now: it {effect.value}, and {found}. Done so far: "
            f"{more}{', '.join(done)}. Expected: {expected}. {ORDER}"
        )

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Takes over what was saved; a file of an earlier version has scales that fit."""
        state_dict = {f"{prefix}record": torch.tensor([0, UNKNOWN]), **state_dict}
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.calls = (*self.calls, "load_state_dict")
        self.target, self._biases = None, None


def changes(effect: Effect) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a function whose first argument is a prepared model keep to the order of calls.

    Args:
        effect: what the function does to the calibration.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            prepared: Any = args[0] if args else kwargs["prepared"]
            with prepared.standing.call(function.__name__, effect, prepared):
                return function(*args, **kwargs)

        return run

    return decorate


def _quantizers(prepared: Any) -> list[Quantizer]:
    """Returns the quantizers that a prepared model computes with."""
    return list(prepared.used_quantizers().values())


def _checksums(prepared: Any, phase: Phase) -> tuple[int, int] | None:
    """Returns what weights and scales are now; None where nobody will ask."""
    if phase is Phase.PREPARED:
        return None
    return _checksum_of_weights(prepared), _checksum_of_scales(prepared)


def _checksum_of_weights(prepared: Any) -> int:
    """Returns the checksum of all constants but the biases of layers.

    Batch norms that are kept beside layers are left out as well: a pass in training moves them.
    """
    graph = prepared.graph
    tensors = [
        prepared.weights[module_key(name)]
        for name, uses in graph.uses.items()
        if not all(role == "bias" and "weight" in node.constants for node, role in uses)
    ]
    return _checksum((*tensors, *prepared.column_factors.buffers()))


def _layers(prepared: Any) -> list[Any]:
    """Returns the layers whose bias is rounded to units of their sums; none beside batch norms."""
    return [] if prepared.batch_norms else list(prepared.layers())


def _is_near(bias: Tensor, known: Tensor, unit: Tensor) -> bool:
    """Tells whether a bias is within one unit of its layer's sums of what it was."""
    return bool(((bias.detach().cpu() - known).abs() <= unit).all())


def _checksum_of_scales(prepared: Any) -> int:
    tensors = [tensor for q in _quantizers(prepared) for tensor in q.state_dict().values()]
    norms = [prepared.constants_of(n) for n in prepared.graph.nodes if "gain" in n.constants]
    return _checksum((*tensors, *(tensor for constants in norms for tensor in constants.values())))


def _checksum(tensors: tuple[Tensor, ...]) -> int:
    """Returns the CRC-32 of values as float32, which no move to a device or to float64 changes."""
    found = 0
    for tensor in tensors:
        found = zlib.crc32(tensor.detach().cpu().float().contiguous().numpy().data, found)
    return found
