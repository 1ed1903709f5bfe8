"""The laws that a form keeps, and the check that proves them on a program."""

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from photomask.chip.forms.catalogue import FORMS
from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER
from photomask.chip.forms.form import Form, FormCheck, Sample, require_form
from photomask.chip.forms.golden import random_inputs, single_samples
from photomask.chip.forms.memory.manifest import (
    GOLDEN_FOLDER,
    MANIFEST_FILE,
    MEMORY_FOLDER,
    README_FILE,
)
from photomask.chip.forms.writers import Problem
from photomask.chip.operators import OPERATORS
from photomask.chip.program import IntegerProgram
from photomask.chip.program.program import PROGRAM_FILE, TENSOR_FILE
from photomask.documents import RECORD_FILE
from photomask.errors import (
    BrokenDependencyError,
    FormError,
    MissingDependencyError,
    PhotomaskError,
)

OWN_NAMES = frozenset(
    {
        CONFORMANCE_FOLDER,
        GOLDEN_FOLDER,
        MANIFEST_FILE,
        MEMORY_FOLDER,
        PROGRAM_FILE,
        README_FILE,
        RECORD_FILE,
        TENSOR_FILE,
    }
)
"""The names that an export of memory images uses itself, so that no other form may use them."""
SAMPLES = 2
MOST_FILES = 12
"""At most this many files of a form are damaged, one after the other."""
ALTERED = 8
"""A byte is altered at up to this many places of a file, until the check notices one of them."""


class _BrokenError(Exception):
    """A counterexample to a law."""


@dataclass(frozen=True)
class _Trial:
    """A form and a program to test it on, with a folder for the files that the form writes."""

    form: Form[Any]
    program: IntegerProgram
    samples: Sequence[Sample]
    folder: Path
    problems: list[Problem] = field(default_factory=list)

    def export(self, name: str) -> Path:
        """Exports into a new folder of that name, and returns the place that was written."""
        place = self.folder / name / PurePosixPath(self.form.place)
        place.parent.mkdir(parents=True, exist_ok=True)
        self.form.export(self.program, place, self.samples)
        return place

    def check(self, place: Path) -> FormCheck:
        """Returns what the form's own check says about a place."""
        found = self.form.check(self.program, place, self.samples)
        if not isinstance(found, FormCheck):
            raise _BrokenError(f"check returned {found!r}, expected a FormCheck")
        return found


@dataclass(frozen=True)
class _Law:
    """A law of the contract: what must hold, and the function that looks for a counterexample."""

    name: str
    sentence: str
    test: Callable[[_Trial], None]


def check_form(
    form: Form[Any], program: IntegerProgram, samples: Sequence[Sample] | None = None
) -> list[Problem]:
    """Proves on a program that a form keeps its contract, or says which law it breaks.

    If the form can express the program, the program is exported several times into a temporary
    folder. The files are read back, damaged, and read back again. If the form cannot express it,
    only the laws about problems can be tested. Call this function with a program of each kind.

    Args:
        form: one of your own forms, or a form of the package.
        program: a small program with as many of the operators that the form writes as possible.
        samples: int64 codes by input name, batch axis 1; None makes seeded random samples.

    Returns:
        The problems that the form reports for the program. If there are any, the laws about written
        files were not tested.

    Raises:
        FormError: the form breaks a law. The message names the law and the first counterexample. An
            error that the form's own code raises is reported in the same way.
        MissingDependencyError: a package that the form writes or checks with is not installed.
        BrokenDependencyError: such a package is installed, but cannot be imported.
    """
    require_form(form)
    if samples is None:
        samples = single_samples(program, random_inputs(program, SAMPLES), None)
    with tempfile.TemporaryDirectory() as folder:
        trial = _Trial(form, program, samples, Path(folder))
        for law in _LAWS:
            _run(law, trial)
        for law in (_REFUSED,) if trial.problems else _WRITTEN:
            _run(law, trial)
        return trial.problems


