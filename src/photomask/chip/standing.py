"""Records what was done to a prepared model between `prepare` and `convert`.

Every public function that changes or reads a prepared model states by `@changes(...)` what it does
to the calibration. A call in a wrong order is then an error, and never a wrong result:

    prepare → smooth, equalize, … → calibrate → compensate_rounding, reconstruct or train
            → fit_accumulators → align_to_target → convert

The record holds a checksum of the weights that the scales were fitted to, so weights that are
written by hand are noticed. Biases of layers have no scale of their own. They may change by one
unit of the accumulator that they are added to, because a program rounds them to that unit anyway.
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
    "The order of calls is: prepare; prune, smooth, smooth_products, equalize, "
    "scale_salient_channels or set_constant; calibrate; compensate_rounding, reconstruct or train; "
    "fit_accumulators; align_to_target; convert"
)
UNKNOWN = -1
"""The checksum of weights that were loaded, or got scales by hand, and were not checked since."""
SHOWN_CALLS = 6
"""The number of calls that an error names; it names the last ones."""


class Phase(Enum):
    """The phase that a prepared model has reached."""

    PREPARED = "its scales are not decided"
    CALIBRATED = "its scales are decided"
    ROUNDED = "its weights are rounded to codes already"


class Effect(Enum):
    """The effect of a function on the calibration, which decides when it can be called."""

    CALIBRATES = "decides all scales"
    REWRITES = "changes the weights or ranges that calibrate measures, so calibrate follows"
    CORRECTS = "corrects biases for the rounding of the weights"
    ROUNDS = "rounds the weights for the scales that calibrate decided"
    PROJECTS = "projects the weights for the scales that calibrate decided"
    TRAINS = "trains weights and scales together"
    ACCEPTS = "accepts the weights that a training loop of your own has changed"
    KEEPS = "stores batch norms in another way, and keeps what the model computes"
    ALIGNS = "changes scales so that a target's multipliers express their ratios"
    READS = "needs scales that fit the weights"
    INSPECTS = "measures the float weights"
    LOADS = "loads weights, scales and the record of calls from a file"


UNROUNDED = frozenset({Effect.CALIBRATES, Effect.REWRITES, Effect.CORRECTS, Effect.ROUNDS})
"""Effects that need float weights, because they measure them or would discard a rounding."""
CALIBRATED = frozenset(
    {
        Effect.ROUNDS,
        Effect.PROJECTS,
        Effect.TRAINS,
        Effect.ACCEPTS,
        Effect.ALIGNS,
        Effect.READS,
    }
)
"""Effects that need scales."""
FITTING = (CALIBRATED | {Effect.CORRECTS}) - {Effect.ACCEPTS}
"""Effects that need, once there are scales, the weights that the scales were fitted to."""
FOLDED = frozenset({Effect.ROUNDS, Effect.PROJECTS, Effect.ALIGNS, Effect.READS})
"""Effects that need all batch norms folded into the weights."""
CHANGING = frozenset(Effect) - {Effect.READS, Effect.INSPECTS, Effect.LOADS}
"""Effects that are recorded, and that end an alignment."""


class Standing(nn.Module):
    """The record of what was done to a prepared model, and whether its scales fit its weights.

    Attributes:
        record: int64 [2], part of `state_dict`: whether the weights were rounded to codes, and the
            checksum of the weights that the scales were fitted to.
        calls: the functions that changed the model, in order.
        target: the target that the scales were aligned to, or None.
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
        """Returns the phase that the model has reached."""
        if not all(quantizer.is_fitted for quantizer in _quantizers(prepared)):
            return Phase.PREPARED
        return Phase.ROUNDED if bool(self.record[0]) else Phase.CALIBRATED

    def align(self, prepared: Any, target: Target | None) -> None:
        """Records the target that the current scales are aligned to; None for no target."""
        self.target = target
        self._aligned = _checksum_of_scales(prepared)

    def settle(self, prepared: Any, *, rounded: bool) -> None:
        """Records that the scales fit the current weights."""
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
        """Checks that a call is allowed now, and records it; nested calls count as part of it.

        A call that fails is recorded only if it has changed a weight or a scale.

        Args:
            name: the name of the function.
            effect: the effect of the function.
            prepared: the model.
            checked: False skips the check, for a call that is right in any phase.

        Raises:
            OrderError: the call is not allowed now.
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
        """Refuses a call that is not allowed now.

        Raises:
            OrderError: the message says what was done, what is expected, and the order of calls.
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
                "prepare the model anew, and make this call before the rounding",
            )
        if effect not in FITTING or phase is Phase.PREPARED:
            return
        if not self._fits(prepared):
            self._refuse(
                name,
                effect,
                "weights were changed by hand since their scales were decided",
                "fit_biases(prepared) after a training loop of your own, or calibrate(prepared, "
                "data) after any other change",
            )
        if effect is Effect.READS and not self._is_aligned(prepared):
            self._refuse(
                name,
                effect,
                f"weights or scales were changed since they were aligned to {self._target_name}",
                "align_to_target(prepared, target)",
            )

    def _fits(self, prepared: Any) -> bool:
        """Tells whether the weights are still those that the scales were fitted to."""
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
        """Records a call and what it has made of the model.

        Args:
            name: the name of the function.
            effect: the effect of the function.
            prepared: the model after the call.
            phase: the phase of the model before the call.
            fits: whether the scales fitted the weights before the call.
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
        if effect in (Effect.ROUNDS, Effect.PROJECTS):
            rounded |= int(self.record[1]) != _checksum_of_weights(prepared)
        if fits or effect in (Effect.CALIBRATES, Effect.TRAINS, Effect.ACCEPTS):
            self.settle(prepared, rounded=rounded)

    def _write(self, rounded: bool, checksum: int) -> None:
        self.record = torch.tensor([int(rounded), checksum], device=self.record.device)

    def _refuse(self, name: str, effect: Effect, found: str, expected: str) -> None:
        done = self.calls[-SHOWN_CALLS:]
        more = "…, " if len(done) < len(self.calls) else ""
        raise OrderError(
            f"{name} cannot be called now: it {effect.value}, and {found}. Done so far: "
            f"{more}{', '.join(done)}. Expected: {expected}. {ORDER}"
        )

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Loads the record; a file of an earlier version has none, and its scales count as fit."""
        state_dict = {f"{prefix}record": torch.tensor([0, UNKNOWN]), **state_dict}
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.calls = (*self.calls, "load_state_dict")
        self.target, self._biases = None, None


