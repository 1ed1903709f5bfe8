"""Runs a program as generated C, which is compiled, loaded and called for each sample."""

import ctypes
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from photomask.chip.forms.c import CONSTANTS_FILE, CSource, generate_c
from photomask.chip.forms.c.compiler import compile_sources
from photomask.chip.forms.c.project import NAME
from photomask.chip.forms.c.text import numpy_type
from photomask.chip.program import IntegerProgram
from photomask.chip.program.codes import Inputs, arrays_by_name
from photomask.chip.program.oracle import check_inputs
from photomask.errors import EngineError

FLAGS = ("-std=c11", "-O2", "-fno-strict-aliasing", "-shared", "-fPIC")


class CEngine:
    """Runs a program as compiled C.

    The sources are those of `CForm`. They are compiled to a library in a temporary folder that is
    deleted with the engine. `edges` compiles them a second time, with memory for every edge. The
    memory is static, so only one thread at a time may run an engine.
    """

    def __init__(self, program: IntegerProgram, *, compiler: str = "cc"):
        """Compiles the program.

        Args:
            program: the program to run.
            compiler: the command of the C compiler, optionally with options, such as
                "gcc -O3 -march=native". It must compile for this machine.

        Raises:
            UsageError: the command has an unclosed quotation mark.
            FormError: C cannot express some steps; the message names them all.
            EngineError: the compiler does not exist or fails.
        """
        self.program = program
        self._compiler = compiler
        self._folder = Path(tempfile.mkdtemp(prefix="photomask-c-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._library = _Library(program, compiler, self._folder / "run", keep_edges=False)
        self._whole: _Library | None = None
        self._grows = program.links.growing

    def edges(self, inputs: Inputs) -> Iterator[tuple[str, np.ndarray]]:
        """Yields every edge with its int64 codes in the order of computation, inputs first.

        Args:
            inputs: the inputs, as for `NumpyEngine.edges`.

        Raises:
            DataError: an input is missing, is not integer, exceeds its format or has a wrong shape.
            EngineError: the compiler fails.
        """
        codes = arrays_by_name(self.program, inputs)
        check_inputs(self.program, codes)
        if self._whole is None:
            folder = self._folder / "edges"
            self._whole = _Library(self.program, self._compiler, folder, keep_edges=True)
        whole, found = self._whole, {name: [] for name in self.program.edges}
        for sample in _samples(codes):
            outputs = whole.run(sample)
            for index, name in enumerate(self.program.edges):
                if name in sample:
                    found[name].append(sample[name])
                else:
                    found[name].append(outputs.get(name, whole.edge(index, name)))
        for name in (*self.program.inputs, *(step.output for step in self.program.steps)):
            yield name, self._joined(name, found[name])

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Returns the output edges as int64 codes.

        Args:
            inputs: the inputs, as for `NumpyEngine.edges`.

        Raises:
            DataError: an input is missing, is not integer, exceeds its format or has a wrong shape.
        """
        codes = arrays_by_name(self.program, inputs)
        check_inputs(self.program, codes)
        samples = [self._library.run(sample) for sample in _samples(codes)]
        return {
            name: self._joined(name, [sample[name] for sample in samples])
            for name in self.program.outputs
        }

    def _joined(self, name: str, parts: list[np.ndarray]) -> np.ndarray:
        """Returns the samples of an edge as one array; a constant edge has a single sample."""
        return np.concatenate(parts) if name in self._grows else parts[0]


class _Library:
    """A compiled program."""

    def __init__(self, program: IntegerProgram, compiler: str, folder: Path, *, keep_edges: bool):
        self.source = generate_c(program, name=NAME, weights="binary", keep_edges=keep_edges)
        library = compile_library(self.source, compiler, folder)
        try:
            self._c = ctypes.CDLL(str(library))
        except OSError as error:
            raise EngineError(
                f"{compiler!r} made a library that this machine cannot load: {error}; set "
                "`compiler` to a compiler for this machine"
            ) from error
        constants = self.source.files[CONSTANTS_FILE]
        load = self._c[f"{NAME}_load"]
        load.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        if status := load(constants, len(constants)):
            raise EngineError(
                f"the compiled program refuses its own constants (status {status}); use another "
                "compiler"
            )
        self._run = self._c[f"{NAME}_run"]
        if keep_edges:
            self._edge = self._c[f"{NAME}_edge"]
            self._edge.restype = ctypes.c_void_p

    def run(self, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one sample and returns the output edges, int64, in their own axes."""
        source = self.source
        memory = [source.tensors[name].laid_out(sample[name]) for name in source.inputs]
        results = {}
        for name in source.outputs:
            tensor = source.tensors[name]
            results[name] = np.empty(tensor.elements, numpy_type(tensor.ctype))
        arrays = [*memory, *results.values()]
        if status := self._run(*(ctypes.c_void_p(array.ctypes.data) for array in arrays)):
            raise EngineError(
                f"the compiled program refuses an input (status {status}); use another compiler"
            )
        return {name: source.tensors[name].own_axes(flat) for name, flat in results.items()}

    def edge(self, index: int, name: str) -> np.ndarray | None:
        """Returns an edge's codes after the last run, or None for inputs and outputs."""
        address = self._edge(index)
        if address is None:
            return None
        tensor = self.source.tensors[name]
        kind = numpy_type(tensor.ctype)
        return tensor.own_axes(np.frombuffer(ctypes.string_at(address, tensor.bytes), kind))


def compile_library(source: CSource, compiler: str, folder: Path) -> Path:
    """Compiles a project's network, without its `main.c`, and returns the shared library.

    Args:
        source: the project.
        compiler: the command of the compiler, optionally with options.
        folder: the folder for the files, which is created if it does not exist.

    Raises:
        UsageError: the command has an unclosed quotation mark.
        EngineError: the compiler does not exist or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in source.files.items():
        (folder / name).write_bytes(content)
    library = folder / f"lib{source.name}.so"
    return compile_sources(compiler, FLAGS, [folder / f"{source.name}.c"], library)


def _samples(inputs: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    for index in range(len(next(iter(inputs.values())))):
        yield {name: codes[index : index + 1] for name, codes in inputs.items()}
