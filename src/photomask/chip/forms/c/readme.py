"""The page that goes with a C project: what lies in it, and what its files of samples hold."""

from photomask.chip.forms.c.project import CONSTANTS_FILE, NAME, CSource
from photomask.chip.forms.c.sample_files import GOLDEN_FILE, INPUTS_FILE
from photomask.chip.forms.c.text import size_of
from photomask.chip.program import IntegerProgram


def readme(program: IntegerProgram, source: CSource, samples: int) -> str:
    """Returns the page for whoever receives a project with so many samples."""
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
