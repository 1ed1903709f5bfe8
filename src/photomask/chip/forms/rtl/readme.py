"""README and Makefile of an RTL export, for the RTL engineer who gets the folder."""

from collections.abc import Sequence

from photomask.chip.forms.rtl.descriptors import DESCRIPTOR_BITS, FIELDS
from photomask.chip.forms.rtl.design import RtlDesign
from photomask.chip.forms.rtl.memory_map import Place

FIELD_MEANINGS = {
    "operation": (
        "0 stop, 1 MATRIX (through the array), 2 VECTOR (through the vector unit), 3 TILE (weights "
        "from what was computed), 4 SOFTMAX, 5 NORMALIZE (through the row unit)"
    ),
    "combine": "VECTOR: 0 add, 1 maximum, 2 multiply",
    "rounding": "VECTOR: 0 half up, 1 half even, 2 half away, 3 truncate, 4 double",
    "reciprocal_bits": "SOFTMAX: the reciprocal of the sum is 2**reciprocal_bits over it",
    "fraction_bits": "SOFTMAX, NORMALIZE: bits of a result's fraction, before gain and bias",
    "keep_weights": "MATRIX: load no weights, multiply by those of the last TILE",
    "centred": "NORMALIZE: subtract the row's sum, which takes a walk more",
    "last_of_step": "the step's output is complete after this pass",
    "input_in_accumulators": "read the accumulator memory, else the activation memory",
    "output_in_accumulators": "write the accumulator memory, else the activation memory",
    "input_signed": "sign-extend what the activation memory holds",
    "start_from_memory": "begin each sum with what the output word holds",
    "lookup": "VECTOR: replace each result by its table entry",
    "first_lane": "first lane of the output word that is written",
    "last_lane": "last lane that is written",
    "rotation": "lane l takes lane l - rotation (modulo LANES) of the input word",
    "step": "number of the program's step",
    "input_address": "word of input row 0, column 0",
    "input_height": "rows; positions outside read padding_value",
    "input_width": "columns, and words from one row to the next; rows: from one word to the next",
    "output_height": "results are written row by row",
    "output_width": "results in a row; SOFTMAX, NORMALIZE: rows to compute",
    "origin_row": "input row of output row 0, kernel row 0",
    "origin_column": "likewise",
    "stride_row": "input rows from one output row to the next",
    "stride_column": "likewise",
    "kernel_height": "VECTOR: taps that are combined to one result; 1 for MATRIX",
    "kernel_width": "likewise; SOFTMAX, NORMALIZE: elements of a row",
    "dilation_row": "input rows from one tap to the next",
    "dilation_column": "likewise",
    "padding_value": "what is read outside the input",
    "output_address": "word of the first result",
    "output_step": "words from one result to the next",
    "weight_address": "MATRIX: first of ROWS weight words, the last row's first",
    "parameter_address": (
        "MATRIX: word of biases; VECTOR: word of multipliers and shifts; NORMALIZE: first of one "
        "word of gains and one of biases for each LANES channels; SOFTMAX: first table entry"
    ),
    "offset": "added to the input; a zero point",
    "coefficient": (
        "VECTOR: multiplied with input + offset; NORMALIZE: elements of a row if centred, else 1"
    ),
    "start": "VECTOR: what each combination begins with; NORMALIZE: added to the sum of squares",
    "zero_point": "VECTOR: added after rounding",
    "low": "VECTOR: lower end of the saturation; SOFTMAX: lower elements are hidden and give 0",
    "high": "VECTOR: upper end of the saturation; SOFTMAX: the table's last entry",
}
"""What each field says, for people."""