def changes(effect: Effect) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator that checks the order of calls and records each call.

    The first argument of the decorated function must be the prepared model.

    Args:
        effect: the effect of the function on the calibration.
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
    """Returns checksums of the weights and the scales; None where there are no scales yet."""
    if phase is Phase.PREPARED:
        return None
    return _checksum_of_weights(prepared), _checksum_of_scales(prepared)


def _checksum_of_weights(prepared: Any) -> int:
    """Returns the checksum of all constants except the biases of layers.

    Batch norms that are kept beside layers are left out as well, because a forward pass in training
    mode changes their statistics.
    """
    graph = prepared.graph
    tensors = [
        prepared.weights[module_key(name)]
        for name, uses in graph.uses.items()
        if not all(role == "bias" and "weight" in node.constants for node, role in uses)
    ]
    masks = (mask for _, mask in prepared.pruned_layers())
    return _checksum((*tensors, *prepared.column_factors.buffers(), *masks))


def _layers(prepared: Any) -> list[Any]:
    """Returns the layers whose biases are compared; there are none while batch norms are kept."""
    return [] if prepared.batch_norms else list(prepared.layers())


def _is_near(bias: Tensor, known: Tensor, unit: Tensor) -> bool:
    """Tells whether a bias differs from its known value by at most one accumulator unit."""
    return bool(((bias.detach().cpu() - known).abs() <= unit).all())


def _checksum_of_scales(prepared: Any) -> int:
    tensors = [tensor for q in _quantizers(prepared) for tensor in q.state_dict().values()]
    norms = [prepared.constants_of(n) for n in prepared.graph.nodes if "gain" in n.constants]
    return _checksum((*tensors, *(tensor for constants in norms for tensor in constants.values())))


def _checksum(tensors: tuple[Tensor, ...]) -> int:
    """Returns the CRC-32 of the values as float32, which moves and float64 leave unchanged."""
    found = 0
    for tensor in tensors:
        found = zlib.crc32(tensor.detach().cpu().float().contiguous().numpy().data, found)
    return found
