"""Explores a search space: trials of Optuna, each of which measures one design point."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from photomask.chip.data import Data
from photomask.chip.exploration.evaluation import Costs, Evaluator, Observe
from photomask.chip.exploration.identity import StudyIdentity
from photomask.chip.exploration.points import DesignPoint, ExploredPoint, Measurement, Metric
from photomask.chip.exploration.results import Exploration, check_objectives
from photomask.chip.exploration.space import SearchSpace
from photomask.chip.exploration.studies import (
    PRESET,
    PURPOSE,
    open_study,
    quiet_optuna,
    readable,
)
from photomask.chip.sites import survey
from photomask.chip.training import TrainingSettings
from photomask.dependencies import OptionalPackage
from photomask.documents import Document
from photomask.errors import (
    PruningError,
    QuantizerError,
    RecipeError,
    TargetError,
    TrainingError,
    UsageError,
)
from photomask.report import Progress, without_progress
from photomask.stages import stage

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


class _BeyondLimitError(Exception):
    """A cost of a design point exceeds its limit."""


class _KnownError(Exception):
    """An earlier trial found the same point infeasible."""


INFEASIBLE = (
    _BeyondLimitError,
    _KnownError,
    PruningError,
    QuantizerError,
    RecipeError,
    TargetError,
    TrainingError,
)
"""The errors that belong to a combination. All others end the exploration."""
POINT = "point"
FINGERPRINT = "fingerprint"
MEASUREMENT = "measurement"
REPEATS = "repeats"
REASON = "infeasible"
"""The user attributes of a trial."""
PATIENCE = 30
"""So many repeated points one after the other end an exploration."""
Kind = TypeVar("Kind", bound=Document)
DEFAULT_OBJECTIVES: tuple[Metric, ...] = ("accuracy", "weight_bytes", "cycles")


@stage(__name__, "explore")
def explore(
    model: nn.Module,
    data: Data,
    space: SearchSpace | None = None,
    *,
    test: Data,
    trials: int,
    storage: "BaseStorage | str | Path | None" = None,
    study_name: str = "exploration",
    objectives: Sequence[Metric] = DEFAULT_OBJECTIVES,
    sampler: "BaseSampler | None" = None,
    pruner: "BasePruner | None" = None,
    training: TrainingSettings | None = None,
    training_data: Data | None = None,
    device: str | torch.device = "cpu",
    progress: Progress = without_progress,
) -> Exploration:
    """Searches recipes, widths, prunings and hardware for points that nothing else dominates.

    Every trial measures one design point: prepare, prune, calibrate, convert, run held-out samples.
    Optuna chooses the points and stores the trials. The recipes of the space are tried first, as
    they are, so the front contains or dominates each of them. A combination that is not possible is
    a trial with the reason and without figures.

    The same call in several processes, on one machine or on several, with the same storage works on
    one study. The same call later continues it.

    Args:
        model: the float model, which is not changed.
        data: the calibration data.
        space: the search space; None for the defaults of `SearchSpace`.
        test: held-out samples with their labels, which are not among the calibration data.
        trials: the number of trials that the study has in the end, over all processes and calls. A
            point that an earlier trial had is not measured again, and does not count. Each further
            process may finish one more, which it had begun. A study ends earlier if the space has
            no more points, or if 30 known points come one after the other.
        storage: a path for a journal file, the URL of a database, such as
            `postgresql://user:password@host/name`, a storage of Optuna, or None for the memory of
            this process.
        study_name: the name of the study in its storage.
        objectives: the metrics that the study improves.
        sampler: chooses the next point; None for Optuna's `TPESampler`. Several processes need
            samplers with different seeds.
        pruner: stops trials early by the accuracy of a part of the samples; None for no stop. It
            needs `accuracy` as the only objective, because Optuna stops only such trials; the
            space's `limits` then keep the costs down.
        training: the settings of a short training after each calibration; None for none.
        training_data: the data of this training, with labels.
        device: where held-out samples run, and the training. Everything else runs on the CPU.
        progress: shows how many trials are done; `photomask.report.show_progress` draws a bar.

    Returns:
        All finished trials of the study, those of other processes included.

    Raises:
        UsageError: an argument is not possible, or the study explores something else.
        DocumentError: the storage is damaged or cannot be reached.
        DataError: the data do not fit the model, or have no labels.
        CaptureError: the model cannot be captured.
        RecipeError: the pattern of a group matches nothing.
        MissingDependencyError: Optuna is not installed.

    Source: Akiba et al. 2019, arXiv:1907.10902, for Optuna; Bergstra et al. 2011, "Algorithms for
    hyper-parameter optimization", NeurIPS, for TPE.
    """
    with OptionalPackage("optuna", "explore", PURPOSE):
        from optuna.pruners import NopPruner
        from optuna.samplers import TPESampler
    space = SearchSpace() if space is None else space
    chosen = check_objectives(objectives)
    _check_arguments(trials, chosen, stops=pruner is not None)
    if (training is None) != (training_data is None):
        raise UsageError("give both training and training_data, or neither")
    lesson = None if training is None or training_data is None else (training, training_data)
    evaluator = Evaluator(model, data, test, lesson, device)
    space.check(survey(evaluator.graph).sites)
    identity = StudyIdentity.of(evaluator, space, chosen)
    with quiet_optuna():
        study = open_study(
            storage,
            study_name,
            identity,
            dict(space.presets()),
            sampler or TPESampler(),
            pruner or NopPruner(),
        )
        objective = _Objective(study, evaluator, space, chosen, stops=pruner is not None)
        with readable(storage, is_new=False):
            wanted = min(trials, space.combinations)
            for _ in progress(range(wanted - _tried(study)), "exploring"):
                if not _try_new_point(study, objective) or _tried(study) >= wanted:
                    break
            return _exploration(study, identity)


def _tried(study: "Study") -> int:
    """Returns the number of trials of a study that did not repeat another."""
    return sum(REPEATS not in trial.user_attrs for trial in _finished(study))


def _try_new_point(study: "Study", objective: "_Objective") -> bool:
    """Runs trials until one has a point that the study did not have.

    Where the sampler proposes a known point, random points follow, because most samplers would
    propose known points again.

    Returns:
        Whether there was a new point. If not, the space is as good as exhausted.
    """
    from optuna.samplers import RandomSampler

    sampler = study.sampler
    try:
        for _ in range(PATIENCE):
            study.optimize(objective, n_trials=1)
            if not objective.repeated:
                return True
            # The number of a trial is its own in all processes, and the same in a repetition.
            study.sampler = RandomSampler(seed=objective.number)
    finally:
        study.sampler = sampler
    return False


def _check_arguments(trials: int, objectives: tuple[Metric, ...], *, stops: bool) -> None:
    """Refuses arguments that cannot be meant.

    Raises:
        UsageError: an argument is not possible.
    """
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise UsageError(f"trials must be a whole number of at least 1, found {trials!r}")
    if stops and objectives != ("accuracy",):
        raise UsageError(
            "a pruner of Optuna stops only the trials of a study with one objective, and it sees "
            f"the accuracy; found the objectives {', '.join(objectives)}. Use accuracy alone, and "
            "keep the costs down by the limits of the search space, or leave the pruner out"
        )


class _Objective:
    """Measures one design point for each trial."""

    def __init__(
        self,
        study: "Study",
        evaluator: Evaluator,
        space: SearchSpace,
        objectives: tuple[Metric, ...],
        *,
        stops: bool,
    ):
        self.study = study
        self.evaluator = evaluator
        self.space = space
        self.objectives = objectives
        self.stops = stops
        self.number = 0
        self.repeated = False

    def __call__(self, trial: "Trial") -> tuple[float, ...]:
        """Returns the figures of a trial's point.

        Raises:
            TrialPruned: the point is infeasible, or the pruner stops the trial.
        """
        from optuna import TrialPruned

        self.number = trial.number
        point = self.space.point(trial)
        trial.set_user_attr(POINT, point.model_dump(mode="json"))
        trial.set_user_attr(FINGERPRINT, point.fingerprint())
        try:
            measurement = self._measurement(trial, point)
        except INFEASIBLE as error:
            trial.set_user_attr(REASON, str(error))
            raise TrialPruned(str(error)) from error
        trial.set_user_attr(MEASUREMENT, measurement.model_dump(mode="json"))
        return measurement.values(self.objectives)

    def _measurement(self, trial: "Trial", point: DesignPoint) -> Measurement:
        """Returns the figures of a point; those of an earlier trial, if it had the same point.

        Raises:
            _KnownError: the earlier trial found the point infeasible.
        """
        earlier = self._earlier(point)
        self.repeated = earlier is not None
        if earlier is not None:
            trial.set_user_attr(REPEATS, earlier.number)
            if REASON in earlier.user_attrs:
                raise _KnownError(str(earlier.user_attrs[REASON]))
            return _document(Measurement, earlier, MEASUREMENT)
        observe = _observer(trial) if self.stops else None
        return self.evaluator.measure(point, check=self._check_limits, observe=observe)

    def _check_limits(self, costs: Costs) -> None:
        for name, limit in self.space.limits.items():
            if costs[name] > limit:
                raise _BeyondLimitError(
                    f"{name} is {costs[name]:,.0f}, beyond the limit of {limit:,.0f}"
                )

    def _earlier(self, point: DesignPoint) -> "FrozenTrial | None":
        """Returns the trial that measured the same point, or found it infeasible, or None."""
        own = point.fingerprint()
        for trial in self.study.get_trials(deepcopy=False):
            attributes = trial.user_attrs
            is_known = MEASUREMENT in attributes or REASON in attributes
            if is_known and REPEATS not in attributes and attributes.get(FINGERPRINT) == own:
                return trial
        return None


def _observer(trial: "Trial") -> Observe:
    """Returns a function that reports accuracies to the pruner, and stops the trial if it says so.

    Raises:
        TrialPruned: from the function, if the pruner stops the trial.
    """
    from optuna import TrialPruned

    def observe(samples: int, accuracy: float) -> None:
        trial.report(accuracy, samples)
        if trial.should_prune():
            raise TrialPruned(f"{accuracy:.2f} % after {samples} samples")

    return observe


def _finished(study: "Study") -> list["FrozenTrial"]:
    """Returns the trials that count: those with figures, infeasible ones, and stopped ones."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _exploration(study: "Study", identity: StudyIdentity) -> Exploration:
    """Returns what the trials of a study found.

    Raises:
        DocumentError: a trial does not hold what an exploration writes.
    """
    from optuna.trial import TrialState

    lost = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return Exploration(
        identity=identity,
        trials=tuple(_explored(trial, identity) for trial in _finished(study)),
        interrupted=len(lost),
    ).sealed()


def _explored(trial: "FrozenTrial", identity: StudyIdentity) -> ExploredPoint:
    attributes = trial.user_attrs
    measurement = None
    if MEASUREMENT in attributes:
        measurement = _document(Measurement, trial, MEASUREMENT)
        outcome = "repeated" if REPEATS in attributes else "measured"
        reason = f"the point of trial {attributes[REPEATS]}" if REPEATS in attributes else ""
    elif REASON in attributes:
        outcome, reason = "infeasible", str(attributes[REASON])
    else:
        step = trial.last_step or 0
        outcome = "stopped"
        reason = f"{trial.intermediate_values.get(step, 0.0):.2f} % after {step} samples"
    return ExploredPoint(
        number=trial.number,
        preset=str(attributes.get(PRESET, "")),
        point=_document(DesignPoint, trial, POINT),
        training=identity.training,
        measurement=measurement,
        outcome=outcome,
        reason=reason,
    )


def _document(kind: type[Kind], trial: "FrozenTrial", name: str) -> Kind:
    """Returns a document that a trial holds.

    Raises:
        DocumentError: it is missing, or of another schema.
    """
    origin = f"attribute {name!r} of trial {trial.number}"
    return kind.parse(json.dumps(trial.user_attrs.get(name)), origin)