def _run(law: _Law, trial: _Trial) -> None:
    """Tests one law, and also that the test changed neither the program nor its samples."""
    before = trial.program.content_hash()
    samples = copy.deepcopy(list(trial.samples))
    broken = f"the form {trial.form.name!r} breaks the law of {law.name} ({law.sentence})"
    try:
        law.test(trial)
    except _BrokenError as counterexample:
        raise FormError(f"{broken}: {counterexample}") from None
    except (MissingDependencyError, BrokenDependencyError):
        raise
    except Exception as error:
        raise FormError(f"{broken}: it raised {type(error).__name__}: {error}") from error
    if trial.program.content_hash() != before or not _equal(samples, trial.samples):
        raise FormError(
            f"the form {trial.form.name!r} breaks the law of untouched input (no method changes "
            f"the program or a sample): they changed while the law of {law.name} was tested"
        )


def _equal(before: Sequence[Sample], after: Sequence[Sample]) -> bool:
    return all(
        list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)
        for one, other in zip(before, after, strict=True)
    )


def _test_name(trial: _Trial) -> None:
    name = trial.form.name
    if not name.isidentifier() or name != name.lower():
        raise _BrokenError(f"the form's name is {name!r}")
    if any(known.name == name for known in _others(trial.form)):
        raise _BrokenError(f"Photomask already has a form {name!r}")


def _test_place(trial: _Trial) -> None:
    place = PurePosixPath(trial.form.place)
    if place.is_absolute() or ".." in place.parts or "\\" in trial.form.place:
        raise _BrokenError(f"the place {trial.form.place!r} lies outside the export")
    taken = {*OWN_NAMES, *(known.place for known in _others(trial.form))}
    if str(place) in taken or (place.parts and place.parts[0] in taken):
        raise _BrokenError(
            f"the place {trial.form.place!r} is already used by something else in an export"
        )


def _others(form: Form[Any]) -> list[Form[Any]]:
    return [known for known in FORMS if type(known) is not type(form)]


def _test_operators(trial: _Trial) -> None:
    for operator in OPERATORS:
        reason = trial.form.refusal(operator)
        if reason is not None and (not isinstance(reason, str) or not reason.strip()):
            raise _BrokenError(f"the reason of {operator.__name__} is {reason!r}")


def _test_problems(trial: _Trial) -> None:
    found: object = trial.form.problems(trial.program)
    if not isinstance(found, list):
        raise _BrokenError(f"the method problems returned {found!r}, expected a list")
    names = {*trial.program.inputs, *(step.name for step in trial.program.steps)}
    for problem in found:
        if not isinstance(problem, Problem):
            raise _BrokenError(f"the list of problems holds {problem!r}, expected a Problem")
        if problem.step not in names:
            raise _BrokenError(
                f"a problem names {problem.step!r}, which is neither a step nor an input of the "
                "program"
            )
        if not problem.reason.strip():
            raise _BrokenError(f"step {problem.step!r} has a problem without a reason")
        trial.problems.append(problem)
    named = {problem.step for problem in trial.problems}
    for step in trial.program.steps:
        if trial.form.refusal(type(step.operator)) is not None and step.name not in named:
            raise _BrokenError(
                f"the form refuses {type(step.operator).__name__}, but its problems do not name "
                f"the step {step.name!r}"
            )


def _test_refused(trial: _Trial) -> None:
    try:
        trial.export("refused")
    except FormError as error:
        silent = [p.step for p in trial.problems if p.step not in str(error)]
        if silent:
            raise _BrokenError(
                f"the error does not name the step {silent[0]!r}: {error}"
            ) from error
    else:
        raise _BrokenError("export raised no error")
    if left := _files(trial.folder):
        raise _BrokenError(f"export left the file {left[0].name}")


def _test_export(trial: _Trial) -> None:
    place = trial.export("first")
    if not _files(place):
        raise _BrokenError(f"export wrote no file at {trial.form.place}")
    beside = [path for path in _files(trial.folder / "first") if not path.is_relative_to(place)]
    if beside:
        raise _BrokenError(
            f"export also wrote {beside[0].relative_to(trial.folder / 'first')}, outside its place"
        )


