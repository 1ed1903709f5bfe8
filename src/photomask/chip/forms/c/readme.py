"""The README of a C project: which files it has, and what its files of samples hold."""

from photomask.chip.forms.c.project import CONSTANTS_FILE, NAME, CSource
from photomask.chip.forms.c.sample_files import GOLDEN_FILE, INPUTS_FILE
from photomask.chip.forms.c.text import size_of
from photomask.chip.program import IntegerProgram


def readme(program: IntegerProgram, source: CSource, samples: int) -> str:
    """Returns the README for the person who receives a project with this number of samples."""
    table = _table(program, source)
    external = CONSTANTS_FILE in source.files
    constants = (
        f"- `{CONSTANTS_FILE}`: all constants. Pass its bytes to `{NAME}_load` once, before the "
        "first run. The function refuses a file that is truncated, altered or of another program.\n"
        if external
        else ""
    )
    usage = f" {CONSTANTS_FILE}" if external else ""
    return f"""# An integer network in C

This project is the program `{program.content_hash()}`. It has {len(program.steps)} steps and was
made for the target `{program.target.name}`. The code is C11. It uses only integers, allocates no
memory, and needs no libraries. Activations and working memory take {source.arena_bytes} bytes of
static memory.

```sh
make check      # compiles, runs {samples} samples, compares every output integer
make sanitize   # does the same with the compiler's checks for undefined behaviour
./{NAME} run {INPUTS_FILE} outputs.bin{usage}
```

`make check` ends with `0 mismatches`, or names the first integer that differs. The exit status of
`./{NAME}` is 0 if all integers are equal, 1 if one differs, and 2 if a file is missing, truncated
or wrong.

- `{NAME}.c`, `{NAME}.h`: the network. An application calls only `{NAME}_run`.
{constants}- `main.c`: reads the files below. An application does not need it.
- `conformance/`: a project that has only the rescaling steps of the program. Its inputs produce
  ties of both signs, values beyond both ends, and the largest products, which real data almost
  never do. `make check` runs it first. `conformance/vectors.json` lists the accumulator,
  multiplier, shift and expected result of each vector. The folder is absent if the program never
  rescales.
- `{INPUTS_FILE}`: {samples} samples. `{GOLDEN_FILE}`: the outputs that the program's definition in
  Python computes from them.

Both files hold the samples one after the other, without a header. A sample holds its tensors in the
order of this table. Integers are little-endian and in two's complement, and the last axis is the
fastest:

{table}

Feature maps have their channels last (NHWC, or NWC with one spatial axis), whatever the order of
axes in the model. Compile with `-fno-strict-aliasing`, because the arena holds integers of
different widths at different times. Beyond C11, the code assumes an `int` of 32 bits and conversion
modulo 2^n to signed types. It checks both assumptions when it is compiled. It never shifts a
negative number. For a microcontroller, run
`make CC=arm-none-eabi-gcc CFLAGS='-O2 -mcpu=cortex-m7'`, or add `{NAME}.c` to a build of your own.
"""


def _table(program: IntegerProgram, source: CSource) -> str:
    """Returns the content of the files of samples as rows of a Markdown table."""
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