README = """# Reference design with one program

This folder holds a synthesizable design in SystemVerilog, one integer program for it as memory
images, and the integers that every step of the program must leave in the memories.
{design_line}

| path | what |
|---|---|
| `rtl/` | the design; `testbench.sv` is the top level |
| `program/` | descriptors, weights, parameters, tables, and where outputs lie, for `$readmemh` |
| `inputs/N/` | first state of both memories for sample N |
| `golden/N/step_M.hex` | the words that step M must leave in its memory |
| `conformance/` | a second program, to be run in the same way: see below |
| `passes.txt` | every pass: which tile of which step, and its cycles |
| `design.json` | parameters, memory map, steps, SHA-256 of every file |
| `test_design.py` | the cocotb test, which also compares without cocotb |
| `Makefile` | how to lint, build and run |

## Run it

    make lint       # Verilator, all warnings
    make simulate   # plain Verilator: build, run every sample, compare
    make cocotb     # the same under cocotb

Needed: Verilator 5.48 or later, make, perl, a C++20 compiler, Python 3.11; for `make cocotb` also
cocotb 2.1. The testbench writes `step_M.hex` as soon as step M is complete, and `cycles.txt` with
the cycles of each step. Words match `golden/N/step_M.hex`; lanes without a channel may hold
anything. With any other simulator: compile `rtl/*.sv`, the package first, with the parameters below
and top level `testbench`, run it with the plus arguments in the Makefile, then
`python3 test_design.py --compare`.

## Conformance vectors

The data of a network almost never make a tie, so its golden vectors do not show how a design rounds
halves. `conformance/` therefore holds a second, tiny program with the same files as this folder
(`program/`, `inputs/0/`, `golden/0/`, `design.json`) and for the same parameters: every step is one
way in which the network rescales, or a general one, on accumulators and multipliers that make ties
of both signs, their neighbours, values beyond both ends, and the largest products.
`conformance/vectors.json` lists them: accumulator, multiplier, shift and expected result.
`make simulate` runs this program too. A design that computes all of its golden words rounds, shifts
and saturates as the target says.

## How it works

The sequencer runs the descriptors one after the other. Each is a pass: one word of a memory is
read every cycle, goes through the array or the vector unit, and results are written to a memory.
Passes do not overlap.

    descriptors --> sequencer --> address generator --> activation or accumulator memory
    weights, parameters                                     |                  ^
                            MATRIX:  array --> accumulator unit ---------------+
                            VECTOR:  elementwise, requantize, lookup ----------+
                            SOFTMAX, NORMALIZE:  row unit ---------------------+
                            TILE:  the array's weights

| pass | what | cycles |
|---|---|---|
| MATRIX | loads ROWS x COLUMNS weights, streams one kernel tap of a map | {matrix_cycles} |
| MATRIX, `keep_weights` | streams with the weights that a TILE has loaded | {kept_cycles} |
| TILE | loads the weights from words that an earlier step wrote | {tile_cycles} |
| VECTOR | moves, adds, multiplies, rescales, looks up | n * taps + 11 |
| SOFTMAX | n rows in 3 walks, an element a cycle | 4 + n * (3 * walk + reciprocal_bits + 1) |
| NORMALIZE | n rows in 3 walks, 2 if not centred | 4 + n * (walks * walk + 73) |

n counts output positions; walk = 2 * ceil(elements / LANES) + elements + 4.

## Put your array in

Replace `rtl/systolic_array.sv` by a module of the same name, parameters and ports. The contract:

| port | bits | |
|---|---|---|
| `clock`, `reset` | 1 | `reset` is synchronous and high at first |
| `weight_valid` | 1 | high for ROWS cycles: the weights of one tile, those of the last row first |
| `weights` | COLUMNS * WEIGHT_BITS | one signed weight a column, column 0 lowest |
| `activation_valid` | 1 | one vector of activations; no back pressure |
| `activations` | ROWS * (ACTIVATION_BITS + 1) | one signed activation a row, row 0 lowest |
| `sum_valid` | 1 | one vector of sums for each vector of activations, in order |
| `sums` | COLUMNS * ACCUMULATOR_BITS | sum over the rows of weight * activation, column 0 lowest |

Any latency will do: a pass ends when as many sums have left as activations have entered. The
cycles of `cycles.txt` then differ from the formula; the integers must not.

## Parameters

{parameters}

`ACTIVATION_DEPTH` and the other depths are the fewest words, as a power of two, that hold this
program.

## Memory map

A word of both memories has LANES lanes of one channel each, lane 0 in the least significant bits:
{activation_bits} bits a lane in the activation memory, {accumulator_bits} in the accumulator
memory, two's complement. One axis of an edge, in bold, counts its channels; its positions are all
other axes in row-major order. Channel c at position p lies in lane c % LANES of word
`address + c / LANES * positions + p`. Edges that never live at the same time share words; words of
no edge hold copies that a step makes for itself.

{memory_map}

## Images

- `weights.hex`: a word a row of the array, COLUMNS signed weights, column 0 lowest.
- `parameters.hex`: LANES lanes of {parameter_bits} bits: a bias, or `multiplier << 6 | shift`. Word
  0 is multiplier 1, shift 0.
- `tables.hex`: one table entry a word.
- `descriptors.hex`: {descriptor_bits} bits a descriptor, ending with one of zeros.
- `dumps.hex`: a line a step: memory (0 activations, 1 accumulators), first word, words.

## Descriptors

The first field lies in the most significant bits. Fields of 32 and 64 bits are signed.

| field | bits | meaning |
|---|---|---|
{fields}
"""

