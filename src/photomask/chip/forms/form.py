"""The protocol that every form keeps: how a program leaves as files for the tools of others."""

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
"""The int64 codes of one sample by input name, with a batch axis of 1."""


@dataclass(frozen=True)
class FormCheck:
    """The result of reading an exported form back.

    Attributes:
        integers: how many integers were compared with the oracle's.
        mismatches: how many of them differ.
        problems: everything else that is wrong, in words, and a description of the first mismatch.
    """

    integers: int
    mismatches: int
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether at least one integer was compared and nothing is wrong."""
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
    """A form of a program: files that the tools of others read.

    An object of any class with these members is a form. Its settings are attributes of the object,
    as with a quantizer. `photomask.chip.export` takes the object, and `check_form` proves that it
    keeps the contract.
    """

    name: ClassVar[str]
    """The name of the form for `--format`: a lower-case identifier."""
    title: ClassVar[str]
    """One line that says what the form is and for whom."""
    place: ClassVar[str]
    """The relative path of its file or folder inside an export of memory images."""

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns the reason why the form cannot express an operator, or None if it can."""
        ...

    def problems(self, program: IntegerProgram) -> list[Problem]:
        """Returns a problem for every step that the form cannot express.

        If the list is empty, `export` succeeds.
        """
        ...

    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> Written_co:
        """Writes a file or folder that appears completely or not at all.

        Args:
            program: the program to write.
            place: the path of the file or folder.
            samples: what the golden vectors are made from. It may be empty if the form has none.

        Returns:
            Whatever the form has to tell about the files that it wrote.

        Raises:
            FormError: names all steps that the form cannot express.
            DataError: the form needs samples and got none.
            ExportError: the place holds something else, or a file could not be written to the disk.
        """
        ...

    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        """Reads back what `export` wrote, runs it, and compares the results with the oracle's.

        Args:
            program: the program that was written.
            place: where it was written.
            samples: the samples to run. Forms whose files hold samples of their own do not need
                them.

        Raises:
            DocumentError: a file is missing, truncated or altered.
            EngineError: the tool that runs the files failed.
            MissingDependencyError: the tool that runs the files is not installed.
        """
        ...


TEXTS = ("name", "title", "place")
METHODS = ("refusal", "problems", "export", "check")


def require_form(value: object) -> None:
    """Raises an error if an object lacks a member of a form, or has one of another kind.

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
    """Returns how messages name a form, or the object that was given instead of one."""
    kind = value if isinstance(value, type) else type(value)
    return f"the form {kind.__qualname__}"


def _listed() -> str:
    return f"the texts {', '.join(TEXTS)} and the methods {', '.join(METHODS)}"
