"""What do transformers lose on the integer path, and do all engines agree?

Each encoder is prepared, calibrated, converted (target `asic`) and verified; then float model,
prepared model, torch engine and compiled C answer the same test data. On a few samples every edge
of the torch engine and of C, and the outputs of ONNX Runtime, are compared with the oracle.

    python benchmarks/transformer_accuracy.py [--networks NAME ...] [--recipes RECIPE ...]
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from encoders import ENCODERS, Encoder
from photomask.chip import (
    IntegerProgram,
    NumpyEngine,
    PreparedModel,
    TorchEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
    verify,
)
from photomask.chip.engines import CEngine, OnnxEngine
from photomask.errors import MissingDependencyError, UsageError
from photomask.report import NoiseMeter
from rows import Results, Subject
from transformer_table import FLOAT, PATHS, WHAT

RECIPES = {
    "vision_transformer": ("w8a8", "w8a8-encoder", "w4a8"),
    "vit_small_saliency": ("w8a8-residual16", "w8a8-encoder"),
    "all-MiniLM-L6-v2": ("w8a8-residual16", "w8a8-bert"),
}
COMPILER = "cc -O3 -march=native"
VERIFIED = 16
"""Samples that `verify` is given."""

Run = Callable[[list[Tensor]], Tensor]


def main() -> int:
    """Measures every network with every recipe; the exit status is 1 if an integer differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(ENCODERS), choices=list(ENCODERS))
    parser.add_argument("--recipes", nargs="*", help="instead of those of each network")
    parser.add_argument("--samples", type=int, help="test samples, instead of all")
    parser.add_argument("--c-samples", type=int, help="of them, those that C computes")
    parser.add_argument("--compared", type=int, default=4, help="samples for all engines")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results, different = Results(WHAT), 0
    for network in arguments.networks:
        make, samples = ENCODERS[network]
        try:
            encoder = make(arguments.samples or samples)
        except (MissingDependencyError, UsageError) as error:
            results.skipped(Subject(WHAT, "photomask", network), str(error))
            continue
        measured = Measurement(results, encoder, arguments.c_samples or encoder.c_samples)
        measured.float_model()
        for recipe in arguments.recipes or RECIPES[network]:
            different += measured.recipe(recipe, arguments.compared)
    return int(different > 0)


