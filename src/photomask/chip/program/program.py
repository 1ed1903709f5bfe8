"""The integer program: a graph of integer operators, and nothing else.

It is saved as `program.json` (strict, versioned) and `program.safetensors` (integers only). The
content hash covers both files, so a program in which one integer was changed is refused.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.numpy
import torch

from photomask.arrays import int64_array, read_tensors
from photomask.chip.data import Array, as_int64, as_tensor, raw_pictures
from photomask.chip.formats import IntFormat, storage_dtype
from photomask.chip.operators import LaneOperations, MatrixProduct
from photomask.chip.program.document import Edge, ProgramDocument, Step, TensorRecord
from photomask.chip.program.links import Links
from photomask.chip.target import Target
from photomask.documents import read_text, written_whole
from photomask.errors import DataError, DocumentError
from photomask.report import Shown, Table

PROGRAM_FILE = "program.json"
TENSOR_FILE = "program.safetensors"
MANY = 65537
"""A batch size that no other axis has, to find out what grows with the batch."""


class IntegerProgram(Shown):
    """An integer-only model, checked when it is made.

    Attributes:
        target: the numeric contract that it was made for.
        inputs: the names of the input edges.
        outputs: the names of the output edges.
        edges: every edge by name, in the order of computation.
        steps: the operators in the order of computation.
        formats: the actual format of every constant tensor.
        tensors: every constant tensor, int64.
        provenance: what the program was made from and by which tool, for people.
    """

    def __init__(
        self,
        *,
        target: Target,
        inputs: Sequence[str],
        outputs: Sequence[str],
        edges: Sequence[Edge],
        steps: Sequence[Step],
        tensors: Mapping[str, np.ndarray],
        formats: Mapping[str, IntFormat],
        provenance: Mapping[str, str],
    ):
        """Checks structure, shapes, formats and intervals.

        Raises:
            DocumentError: the parts do not make a valid program.
        """
        self.target = target
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.edges = {edge.name: edge for edge in edges}
        self.steps = tuple(steps)
        try:
            self.tensors = {
                name: int64_array(tensors[name], f"tensor {name!r}") for name in sorted(tensors)
            }
        except DataError as error:
            raise DocumentError(str(error)) from error
        self.formats = dict(formats)
        self.provenance = dict(provenance)
        if len(self.edges) != len(edges):
            raise DocumentError("two edges of the program have the same name")
        if len({step.name for step in self.steps}) != len(self.steps):
            raise DocumentError("two steps of the program have the same name")
        self._check_tensors()
        self._check_steps()

    def parameters(self, step: Step) -> dict[str, np.ndarray]:
        """Returns a step's constant tensors by role."""
        return {role: self.tensors[name] for role, name in step.tensors.items()}

    def work(self, step: Step) -> MatrixProduct | LaneOperations:
        """Returns the work that one sample of a step asks of a machine."""
        shapes = [self.edges[name].shape for name in step.inputs]
        return step.operator.work(shapes, self.parameters(step))

    @cached_property
    def links(self) -> Links:
        """The steps that make and read each edge."""
        return Links(self.steps, self.inputs, self.outputs)

    def _check_tensors(self) -> None:
        for name, tensor in self.tensors.items():
            format = self.formats.get(name)
            if format is None:
                raise DocumentError(f"tensor {name!r} has no format")
            if tensor.size and not (format.low <= tensor.min() and tensor.max() <= format.high):
                raise DocumentError(
                    f"tensor {name!r} holds {tensor.min()} to {tensor.max()}, outside {format}"
                )

    def _check_steps(self) -> None:
        if not self.inputs or not self.outputs:
            raise DocumentError("the program needs at least one input and one output")
        for name in (*self.inputs, *self.outputs):
            if name not in self.edges:
                raise DocumentError(
                    f"the program names the input or output {name!r}, but has no such edge"
                )
        for name in self.inputs:
            if self.edges[name].shape[0] != 1:
                raise DocumentError(
                    f"the shape of input {name!r} must be the shape of one sample, with 1 as its "
                    "first axis"
                )
        known = set(self.inputs)
        for step in self.steps:
            self._check_step(step, known)
            known.add(step.output)
        if missing := [name for name in self.outputs if name not in known]:
            raise DocumentError(f"no step computes the output {missing[0]!r}")
        if unused := [name for name in self.edges if name not in known]:
            raise DocumentError(f"no step computes the edge {unused[0]!r}")

    def _check_step(self, step: Step, known: Set[str]) -> None:
        """Raises an error for a step that cannot run, or whose edge differs from what it computes.

        Args:
            step: the step.
            known: the edges that are computed before it.
        """
        where = f"step {step.name!r}"
        for name in step.inputs:
            if name not in known:
                raise DocumentError(f"{where} reads {name!r} before any step computes it")
        if step.output in known or step.output not in self.edges:
            raise DocumentError(
                f"{where} must compute a new edge of the program, got {step.output!r}"
            )
        operator = step.operator
        roles = set(step.tensors)
        count = step.operator.input_count
        if len(step.inputs) != count and (count is not None or not step.inputs):
            raise DocumentError(
                f"{where}: {operator.kind} takes {'some' if count is None else count} inputs, got "
                f"{len(step.inputs)}"
            )
        required = set(operator.parameter_roles)
        if not required <= roles <= required | set(operator.optional_roles):
            raise DocumentError(
                f"{where}: {operator.kind} needs the tensors {sorted(required)}, "
                f"got {sorted(roles)}"
            )
        for name in step.tensors.values():
            if name not in self.tensors:
                raise DocumentError(f"{where}: the program has no tensor {name!r}")
        inputs, output = [self.edges[name] for name in step.inputs], self.edges[step.output]
        parameters = self.parameters(step)
        shapes = [edge.shape for edge in inputs]
        batches = [MANY if name in self.links.growing else 1 for name in step.inputs]
        many = [(n * shape[0], *shape[1:]) for n, shape in zip(batches, shapes, strict=True)]
        try:
            shape = operator.output_shape(shapes, parameters)
            of_many = operator.output_shape(many, parameters)
            interval = operator.output_interval([edge.interval for edge in inputs], parameters)
        except (ArithmeticError, IndexError, TypeError, ValueError) as error:
            raise DocumentError(f"{where}: {operator.kind} cannot run: {error}") from error
        if of_many != (max(batches, default=1) * shape[0], *shape[1:]):
            raise DocumentError(f"{where}: {operator.kind} mixes the samples of a batch")
        if shape != output.shape:
            raise DocumentError(
                f"{where} computes the shape {shape}, but its edge has {output.shape}"
            )
        if interval != output.interval or not interval.within(output.format.interval):
            raise DocumentError(
                f"{where} computes values in {interval}, but its edge has {output.interval} as "
                f"{output.format}"
            )

    def quantize_input(self, x: Array, name: str | None = None) -> torch.Tensor:
        """Converts real inputs to the program's integer inputs.

        `codes = clamp(round_half_even(x / scale) + zero_point)`

        Args:
            x: floats in the shape of the input edge, with any batch. If the input takes numbers of
                rows, such as tokens, `x` may be integers, which stay as they are.
            name: the input edge; None takes the first.

        Returns:
            int64 codes.

        Raises:
            DataError: the shape does not fit, or a value is NaN or infinite.
        """
        edge = self.edges[name or self.inputs[0]]
        tensor = as_tensor(x)
        if tensor is None:
            raise DataError(
                f"input {edge.name!r} is a {type(x).__name__}, expected a tensor or an array"
            )
        x = tensor
        if tuple(x.shape[1:]) != edge.shape[1:]:
            raise DataError(
                f"input {edge.name!r} has the shape {list(x.shape)}, but the program takes [batch, "
                f"{', '.join(map(str, edge.shape[1:]))}]"
            )
        if not x.is_floating_point() and (edge.scale, edge.zero_point) == ((1.0,), 0):
            # Numbers of rows, such as tokens, are codes already.
            return as_int64(x, f"input {edge.name!r}")
        if not x.is_floating_point() or not bool(torch.isfinite(x).all()):
            found = "NaN or infinity" if x.is_floating_point() else raw_pictures(x)
            raise DataError(f"input {edge.name!r} must be finite floats, got {found}")
        scale = torch.tensor(edge.scale[0], dtype=torch.float32, device=x.device)
        codes = torch.round(x.to(torch.float32) / scale).to(torch.float64) + edge.zero_point
        return codes.clamp_(edge.low, edge.high).to(torch.int64)

    def content_hash(self) -> str:
        """Returns the SHA-256 of everything that determines the integers of the results."""
        body = self._document("").model_dump(mode="json", exclude={"provenance", "content_sha256"})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def _document(self, content_sha256: str) -> ProgramDocument:
        return ProgramDocument(
            target=self.target,
            inputs=self.inputs,
            outputs=self.outputs,
            edges=tuple(self.edges.values()),
            steps=self.steps,
            tensors={
                name: TensorRecord(
                    format=self.formats[name],
                    shape=tensor.shape,
                    sha256=hashlib.sha256(
                        np.ascontiguousarray(tensor, "<i8").tobytes()
                    ).hexdigest(),
                )
                for name, tensor in self.tensors.items()
            },
            provenance=self.provenance,
            content_sha256=content_sha256,
        )

    def write(self, folder: Path) -> None:
        """Writes `program.json` and `program.safetensors` into an existing folder."""
        packed = {
            name: np.ascontiguousarray(tensor.astype(storage_dtype(self.formats[name])))
            for name, tensor in self.tensors.items()
        }
        (folder / TENSOR_FILE).write_bytes(safetensors.numpy.save(packed))
        document = self._document(self.content_hash()).render()
        (folder / PROGRAM_FILE).write_text(document, encoding="utf-8")

    def save(self, folder: str | Path) -> None:
        """Saves the program as a folder that appears completely or not at all.

        Raises:
            ExportError: the folder holds something else, or a file could not be written to the
                disk.
        """
        with written_whole(Path(folder), "integer program", _files_of_earlier) as staging:
            self.write(staging)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Loads a program and checks every hash, shape, format and interval.

        Raises:
            DocumentError: a file is missing, truncated, altered or has another schema.
        """
        path = Path(folder)
        document = ProgramDocument.parse(read_text(path / PROGRAM_FILE), str(path / PROGRAM_FILE))
        shapes = {name: record.shape for name, record in document.tensors.items()}
        tensors = read_tensors(path / TENSOR_FILE, shapes)
        program = cls(
            target=document.target,
            inputs=document.inputs,
            outputs=document.outputs,
            edges=document.edges,
            steps=document.steps,
            tensors=tensors,
            formats={name: record.format for name, record in document.tensors.items()},
            provenance=document.provenance,
        )
        for name, record in program._document("").tensors.items():
            if record != document.tensors[name]:
                raise DocumentError(
                    f"{path / TENSOR_FILE}: tensor {name!r} differs from the one that was saved; "
                    "the file was altered"
                )
        if program.content_hash() != document.content_sha256:
            raise DocumentError(
                f"{path / PROGRAM_FILE}: the content hash does not match; the file was altered"
            )
        return program

    def multiply_accumulates(self) -> dict[str, int]:
        """Returns the multiply-accumulates of one sample by step, for the steps that have any."""
        counts = {
            step.name: step.operator.multiply_accumulates(
                [self.edges[name].shape for name in step.inputs], self.parameters(step)
            )
            for step in self.steps
        }
        return {name: count for name, count in counts.items() if count}

    def weight_bytes(self) -> float:
        """Returns the size in bytes of all constant tensors at their actual widths."""
        return sum(t.size * self.formats[name].bits for name, t in self.tensors.items()) / 8

    def shown(self) -> Table:
        """Returns a row for each step."""
        rows = [("step", "operator", "inputs", "output", "shape", "values")]
        for step in self.steps:
            edge = self.edges[step.output]
            rows.append(
                (
                    step.name,
                    step.operator.kind,
                    ", ".join(step.inputs),
                    str(edge.format),
                    "×".join(map(str, edge.shape[1:])),
                    f"{edge.low}…{edge.high}",
                )
            )
        title = f"integer program for target {self.target.name!r}, {len(self.steps)} steps"
        return Table(title, rows)


def _files_of_earlier(folder: Path) -> tuple[str, ...]:
    """Returns the files of a valid program that was saved before folders had records."""
    try:
        IntegerProgram.load(folder)
    except DocumentError:
        return ()
    return PROGRAM_FILE, TENSOR_FILE
