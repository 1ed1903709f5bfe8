"""What every form of a program says and does, and how a user names one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from photomask.chip.forms.writers import Problem
from photomask.chip.operators import Operator
from photomask.chip.program import IntegerProgram
from photomask.documents import Document
from photomask.errors import FormError

Written_co = TypeVar("Written_co", covariant=True)
Sample = dict[str, np.ndarray]
"""int64 codes of one sample by input name, batch axis 1."""


@dataclass(frozen=True)
class FormCheck:
    """What came of reading a form back.

    Attributes:
        integers: how many integers were compared with the oracle's.
        mismatches: how many of them differ.
        problems: what else is wrong, in words; also the first mismatch.
    """

    integers: int
    mismatches: int
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether something was compared and nothing is wrong."""
        return self.integers > 0 and not self.mismatches and not self.problems

    def document(self, form: str) -> "FormCheckDocument":
        """Returns it as a document.

        Args:
            form: which form was read, by its name.
        """
        return FormCheckDocument(
            form=form,
            integers=self.integers,
            mismatches=self.mismatches,
            problems=self.problems,
            passed=self.passed,
        )

    def __str__(self) -> str:
        lines = [f"problem: {problem}" for problem in self.problems]
        counts = f"{self.integers:,} integers compared, {self.mismatches:,} mismatches"
        return "\n".join([*lines, f"{'PASSED' if self.passed else 'FAILED'}: {counts}"])


class FormCheckDocument(Document):
    """What came of reading a form back, as `photomask chip check --json` writes it.

    Attributes:
        form: which form was read.
        integers: how many integers were compared with the oracle's.
        mismatches: how many of them differ.
        problems: what else is wrong, in words; also the first mismatch.
        passed: whether something was compared and nothing is wrong.
    """

    schema_version: Literal[1] = 1
    form: str
    integers: int
    mismatches: int
    problems: tuple[str, ...]
    passed: bool


@runtime_checkable
class Form(Protocol[Written_co]):
    """A form in which a program leaves: files for the tools of others.

    An object of any class with these members is one; its settings are its own attributes, as those
    of a quantizer are. `photomask.chip.export` takes it, and `check_form` proves that it keeps the
    contract.
    """

    name: ClassVar[str]
    """What `--format` calls it: a lower-case identifier."""
    title: ClassVar[str]
    """One line: what it is and for whom."""
    place: ClassVar[str]
    """Its file or folder inside an export of memory images, a relative path."""

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns why an operator has no such form; None where it has one."""
        ...

    def problems(self, program: IntegerProgram) -> list[Problem]:
        """Returns every step of a program that cannot be expressed; none: `export` succeeds."""
        ...

    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> Written_co:
        """Writes a file or folder that appears whole or not at all.

        Args:
            program: what to write.
            place: where to.
            samples: what golden vectors are made from; may be empty where a form has none.

        Returns:
            What the form tells about what it wrote.

        Raises:
            FormError: names all steps that cannot be expressed.
            DataError: the form needs samples and got none.
            ExportError: the place holds something else, or the disk refused a file.
        """
        ...

    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        """Reads back what `export` wrote, runs it, and compares with the oracle.

        Args:
            program: what was written.
            place: where it was written.
            samples: to run, where the files hold none of their own.

        Raises:
            DocumentError: a file is missing, truncated or altered.
            EngineError: what runs it failed.
            MissingDependencyError: what runs it is not installed.
        """
        ...


TEXTS = ("name", "title", "place")
METHODS = ("refusal", "problems", "export", "check")


def require_form(value: object) -> None:
    """Refuses an object that lacks a member of a form, or has one of another kind.

    Raises:
        FormError: names the member.
    """
    broken = f"{_called(value)} breaks the law of members (a form has {_listed()})"
    if isinstance(value, type):
        raise FormError(f"{broken}: it is a class; give an object of it: {value.__name__}()")
    for member in TEXTS:
        found = getattr(value, member, None)
        if not isinstance(found, str) or not found.strip() or len(found.splitlines()) != 1:
            raise FormError(f"{broken}: {member} is {found!r}, expected one line of text")
    for member in METHODS:
        if not callable(getattr(value, member, None)):
            raise FormError(f"{broken}: it has no method {member!r}")


def _called(value: object) -> str:
    """Returns how messages call a form, or what was given for one."""
    kind = value if isinstance(value, type) else type(value)
    return f"the form {kind.__qualname__}"


def _listed() -> str:
    return f"the texts {', '.join(TEXTS)} and the methods {', '.join(METHODS)}"