class Measurement:
    """Measures one network, recipe by recipe.

    Args:
        results: where rows go.
        encoder: the network and its data.
        c_samples: test samples that compiled C computes; None for all.
    """

    def __init__(self, results: Results, encoder: Encoder, c_samples: int | None):
        self.results = results
        self.encoder = encoder
        self.c_samples = len(encoder.inputs[0]) if c_samples is None else c_samples
        with torch.inference_mode():
            run = lambda inputs: encoder.model(*inputs)  # noqa: E731
            self.reference = torch.cat(list(self._outputs(run, len(encoder.inputs[0]))))

    def float_model(self) -> None:
        """Appends what the float model reaches."""
        self._rows(Subject(WHAT, FLOAT, self.encoder.name, package="torch"), self.reference)

    def recipe(self, recipe: str, compared: int) -> int:
        """Appends what one recipe costs, and returns how many integers differ between engines."""
        encoder, name = self.encoder, f"photomask {recipe}"
        prepared, program = self._made(Subject(WHAT, name, encoder.name), recipe)
        mismatches = self._compare(Subject(WHAT, name, encoder.name), program, compared)
        compiled = CEngine(program, compiler=COMPILER)
        paths: tuple[tuple[Run, int], ...] = (
            (lambda inputs: prepared(*inputs)[0], len(encoder.inputs[0])),
            (real(program, TorchEngine(program).run), len(encoder.inputs[0])),
            (
                real(program, lambda codes: from_numpy(compiled.run(to_numpy(codes)))),
                self.c_samples,
            ),
        )
        for path, (run, count) in zip(PATHS, paths, strict=True):
            with torch.no_grad():
                outputs = torch.cat(list(self._outputs(run, count)))
            self._rows(Subject(WHAT, f"{name}, {path}", encoder.name), outputs)
        self._norm(Subject(WHAT, f"{name}, integer", encoder.name), prepared, program)
        return mismatches

    def _made(self, subject: Subject, recipe: str) -> tuple[PreparedModel, IntegerProgram]:
        """Returns model and program, and appends how long each stage took."""
        encoder, seconds = self.encoder, {}
        with warnings.catch_warnings(), Stopwatch(seconds, "prepare"):
            warnings.simplefilter("ignore", FutureWarning)  # torch.export, about its own code
            prepared = prepare(encoder.model, load_recipe(recipe), encoder.calibration[0])
        with Stopwatch(seconds, "calibrate"):
            calibrate(prepared, encoder.calibration)
        with Stopwatch(seconds, "convert"):
            program = convert(prepared, load_target("asic"))
        verified = [x[:VERIFIED] for x in encoder.inputs]
        with Stopwatch(seconds, "verify"):
            report = verify(encoder.model, program, verified, graph=prepared.graph)
        assert report.engine.mismatches == 0, report.engine.first_mismatch
        load = f"load {os.getloadavg()[0]:.1f}"  # on a busy machine, times say little
        note = f"{len(program.steps)} steps, {len(verified[0])} samples verified, {load}"
        for stage, duration in {**seconds, "in all": sum(seconds.values())}.items():
            self.results.number(subject, stage, duration, "s", note=note)
        return prepared, program

    def _compare(self, subject: Subject, program: IntegerProgram, count: int) -> int:
        """Compares every engine with the oracle on the first samples; appends what differs."""
        codes = quantized(program, [x[:count] for x in self.encoder.inputs])
        arrays = to_numpy(codes)
        torch_edges = ((n, x.numpy()) for n, x in TorchEngine(program).edges(codes))
        c_edges = CEngine(program, compiler=COMPILER).edges(arrays)
        expected = dict(NumpyEngine(program).edges(arrays))
        found: dict[str, Iterator[tuple[str, np.ndarray]]] = {
            "torch engine, every edge": torch_edges,
            "C engine, every edge": iter(c_edges),
        }
        try:
            found["ONNX engine, outputs"] = iter(OnnxEngine(program).run(arrays).items())
        except MissingDependencyError as error:
            self.results.skipped(subject, str(error))
        wrong = 0
        for engine, edges in found.items():
            integers = mismatches = 0
            for name, values in edges:
                integers += values.size
                mismatches += int(np.count_nonzero(values != expected[name]))
            who = Subject(WHAT, f"{subject.implementation}, {engine}", subject.network)
            note = f"{count} samples, {len(program.edges)} edges"
            self.results.number(who, "integers", integers, "integers", note=note)
            self.results.number(who, "mismatches", mismatches, "integers", note=note)
            wrong += mismatches
        return wrong

    def _outputs(self, run: Run, count: int) -> Iterator[Tensor]:
        """Yields the outputs for the first test samples, batch by batch."""
        for start in range(0, count, self.encoder.batch):
            end = min(start + self.encoder.batch, count)
            yield run([x[start:end] for x in self.encoder.inputs])

    def _rows(self, subject: Subject, outputs: Tensor) -> None:
        """Appends how outputs are judged, and their noise."""
        expected = self.reference[: len(outputs)]
        note = f"{len(outputs)} samples"
        for measure, value in self.encoder.judge(outputs, expected).items():
            if subject.implementation == FLOAT and "with float" in measure.name:
                continue
            self.results.number(subject, measure.name, value, measure.unit, note=note)
        if subject.implementation != FLOAT:
            noise = NoiseMeter()
            noise.add(expected, outputs)
            self.results.number(subject, "sqnr", noise.sqnr_db, "dB", note=note)

    def _norm(self, subject: Subject, prepared: PreparedModel, program: IntegerProgram) -> None:
        """Appends the noise behind the last norm: of the tokens, whatever a head makes of them."""
        last = [node.name for node in prepared.graph.nodes if node.operation.kind == "normalize"][
            -1
        ]
        inputs = [x[: self.encoder.batch] for x in self.encoder.inputs]
        with torch.no_grad():
            expected = {node.name: x for node, x in prepared.graph.run(inputs)}[last]
        found = dict(TorchEngine(program).edges(quantized(program, inputs)))[last]
        noise = NoiseMeter()
        noise.add(expected, program.edges[last].dequantize(found))
        note = f"{len(expected)} samples"
        self.results.number(subject, "sqnr behind the last norm", noise.sqnr_db, "dB", note=note)


class Stopwatch:
    """Adds the seconds that a block takes to a table."""

    def __init__(self, seconds: dict[str, float], stage: str):
        self.seconds, self.stage = seconds, stage

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.stage] = time.perf_counter() - self.start


def quantized(program: IntegerProgram, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Returns codes by input name."""
    return {n: program.quantize_input(x, n) for n, x in zip(program.inputs, inputs, strict=True)}


def to_numpy(codes: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Returns the same codes as arrays."""
    return {name: values.numpy() for name, values in codes.items()}


def from_numpy(codes: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Returns the same codes as tensors."""
    return {name: torch.from_numpy(values) for name, values in codes.items()}


def real(program: IntegerProgram, run: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> Run:
    """Returns an engine's run as a function of float inputs, with real outputs."""
    output = program.edges[program.outputs[0]]
    return lambda inputs: output.dequantize(run(quantized(program, inputs))[output.name]).float()


if __name__ == "__main__":
    sys.exit(main())
