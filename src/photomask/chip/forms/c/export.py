"""The C project: sources, golden vectors and a Makefile that compares them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from photomask.chip.forms.c.project import CONSTANTS_FILE, CSource, Weights, generate_c
from photomask.chip.forms.c.text import numpy_type, size_of
from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER, VECTORS_FILE
from photomask.chip.forms.conformance.vectors import conformance_vectors
from photomask.chip.forms.golden import single_samples
from photomask.chip.program import IntegerProgram
from photomask.chip.program.codes import Inputs
from photomask.chip.program.oracle import NumpyEngine
from photomask.documents import written_whole
from photomask.errors import DataError

NAME = "network"
INPUTS_FILE = "inputs.bin"
GOLDEN_FILE = "golden.bin"


def export_c(
    program: IntegerProgram,
    folder: str | Path,
    samples: Inputs | Sequence[Mapping[str, np.ndarray]],
    *,
    weights: Weights = "arrays",
) -> CSource:
    """Writes a program as a C11 project that checks itself against the oracle.

    `make check` in the folder compiles it, runs every sample, and compares each output integer.
    Before that it does the same in the subfolder `conformance`, a project whose only steps are the
    program's rescalings on numbers that make ties, overflows and the largest products. The folder
    appears whole or not at all, and replaces an earlier project.

    Args:
        program: what to write.
        folder: where to.
        samples: int64 codes, batch first (`program.quantize_input` makes them), a mapping by input
            name where the program has several inputs; or a list of such mappings.
        weights: "arrays" in the source, or one "binary" file that is loaded.

    Returns:
        What was written, with the types and orders of inputs and outputs.

    Raises:
        UsageError: `weights` is neither.
        DataError: the samples do not fit the program, or there are none.
        ExportError: the folder holds something else, or the disk refused a file.
    """
    vectors = conformance_vectors(program)
    beside = None if vectors is None else CONFORMANCE_FOLDER
    source = generate_c(program, name=NAME, weights=weights, also_check=beside)
    singles = list(_single(program, samples))
    if not singles:
        raise DataError("a C project needs at least one sample for its golden vectors")
    with written_whole(Path(folder), "C project") as staging:
        _write_project(program, source, singles, staging)
        if vectors is not None:
            proof, place = vectors.program(program.target), staging / CONFORMANCE_FOLDER
            place.mkdir()
            own = generate_c(proof, name=CONFORMANCE_FOLDER)
            _write_project(proof, own, [vectors.inputs()], place)
            (place / VECTORS_FILE).write_text(vectors.render(), encoding="utf-8", newline="\n")
        readme = _readme(program, source, len(singles))
        (staging / "README.md").write_text(readme, encoding="utf-8", newline="\n")
    return source


def _write_project(
    program: IntegerProgram,
    source: CSource,
    samples: Sequence[Mapping[str, np.ndarray]],
    folder: Path,
) -> None:
    """Writes the sources of a program, its samples, and what the oracle computes from them."""
    engine = NumpyEngine(program)
    golden = [engine.run(sample) for sample in samples]
    for name, content in source.files.items():
        (folder / name).write_bytes(content)
    (folder / INPUTS_FILE).write_bytes(_packed(source, source.inputs, samples))
    (folder / GOLDEN_FILE).write_bytes(_packed(source, source.outputs, golden))


def _single(
    program: IntegerProgram, samples: Inputs | Sequence[Mapping[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    parts = samples if isinstance(samples, Sequence) else [samples]
    for part in parts:
        yield from single_samples(program, part, None)


def _packed(
    source: CSource, names: Sequence[str], samples: Sequence[Mapping[str, np.ndarray]]
) -> bytes:
    """Returns sample after sample, of each every tensor, in C's types and orders."""
    return b"".join(
        sample[name]
        .transpose(source.tensors[name].order)
        .astype(numpy_type(source.tensors[name].ctype))
        .tobytes()
        for sample in samples
        for name in names
    )


def _table(program: IntegerProgram, source: CSource) -> str:
    """Returns what the files of samples hold, as rows of Markdown."""
    names = (*source.inputs, *source.outputs)
    head = ("file", "tensor", "C type", "axes in memory", "elements", "bytes", "values")
    rows: list[tuple[str, ...]] = [head, ("---",) * len(head)]
    for name, file in zip(
        names,
        [INPUTS_FILE] * len(source.inputs) + [GOLDEN_FILE] * len(source.outputs),
        strict=True,
    ):
        tensor, edge = source.tensors[name], program.edges[name]
        axes = "×".join(str(tensor.shape[axis]) for axis in tensor.order)
        rows.append(
            (
                file,
                f"`{name}`",
                f"`{tensor.ctype}`",
                f"{axes} ({tensor.order_name})",
                str(tensor.elements),
                str(tensor.elements * size_of(tensor.ctype)),
                f"{edge.low} to {edge.high} ({edge.format})",
            )
        )
    return "\n".join(f"| {line} |" for line in (" | ".join(row) for row in rows))


def _readme(program: IntegerProgram, source: CSource, samples: int) -> str:
    table = _table(program, source)
    external = CONSTANTS_FILE in source.files
    constants = (
        f"- `{CONSTANTS_FILE}`: all constants. Give its bytes to `{NAME}_load` once, before the "
        "first run; it refuses a file that is truncated, altered or of another program.\n"
        if external
        else ""
    )
    usage = f" {CONSTANTS_FILE}" if external else ""
    return f"""# An integer network in C

Program `{program.content_hash()}`, {len(program.steps)} steps, target `{program.target.name}`.
C11, integers only, no allocation, no dependencies. Activations and working memory take
{source.arena_bytes} bytes of static memory.

```sh
make check      # compiles, runs {samples} samples, compares every output integer
make sanitize   # the same with the compiler's checks for undefined behaviour
./{NAME} run {INPUTS_FILE} outputs.bin{usage}
```

`make check` ends with `0 mismatches`, or names the first integer that differs. The program's exit
status is 0 if all are equal, 1 if one differs, 2 if a file is missing, truncated or wrong.

- `{NAME}.c`, `{NAME}.h`: the network; `{NAME}_run` is all that an application calls.
{constants}- `main.c`: reads the files below; an application does not need it.
- `conformance/`: a project of the program's rescalings alone, on numbers that make ties of both
  signs, values beyond both ends and the largest products, which real data almost never hold.
  `make check` runs it first. `conformance/vectors.json` lists accumulator, multiplier, shift and
  expected result of each. (Absent where the program rescales nothing.)
- `{INPUTS_FILE}`: {samples} samples. `{GOLDEN_FILE}`: what the program computes from them, by its
  definition in Python.

Both files hold sample after sample, of each every tensor in this order, little-endian, two's
complement, the last axis the fastest, without a header:

{table}

Feature maps have their channels last (NHWC, or NWC with one spatial axis), whatever the order of
axes in the model. Compile with `-fno-strict-aliasing`: the arena holds integers of different widths
at different times. Beyond C11 the code assumes 32-bit `int` and conversion modulo 2^n to signed
types, and checks both when it is compiled; it shifts no negative number. For a microcontroller:
`make CC=arm-none-eabi-gcc CFLAGS='-O2 -mcpu=cortex-m7'`, or add `{NAME}.c` to a build of your own.
"""
