"""The C form: a project of sources, golden vectors, and a Makefile that compares them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from photomask.chip.forms.c.context import C
from photomask.chip.forms.c.network import Network
from photomask.chip.forms.c.project import (
    NAME,
    OUTPUT,
    CSource,
    Weights,
    generate_c,
    require_weights,
)
from photomask.chip.forms.c.project_check import check_project
from photomask.chip.forms.c.readme import readme
from photomask.chip.forms.c.sample_files import GOLDEN_FILE, INPUTS_FILE, packed
from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER, VECTORS_FILE
from photomask.chip.forms.conformance.vectors import conformance_vectors
from photomask.chip.forms.form import FormCheck, Sample
from photomask.chip.forms.writers import Problem
from photomask.chip.operators import Operator
from photomask.chip.program import IntegerProgram
from photomask.chip.program.oracle import NumpyEngine
from photomask.documents import written_whole
from photomask.errors import DataError


@dataclass(frozen=True)
class CForm:
    """A C11 project that checks itself: a function for each step, and golden vectors.

    Attributes:
        weights: "arrays" writes constants into the source, "binary" into a file that is loaded.
        compiler: the command of the C compiler that `check` uses. It may have options, as in "gcc
            -O3 -march=native". It must make code for this machine.
    """

    name: ClassVar[str] = "c"
    title: ClassVar[str] = "a C11 project without dependencies that checks itself, for processors"
    place: ClassVar[str] = "c"
    weights: Weights = "arrays"
    compiler: str = "cc"

    def __post_init__(self) -> None:
        """Raises an error for settings that cannot be right.

        Raises:
            UsageError: `weights` is neither "arrays" nor "binary".
        """
        require_weights(self.weights)

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns the reason why C cannot express an operator, or None if it can."""
        return C.refusal(operator)

    def problems(self, program: IntegerProgram) -> list[Problem]:
        """Returns a problem for every step that C cannot express."""
        return Network(program, NAME, external=self.weights == "binary").problems

    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> CSource:
        """Writes a project that checks itself against the oracle.

        `make check` in the folder compiles the project, runs every sample, and compares each output
        integer. Before that it does the same in the subfolder `conformance`. The project there has
        only the rescaling steps of the program, with inputs that produce ties, overflows and the
        largest products.

        Args:
            program: the program to write.
            place: the folder. An earlier project there is replaced.
            samples: the samples that the golden vectors are made from, at least one.

        Returns:
            The project that was written, with the types and orders of its inputs and outputs.

        Raises:
            FormError: names all steps that C cannot express.
            DataError: the samples do not fit the program, or there are none.
            ExportError: the folder holds something else, or a file could not be written to the
                disk.
        """
        vectors = conformance_vectors(program)
        beside = None if vectors is None else CONFORMANCE_FOLDER
        source = generate_c(program, name=NAME, weights=self.weights, also_check=beside)
        if not samples:
            raise DataError(
                "a C project needs at least one sample for its golden vectors, got none; pass "
                "inputs"
            )
        with written_whole(place, OUTPUT) as staging:
            _write_project(program, source, samples, staging)
            if vectors is not None:
                proof, folder = vectors.program(program.target), staging / CONFORMANCE_FOLDER
                folder.mkdir()
                own = generate_c(proof, name=CONFORMANCE_FOLDER)
                _write_project(proof, own, [vectors.inputs()], folder)
                text = vectors.render()
                (folder / VECTORS_FILE).write_text(text, encoding="utf-8", newline="\n")
            page = readme(program, source, len(samples))
            (staging / "README.md").write_text(page, encoding="utf-8", newline="\n")
        return source

    def check(
        self, program: IntegerProgram, place: Path, samples: Sequence[Sample] = ()
    ) -> FormCheck:
        """Compiles a project elsewhere, runs it, and compares its outputs with the oracle's.

        The conformance project inside it is compiled, run and compared as well.

        Args:
            program: the program that was written.
            place: the folder of the project, in which nothing is changed.
            samples: not used, because a project holds samples of its own.

        Raises:
            DocumentError: there is no project, it was made from another program, or a file is
                missing or has changed.
            EngineError: there is no such compiler, or the compiler or the compiled program failed.
        """
        return check_project(program, place, self.compiler)


def _write_project(
    program: IntegerProgram,
    source: CSource,
    samples: Sequence[Sample],
    folder: Path,
) -> None:
    """Writes the sources of a program, its samples, and the oracle's outputs."""
    engine = NumpyEngine(program)
    golden = [engine.run(sample) for sample in samples]
    for name, content in source.files.items():
        (folder / name).write_bytes(content)
    (folder / INPUTS_FILE).write_bytes(packed(source.tensors, source.inputs, samples))
    (folder / GOLDEN_FILE).write_bytes(packed(source.tensors, source.outputs, golden))
