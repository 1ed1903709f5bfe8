"""Runs a program in ONNX Runtime, by its integer ONNX form."""

from collections.abc import Iterator

import numpy as np

from photomask.chip.forms.onnx import integer_model
from photomask.chip.forms.onnx_builder import LARGEST_MODEL
from photomask.chip.forms.onnx_runtime import Session, giving_every_value, runtime_package
from photomask.chip.program import IntegerProgram
from photomask.chip.program.codes import Inputs, arrays_by_name
from photomask.chip.program.oracle import check_inputs
from photomask.errors import EngineError, UsageError


class OnnxEngine:
    """Runs a program in ONNX Runtime on a CPU, with the oracle's integers on every edge."""

    def __init__(self, program: IntegerProgram, threads: int = 1):
        """Builds the model, which ONNX Runtime loads at the first run.

        Args:
            program: the program to run.
            threads: the number of threads of ONNX Runtime.

        Raises:
            MissingDependencyError: onnx or onnxruntime is not installed.
            UsageError: `threads` is below 1.
            EngineError: the model is too large for ONNX Runtime.
        """
        if threads < 1:
            raise UsageError(f"threads must be at least 1, found {threads}")
        self.program = program
        self.threads = threads
        self._runtime = runtime_package("OnnxEngine")
        self._model = integer_model(program)
        if self._model.ByteSize() > LARGEST_MODEL:
            raise EngineError(
                f"the model has {self._model.ByteSize()} bytes, but ONNX Runtime reads at most "
                f"{LARGEST_MODEL}; run the program in TorchEngine"
            )
        self._sessions: dict[bool, Session] = {}

    def edges(self, inputs: Inputs) -> Iterator[tuple[str, np.ndarray]]:
        """Yields every edge with its int64 codes in the order of computation, inputs first.

        Args:
            inputs: the inputs, as for `NumpyEngine.edges`.

        Raises:
            DataError: an input is missing, is not integer, exceeds its format or has a wrong shape.
            EngineError: ONNX Runtime refuses the model or fails.
        """
        values = self._compute(inputs, list(self.program.edges))
        for name in self.program.edges:
            yield name, values[name]

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Returns the output edges as int64 codes.

        Args:
            inputs: the inputs, as for `NumpyEngine.edges`.

        Raises:
            DataError: an input is missing, is not integer, exceeds its format or has a wrong shape.
            EngineError: ONNX Runtime refuses the model or fails.
        """
        return self._compute(inputs, list(self.program.outputs))

    def _compute(self, inputs: Inputs, names: list[str]) -> dict[str, np.ndarray]:
        values = arrays_by_name(self.program, inputs)
        check_inputs(self.program, values)
        computed = [name for name in dict.fromkeys(names) if name not in values]
        session = self._session(every_edge=not set(names) <= set(self.program.outputs))
        values |= session.run_integers(computed, values)
        return {name: values[name] for name in names}

    def _session(self, *, every_edge: bool) -> Session:
        """Returns a session of ONNX Runtime, which is made at its first use.

        There are two sessions, because the one that returns every edge cannot optimize any away.
        """
        if every_edge not in self._sessions:
            model = giving_every_value(self._model) if every_edge else self._model
            self._sessions[every_edge] = Session(self._runtime, model, threads=self.threads)
        return self._sessions[every_edge]
