"""The table of a form: the function that writes each operator, or the reason why none does."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Concatenate, Generic, ParamSpec, TypeVar

from photomask.chip.operators import Operator
from photomask.chip.program import IntegerProgram, Step
from photomask.errors import FormError

One = TypeVar("One", bound=Operator)
Context = ParamSpec("Context")
Result = TypeVar("Result")


class Writers(Generic[Context, Result]):
    """The functions that write the operators of one form.

    ```python
    C = Writers[[Context], list[str]]("C")


    @C.of(Multiply)
    def multiply(operator: Multiply, context: Context) -> list[str]: ...


    C.refuses(Embedding, "C has no tables of rows")
    ```

    Each operator has one function or one reason. A test walks over all operators of all forms.
    """

    def __init__(self, form: str):
        """Starts a table without functions.

        Args:
            form: how messages name the form.
        """
        self.form = form
        self._functions: dict[type[Operator], Callable[..., Result]] = {}
        self._reasons: dict[type[Operator], str] = {}

    def of(
        self, *operators: type[One]
    ) -> Callable[
        [Callable[Concatenate[One, Context], Result]], Callable[Concatenate[One, Context], Result]
    ]:
        """Registers the decorated function for these operators; it gets the operator first.

        Raises:
            FormError: one of the operators is already written or refused.
        """

        def register(
            function: Callable[Concatenate[One, Context], Result],
        ) -> Callable[Concatenate[One, Context], Result]:
            for operator in operators:
                self._require_new(operator)
                self._functions[operator] = function
            return function

        return register

    def refuses(self, operator: type[Operator], reason: str) -> None:
        """States the reason why the form cannot write an operator.

        Raises:
            FormError: the operator is already written or refused.
        """
        self._require_new(operator)
        self._reasons[operator] = reason

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns the reason why an operator is not written, or None if it is written.

        Raises:
            FormError: the form says neither how it is written nor why it is not.
        """
        if operator in self._functions:
            return None
        if operator not in self._reasons:
            raise FormError(
                f"the form {self.form} neither writes nor refuses {operator.__name__}; register a "
                "function with `of`, or a reason with `refuses`"
            )
        return self._reasons[operator]

    def write(self, operator: Operator, *args: Context.args, **kwargs: Context.kwargs) -> Result:
        """Returns the result of the function that is registered for the operator.

        Raises:
            FormError: the form refuses the operator, or its function refuses this step.
        """
        if (reason := self.refusal(type(operator))) is not None:
            raise FormError(reason)
        return self._functions[type(operator)](operator, *args, **kwargs)

    def _require_new(self, operator: type[Operator]) -> None:
        if operator in self._functions or operator in self._reasons:
            raise FormError(
                f"the form {self.form} writes or refuses {operator.__name__} twice; an operator "
                "has one function or one reason"
            )


@dataclass(frozen=True)
class Problem:
    """Why a form cannot express a step, or an input of the model."""

    step: str
    """The name of the step, or of the input."""
    operator: str
    source: str
    """The file and line of the model's code."""
    reason: str

    def __str__(self) -> str:
        return f"step {self.step!r} ({self.operator}, {self.source}): {self.reason}"


def each_step(
    program: IntegerProgram, write: Callable[[Step], Result]
) -> tuple[list[Result], list[Problem]]:
    """Writes the steps in their order, and continues after those that cannot be written.

    Args:
        program: the program that has the steps.
        write: writes one step; raises `FormError` with the reason if it cannot.

    Returns:
        The results of the steps that were written, and one problem for each of the others.
    """
    results: list[Result] = []
    problems: list[Problem] = []
    for step in program.steps:
        try:
            results.append(write(step))
        except FormError as error:
            problems.append(Problem(step.name, step.operator.kind, step.source, str(error)))
    return results, problems


def require_none(problems: Iterable[Problem], form: str, instead: str = "") -> None:
    """Raises an error if a program has steps that a form cannot express.

    Args:
        problems: the problems of the program.
        form: how messages name the form.
        instead: what a user can do instead, as a clause.

    Raises:
        FormError: lists all problems.
    """
    found = [str(problem) for problem in problems]
    if found:
        raise FormError(
            f"{form} cannot express {len(found)} of the program's steps:\n  "
            + "\n  ".join(found)
            + (f"\n{instead}" if instead else "")
        )