def _test_determinism(trial: _Trial) -> None:
    first = trial.folder / "first" / trial.form.place
    expected = _contents(first)
    _demand_equal(_contents(trial.export("second")), expected)
    _demand_equal(_contents(trial.export("first")), expected)


def _demand_equal(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            raise _BrokenError(f"{name or 'the file'} differs between two exports")


def _test_check(trial: _Trial) -> None:
    found = trial.check(trial.folder / "first" / trial.form.place)
    if found.integers < 1:
        raise _BrokenError("the check compared no integers")
    if not found.passed:
        raise _BrokenError(
            f"the check found {found.mismatches} mismatches; {'; '.join(found.problems)}"
        )


def _test_damage(trial: _Trial) -> None:
    place = trial.folder / "first" / trial.form.place
    files = sorted(path for path in _files(place) if path.name != RECORD_FILE)
    step = -(-len(files) // MOST_FILES)
    largest = max(files, key=lambda path: path.stat().st_size)
    is_read = [_is_read(trial, place, path) for path in sorted({largest, *files[::step]})]
    if not any(is_read):
        raise _BrokenError("the check passes when any one of the files is missing")
    if not _notices(trial, place, largest, lambda whole: whole[: len(whole) // 2]):
        raise _BrokenError(
            f"the check passes when the second half of {_named(place, largest)} is missing"
        )


def _is_read(trial: _Trial, place: Path, path: Path) -> bool:
    """Tells whether the form's check reads a file.

    A check that fails when the file is missing reads it. It must then also notice altered bytes.
    """
    if not _notices(trial, place, path, None):
        return False
    size = path.stat().st_size
    if not size:
        return True
    places = sorted({size * part // ALTERED for part in range(ALTERED)})
    for number in places:
        if _notices(trial, place, path, lambda whole, at=number: _altered(whole, at)):
            return True
    raise _BrokenError(
        f"the check passes when a byte of {_named(place, path)} is altered, tried at the offsets "
        f"{places}"
    )


def _notices(
    trial: _Trial, place: Path, path: Path, damage: Callable[[bytes], bytes] | None
) -> bool:
    """Tells whether a check fails on a damaged or removed file, and puts the file back."""
    whole = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(whole))
    try:
        return not trial.check(place).passed
    except PhotomaskError:
        return True
    finally:
        path.write_bytes(whole)


def _altered(whole: bytes, place: int) -> bytes:
    """Returns the bytes with the lowest bit of one changed."""
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


def _named(place: Path, path: Path) -> str:
    return path.relative_to(place).as_posix() if path != place else "the file"


def _files(place: Path) -> list[Path]:
    """Returns the file at a place, or all files below a folder, or an empty list."""
    if place.is_file():
        return [place]
    return [path for path in place.rglob("*") if path.is_file()]


def _contents(place: Path) -> dict[str, bytes]:
    """Returns the content of every file at a place, by its path below the place."""
    return {
        path.relative_to(place).as_posix() if path != place else "": path.read_bytes()
        for path in _files(place)
    }


_LAWS = (
    _Law("the name", "a lower-case identifier that no other form has", _test_name),
    _Law("the place", "a relative path that nothing else in an export has", _test_place),
    _Law("operators", "each is written, or refused with a reason", _test_operators),
    _Law("problems", "they name every step that cannot be expressed, and say why", _test_problems),
)
_REFUSED = _Law(
    "refusal",
    "where there are problems, export raises a FormError that names all these steps, and writes "
    "nothing",
    _test_refused,
)
_WRITTEN = (
    _Law("export", "without problems, export writes its place and nothing else", _test_export),
    _Law("determinism", "two exports give equal bytes, also over each other", _test_determinism),
    _Law("check", "check passes on what export wrote, and compares integers", _test_check),
    _Law(
        "damage",
        "check notices that a file which it reads is missing, cut short or altered",
        _test_damage,
    ),
)