MAKEFILE = """# How to lint, build and run the design of this folder. See README.md.

VERILATOR ?= verilator
PYTHON ?= python3
SOURCES = {sources}
PARAMETERS = {parameters}
FLAGS = --timing --timescale 1ns/1ns --top-module testbench $(PARAMETERS)
# One compilation unit: some builds of Verilator know no precompiled headers.
COMPILER = -CFLAGS -std=c++20 -MAKEFLAGS "VM_PARALLEL_BUILDS=0 OPT_FAST=-O2 OPT_GLOBAL=-O1"
BINARY = simulated/build/Vtestbench

.PHONY: lint simulate cocotb clean

lint:
    $(VERILATOR) --lint-only -Wall $(FLAGS) $(SOURCES)

$(BINARY): $(SOURCES)
    mkdir -p simulated
    $(VERILATOR) --binary -O3 --unroll-count 0 -Wno-fatal $(FLAGS) $(COMPILER) \\
        --Mdir simulated/build $(SOURCES)

simulate: $(BINARY)
    set -e; for sample in {samples}; do \\
        mkdir -p simulated/$$sample; \\
        $(BINARY) +program=program +inputs=inputs/$$sample +outputs=simulated/$$sample \\
            +limit={limit}; \\
    done
{conformance}    $(PYTHON) test_design.py --compare

cocotb:
    $(PYTHON) test_design.py

clean:
    rm -rf simulated
"""


def render_readme(design: RtlDesign) -> str:
    """Returns the README of an export."""
    machine, parameters = design.accelerator, design.parameters
    passes = sum(step.passes for step in design.steps)
    cycles = sum(step.cycles for step in design.steps)
    return README.format(
        design_line=(
            f"The array has {machine.rows} rows and {machine.columns} columns; the program has "
            f"{len(design.steps)} steps,\nwhich take {passes} passes and {cycles:,} cycles for "
            "one sample."
        ),
        matrix_cycles=f"n + {2 * machine.rows + machine.columns + 6}",
        kept_cycles=f"n + {machine.rows + machine.columns + 6}",
        tile_cycles=machine.rows + 4,
        parameters=_table(
            ("parameter", "value"),
            [(f"`{name.upper()}`", str(value)) for name, value in parameters.model_dump().items()],
        ),
        activation_bits=machine.activation_bits,
        accumulator_bits=machine.accumulator_bits,
        memory_map=_memory_map(design),
        parameter_bits=max(40, machine.accumulator_bits),
        descriptor_bits=DESCRIPTOR_BITS,
        fields="\n".join(
            f"| `{name}` | {bits} | {FIELD_MEANINGS[name]} |" for name, bits in FIELDS
        ),
    )


def _memory_map(design: RtlDesign) -> str:
    rows = [("input", one.edge, one.shape, one.place) for one in design.inputs]
    rows += [(str(step.number), step.edge, step.shape, step.place) for step in design.steps]
    return _table(
        ("step", "edge", "shape", "memory", "address", "words"),
        [
            (
                number,
                f"`{edge}`",
                _marked(shape, place),
                f"{place.memory}{'' if place.signed else ', unsigned'}",
                str(place.address),
                str(place.words),
            )
            for number, edge, shape, place in rows
        ],
    )


def _marked(shape: tuple[int, ...], place: Place) -> str:
    """Returns a shape, the axis of the channels in bold."""
    sizes: list[str] = []
    behind, marked = 1, False
    for size in reversed(shape):
        here = not marked and behind == place.inner and size == place.channels
        marked, behind = marked or here, behind * size
        sizes.append(f"**{size}**" if here else str(size))
    return " x ".join(reversed(sizes))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


CONFORMANCE_RUN = """\
    mkdir -p simulated/conformance
    $(BINARY) +program=conformance/program +inputs=conformance/inputs/0 \\
        +outputs=simulated/conformance +limit={limit}
"""


def render_makefile(design: RtlDesign, sources: Sequence[str], conformance_limit: int) -> str:
    """Returns the Makefile of an export.

    Args:
        design: parameters and samples.
        sources: names of the RTL's files, packages first.
        conformance_limit: cycles after which to give up the conformance program; 0 where there is
            none.
    """
    run = CONFORMANCE_RUN.format(limit=conformance_limit) if conformance_limit else ""
    text = MAKEFILE.format(
        sources=" ".join(f"rtl/{name}" for name in sources),
        parameters=" ".join(
            f"-G{name.upper()}={value}" for name, value in design.parameters.model_dump().items()
        ),
        samples=" ".join(map(str, range(design.samples))),
        limit=design.limit,
        conformance=run,
    )
    # A recipe's lines begin with a tab.
    return text.replace("\n    ", "\n\t")
