"""Opens the study of an exploration in a storage of Optuna, which several processes can share."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from photomask.chip.exploration.identity import StudyIdentity
from photomask.dependencies import OptionalPackage
from photomask.documents import describe_validation
from photomask.errors import DocumentError, UsageError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

PURPOSE = "exploration"
IDENTITY, PRESET = "photomask identity", "preset"
"""The user attributes of a study and of a trial."""
SETUP_SECONDS = 30.0
"""How long to wait for the process that creates a study. It takes well below a second."""
POLL_SECONDS = 0.05


def open_study(
    storage: "BaseStorage | str | Path | None",
    name: str,
    identity: StudyIdentity,
    presets: Mapping[str, dict[str, str]],
    sampler: "BaseSampler",
    pruner: "BasePruner",
) -> "Study":
    """Creates a study with the presets as its first trials, or continues it.

    If several processes open a new study at once, one of them creates it and the others wait.

    Args:
        storage: a path for a journal, the URL of a database, a storage of Optuna, or None for the
            memory of this process.
        name: the name of the study in its storage.
        identity: what the study explores.
        presets: by name, the parameters of the points that are tried first.
        sampler: chooses the parameters of the next trial.
        pruner: stops trials early.

    Raises:
        UsageError: the study explores something else; the message says what differs.
        DocumentError: the storage is damaged or cannot be opened, or the study is not one of
            Photomask.
        MissingDependencyError: Optuna is not installed.
    """
    with OptionalPackage("optuna", "explore", PURPOSE):
        import optuna
    chosen: dict[str, Any] = {"study_name": name, "sampler": sampler, "pruner": pruner}
    up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    directions = [up if each == "accuracy" else down for each in identity.objectives]
    with readable(storage, is_new=True):
        chosen["storage"] = place = _storage(storage)
        try:
            if place is not None and name in optuna.get_all_study_names(place):
                raise optuna.exceptions.DuplicatedStudyError
            study = optuna.create_study(directions=directions, **chosen)
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(**chosen)
            _demand_same(study, identity, storage)
        else:
            for preset, parameters in presets.items():
                study.enqueue_trial(parameters, user_attrs={PRESET: preset})
            study.set_user_attr(IDENTITY, identity.model_dump(mode="json"))
        _repeat_interrupted_presets(study, presets)
    return study


@contextmanager
def readable(storage: object, *, is_new: bool) -> Iterator[None]:
    """Replaces what Optuna and databases raise for storages that they cannot use.

    Args:
        storage: the storage, for the message.
        is_new: True if the storage may be damaged or something else than a storage.

    Raises:
        DocumentError: the storage is damaged, foreign or out of reach.
    """
    import sqlalchemy.exc
    from optuna.exceptions import OptunaError

    errors = (OSError, sqlalchemy.exc.SQLAlchemyError, OptunaError)
    if is_new:
        # A journal may hold any JSON, and Optuna looks for its own fields in it. For a URL whose
        # driver is absent it raises an ImportError.
        errors += (ValueError, KeyError, TypeError, AttributeError, AssertionError, ImportError)
    try:
        yield
    except errors as error:
        raise DocumentError(
            f"{_shown(storage)} cannot be used as the storage of a study "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). Expected a new file, "
            "a journal that an exploration wrote, or the URL of a database whose driver is "
            "installed; if a killed process left half a last line in a journal, remove that line"
        ) from error


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from printing a line for every trial, and warnings for failed ones."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _storage(storage: "BaseStorage | str | Path | None") -> "BaseStorage | str | None":
    from optuna.storages import BaseStorage, JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if storage is None or isinstance(storage, BaseStorage):
        return storage
    if "://" in str(storage):
        return str(storage)
    path = Path(storage)
    if path.is_file():
        _demand_journal(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


def _demand_journal(path: Path) -> None:
    """Refuses a file that is no journal, before Optuna adds lines to it."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is no JSON: {error}") from error
            if not isinstance(entry, dict) or not {"op_code", "worker_id"} <= set(entry):
                raise ValueError(f"line {number} is no operation of Optuna")


def _demand_same(study: "Study", identity: StudyIdentity, storage: object) -> None:
    """Refuses a study of another model, other data or another space.

    Raises:
        UsageError: something differs.
        DocumentError: the study is not one of Photomask.
    """
    name = study.study_name
    found = _identity(study)
    if found is None:
        raise DocumentError(
            f"the study {name!r} in {_shown(storage)} is not one that Photomask began, or its "
            "beginning was interrupted; choose another name or storage"
        )
    try:
        theirs = StudyIdentity.model_validate_json(json.dumps(found))
    except ValidationError as error:
        raise DocumentError(
            f"the study {name!r} in {_shown(storage)} does not say what it explores: "
            f"{describe_validation(error)}; choose another name or storage"
        ) from error
    if different := theirs.differences(identity):
        raise UsageError(
            f"the study {name!r} in {_shown(storage)} explores something else; it differs in: "
            f"{', '.join(different)}. Choose another name or storage, or repeat what it explores"
        )


def _identity(study: "Study") -> Any:
    """Returns what the creator of a study wrote last, and waits for it if nobody has begun."""
    deadline = time.monotonic() + SETUP_SECONDS
    while (found := study.user_attrs.get(IDENTITY)) is None:
        begun = any(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
        if begun or time.monotonic() > deadline:
            return None
        time.sleep(POLL_SECONDS)
    return found


def _repeat_interrupted_presets(study: "Study", presets: Mapping[str, dict[str, str]]) -> None:
    """Enqueues the presets again whose only trials were interrupted."""
    import optuna

    kept, failed = set(), set()
    for trial in study.get_trials(deepcopy=False):
        was_lost = trial.state == optuna.trial.TrialState.FAIL
        (failed if was_lost else kept).add(trial.user_attrs.get(PRESET))
    for preset, parameters in presets.items():
        if preset in failed - kept:
            study.enqueue_trial(parameters, user_attrs={PRESET: preset})


def _shown(storage: object) -> str:
    """Returns the place of a storage without the password of a URL."""
    text = str(storage) if isinstance(storage, (str, Path)) else type(storage).__name__
    if "://" not in text:
        return text
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(text).render_as_string(hide_password=True)
    except ArgumentError:
        return "the URL that was given"
