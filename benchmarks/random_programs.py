"""Do all engines compute the oracle's integers, on random programs over every operator?

Programs are compiled to C some hundreds at a time, side by side in one program. What needs a
package that is not installed is skipped with a row that says so.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from photomask.chip import IntegerProgram, NumpyEngine, TorchEngine
from photomask.chip.engines import CEngine
from photomask.errors import EngineError, MissingDependencyError
from random_program import merged, random_codes, random_program
from rows import Results, Subject

WHAT = "random_programs"
NETWORK = "random"
Codes = Mapping[str, np.ndarray]
Run = Callable[[Sequence[IntegerProgram], Sequence[Codes]], list[dict[str, np.ndarray]]]
"""From programs and their inputs to the edges of each that the engine shows."""


def main() -> int:
    """Compares the engines; the exit status is 1 if an integer differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--together", type=int, default=50, help="programs compiled as one")
    parser.add_argument("--seconds", type=float, help="stop each engine after so long")
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=list(ENGINES))
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.programs)
    results, different = Results(WHAT), 0
    for name in arguments.engines:
        start = time.perf_counter()
        try:
            programs, integers, mismatches = compare(ENGINES[name], seeds, arguments)
        except (MissingDependencyError, EngineError) as error:
            results.skipped(Subject(WHAT, name, NETWORK), str(error))
            different += not isinstance(error, MissingDependencyError)
            continue
        subject = Subject(WHAT, name, NETWORK)
        note = f"{programs} programs, seeds from {seeds[0]}, batches of {arguments.batch}"
        results.number(subject, "integers", integers, "integers", note=note)
        results.number(subject, "mismatches", mismatches, "integers", note=note)
        seconds = time.perf_counter() - start
        results.number(subject, "time", seconds, "s", note=note)
        different += mismatches
    return int(different > 0)


def compare(run: Run, seeds: range, arguments: argparse.Namespace) -> tuple[int, int, int]:
    """Returns how many programs ran, how many integers were compared, and how many differ."""
    integers = mismatches = done = 0
    started = time.perf_counter()
    for start in range(0, len(seeds), arguments.together):
        if arguments.seconds and time.perf_counter() - started > arguments.seconds:
            break
        block = seeds[start : start + arguments.together]
        done += len(block)
        programs = [random_program(seed) for seed in block]
        codes = [
            random_codes(program, arguments.batch, seed)
            for seed, program in zip(block, programs, strict=True)
        ]
        found = run(programs, codes)
        for seed, program, inputs, edges in zip(block, programs, codes, found, strict=True):
            oracle = dict(NumpyEngine(program).edges(inputs))
            for name, value in edges.items():
                integers += oracle[name].size
                wrong = (
                    int(np.count_nonzero(value != oracle[name]))
                    if value.shape == oracle[name].shape
                    else oracle[name].size
                )
                if wrong:
                    print(f"seed {seed}: edge {name!r}: {wrong} integers differ", file=sys.stderr)
                mismatches += wrong
    return done, integers, mismatches


def run_torch(
    programs: Sequence[IntegerProgram], codes: Sequence[Codes]
) -> list[dict[str, np.ndarray]]:
    """Every edge, as the torch engine computes it."""
    return [
        {
            name: value.numpy()
            for name, value in TorchEngine(program).edges(
                {name: torch.from_numpy(array) for name, array in inputs.items()}
            )
        }
        for program, inputs in zip(programs, codes, strict=True)
    ]


def run_c(
    programs: Sequence[IntegerProgram], codes: Sequence[Codes], *, edges: bool = False
) -> list[dict[str, np.ndarray]]:
    """The outputs, or every edge, of all programs in one library."""
    engine = CEngine(merged(programs), compiler="cc -O1 -Wall -Wextra -Werror -Wconversion")
    inputs = {f"{i}/{name}": x for i, part in enumerate(codes) for name, x in part.items()}
    found = dict(engine.edges(inputs)) if edges else engine.run(inputs)
    parts: list[dict[str, np.ndarray]] = [{} for _ in programs]
    for name, value in found.items():
        index, _, own = name.partition("/")
        parts[int(index)][own] = value
    return parts


def run_c_edges(
    programs: Sequence[IntegerProgram], codes: Sequence[Codes]
) -> list[dict[str, np.ndarray]]:
    """Every edge, with memory of its own."""
    return run_c(programs, codes, edges=True)


def run_onnx(
    programs: Sequence[IntegerProgram], codes: Sequence[Codes]
) -> list[dict[str, np.ndarray]]:
    """The outputs, as ONNX Runtime computes them."""
    from photomask.chip.engines import OnnxEngine

    return [
        dict(OnnxEngine(program).run(dict(inputs)))
        for program, inputs in zip(programs, codes, strict=True)
    ]


ENGINES: dict[str, Run] = {
    "photomask torch engine, every edge": run_torch,
    "photomask C engine, outputs": run_c,
    "photomask C engine, every edge": run_c_edges,
    "photomask ONNX engine, outputs": run_onnx,
}

if __name__ == "__main__":
    sys.exit(main())
