"""The README and the Makefile of an RTL export, for the RTL engineer who receives the folder."""

from collections.abc import Sequence

from photomask.chip.forms.rtl.descriptors import DESCRIPTOR_BITS, FIELDS
from photomask.chip.forms.rtl.design import RtlDesign
from photomask.chip.forms.rtl.memory_map import Place
from photomask.chip.forms.rtl.sparse_readme import port_notes, sparse_section, weights_image

FIELD_MEANINGS = {
    "operation": (
        "0 stop, 1 MATRIX (runs through the array), 2 VECTOR (runs through the vector unit), 3 "
        "TILE (loads weights that an earlier step computed), 4 SOFTMAX, 5 NORMALIZE (run through "
        "the row unit)"
    ),
    "combine": "VECTOR: 0 add, 1 maximum, 2 multiply",
    "rounding": "VECTOR: 0 half up, 1 half even, 2 half away, 3 truncate, 4 double",
    "reciprocal_bits": "SOFTMAX: the reciprocal of the sum is 2**reciprocal_bits / sum",
    "fraction_bits": "SOFTMAX, NORMALIZE: fraction bits of a result, before gain and bias",
    "keep_weights": "MATRIX: load no weights, but multiply by those that the array holds",
    "centred": "NORMALIZE: centre the row on its mean, which takes one more walk over it",
    "last_of_step": "the step's output is complete after this pass",
    "input_in_accumulators": "1: read the accumulator memory; 0: read the activation memory",
    "output_in_accumulators": "1: write the accumulator memory; 0: write the activation memory",
    "input_signed": "sign-extend the words of the activation memory",
    "start_from_memory": "start each sum with the value that the output word already holds",
    "lookup": "VECTOR: replace each result by the table entry at this address",
    "first_lane": "the first lane of the output word that is written",
    "last_lane": "the last lane of the output word that is written",
    "dense": "MATRIX on a sparse array: each row reads one lane, as in a dense array",
    "rotation": "lane l takes lane l - rotation (modulo LANES) of the input word",
    "step": "the number of the program's step",
    "input_address": "the address of the word at input row 0, column 0",
    "input_height": "the number of input rows; positions outside read padding_value",
    "input_width": (
        "the number of input columns, which is the number of words from one row to the next; "
        "SOFTMAX, NORMALIZE: words from one word of a row to the row's next word"
    ),
    "output_height": "the number of output rows; results are written row by row",
    "output_width": (
        "the number of results in an output row; SOFTMAX, NORMALIZE: the number of rows to compute"
    ),
    "origin_row": "the input row of output row 0 and kernel row 0",
    "origin_column": "the input column of output column 0 and kernel column 0",
    "stride_row": "input rows from one output row to the next",
    "stride_column": "input columns from one output column to the next",
    "kernel_height": "VECTOR: kernel rows that are combined to one result; 1 for MATRIX",
    "kernel_width": (
        "VECTOR: kernel columns that are combined to one result; 1 for MATRIX; SOFTMAX, "
        "NORMALIZE: the elements of a row"
    ),
    "dilation_row": "input rows from one kernel row to the next",
    "dilation_column": "input columns from one kernel column to the next",
    "padding_value": "the value that is read outside the input",
    "output_address": "the address of the first result's word",
    "output_step": "words from one result to the next",
    "weight_address": "MATRIX: the first of ROWS / KEPT weight words, which holds the last rows",
    "parameter_address": (
        "MATRIX: the word of biases; VECTOR: the word of multipliers and shifts; NORMALIZE: the "
        "first parameter word, where each block of LANES channels has a word of gains and a word "
        "of biases; SOFTMAX: the first table entry"
    ),
    "offset": "added to the input, as a zero point is subtracted",
    "coefficient": (
        "VECTOR: the factor of input + offset; NORMALIZE: the number of elements of a row if "
        "centred, else 1"
    ),
    "start": (
        "VECTOR: the value that each combination starts with; NORMALIZE: added to the sum of "
        "squares"
    ),
    "zero_point": "VECTOR: added after rounding",
    "low": "VECTOR: the lower end of the saturation; SOFTMAX: lower elements are hidden and give 0",
    "high": "VECTOR: the upper end of the saturation; SOFTMAX: the number of the last table entry",
}
"""The meaning of each field of a descriptor, for people."""

README = """# Reference design with one program

This folder holds a synthesizable design in SystemVerilog, one integer program for it as memory
images, and the integers that every step of the program must leave in the memories.
{design_line}

| path | what it holds |
|---|---|
| `rtl/` | the design; `testbench.sv` is the top level |
| `program/` | descriptors, weights, parameters, tables, and where outputs lie, for `$readmemh` |
| `inputs/N/` | the initial content of both memories for sample N |
| `golden/N/step_M.hex` | the words that step M must leave in its memory |
| `conformance/` | a second program that you run in the same way; see below |
| `passes.txt` | every pass: its step, its tile and its cycles |
| `design.json` | the parameters, memory map and steps, and the SHA-256 of every file |
| `test_design.py` | the cocotb test, which can also compare without cocotb |
| `Makefile` | the commands that lint, build and run the design |

## Run it

    make lint       # Verilator, all warnings
    make simulate   # plain Verilator: build, run every sample, compare
    make cocotb     # the same under cocotb

You need Verilator 5.48 or later, make, perl, a C++20 compiler and Python 3.11. `make cocotb` also
needs cocotb 2.1. The testbench writes `step_M.hex` as soon as step M is complete, and `cycles.txt`
with the cycles of each step. The words must equal those of `golden/N/step_M.hex`, except for lanes
without a channel, which may hold anything. To use another simulator, compile `rtl/*.sv` with the
package first, with the parameters below and with the top level `testbench`. Run it with the plus
arguments that the Makefile gives, then run `python3 test_design.py --compare`.

## Conformance vectors

The data of a network almost never produce a tie, so its golden vectors do not show how a design
rounds halves. `conformance/` therefore holds a second, tiny program. It has the same files as this
folder (`program/`, `inputs/0/`, `golden/0/`, `design.json`) and runs with the same parameters.
Every step rescales in one of the ways in which the network does, or in a general way. Its
accumulators and multipliers produce ties of both signs, the neighbours of ties, values beyond both
ends, and the largest products. `conformance/vectors.json` lists the accumulator, multiplier, shift
and expected result of each vector. `make simulate` runs this program too. A design that computes
all of its golden words rounds, shifts and saturates as the target says.

## How it works

The sequencer runs the descriptors one after the other. The run of one descriptor is a pass. In a
pass, one word of a memory is read every cycle and goes through the array or the vector unit, and
the results are written to a memory. Passes do not overlap.

    descriptors --> sequencer --> address generator --> activation or accumulator memory
    weights, parameters                                     |                  ^
                            MATRIX:  array --> accumulator unit ---------------+
                            VECTOR:  elementwise, requantize, lookup ----------+
                            SOFTMAX, NORMALIZE:  row unit ---------------------+
                            TILE:  the array's weights

| pass | what it does | cycles |
|---|---|---|
| MATRIX | loads ROWS x COLUMNS weights and streams one kernel tap of a map | {matrix_cycles} |
| MATRIX, `keep_weights` | streams a map with the weights that the array holds | {kept_cycles} |
| TILE | loads weights from words that an earlier step wrote | {tile_cycles} |
| VECTOR | moves, adds, multiplies, rescales or looks up elements | n * taps + 11 |
| SOFTMAX | n rows in 3 walks, one element per cycle | 4 + n * (3 * walk + reciprocal_bits + 1) |
| NORMALIZE | n rows in 3 walks, or 2 if not centred | 4 + n * (walks * walk + 73) |

Here n is the number of output positions, and walk = 2 * ceil(elements / LANES) + elements + 4.

A tile whose weights are all zero has no pass and takes no memory. If all weights of a block of
outputs are zero, one pass writes their biases: it reads only padding of 0, and multiplies it by
whatever the array holds.

{sparse}## Put your array in

Replace `rtl/systolic_array.sv` by a module with the same name, parameters and ports. It must keep
this contract:

| port | bits | meaning |
|---|---|---|
| `clock`, `reset` | 1 | `reset` is synchronous and high at first |
| `weight_valid` | 1 | high for ROWS / KEPT cycles, which bring a tile, the last rows first |
| `weights` | COLUMNS * KEPT * WEIGHT_BITS | KEPT signed weights per column, column 0 lowest |
| `positions` | COLUMNS * KEPT * position bits | the input of its group that a weight multiplies |
| `activation_valid` | 1 | high for one vector of activations; there is no back pressure |
| `activations` | ROWS / KEPT * GROUP * (ACTIVATION_BITS + 1) | GROUP signed inputs for KEPT rows |
| `sum_valid` | 1 | high for one vector of sums per vector of activations, in the same order |
| `sums` | COLUMNS * ACCUMULATOR_BITS | per column the sum of weight * activation over all rows |

{port_notes}

The array may have any latency, because a pass ends when as many sums have left as activations have
entered. With another latency, the cycles in `cycles.txt` differ from the formula. The integers must
not differ.

## Parameters

{parameters}

`ACTIVATION_DEPTH` and the other depths are the smallest powers of two, but at least 16, that hold
the words of this program.

## Memory map

A word of either memory has LANES lanes with one channel each. Lane 0 lies in the least significant
bits. A lane has {activation_bits} bits in the activation memory and {accumulator_bits} bits in the
accumulator memory, in two's complement. One axis of an edge, in bold below, counts its channels.
The positions are all other axes in row-major order. Channel c at position p lies in lane c % LANES
of word `address + c / LANES * positions + p`. Edges that are never needed at the same time may
share words. Words that belong to no edge hold copies that a step makes for itself.

{memory_map}

## Images

{weights_image}
- `parameters.hex` has words of LANES lanes of {parameter_bits} bits. A lane holds a bias, or
  `multiplier << 6 | shift`. Word 0 has multiplier 1 and shift 0.
- `tables.hex` has one table entry per word.
- `descriptors.hex` has {descriptor_bits} bits per descriptor. The last descriptor is all zeros.
- `dumps.hex` has one line per step: the memory (0 for activations, 1 for accumulators), the address
  of the first word, and the number of words.

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
# There is one compilation unit, because some builds of Verilator lack precompiled headers.
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
    """Returns the text of the README of an export."""
    machine, parameters = design.accelerator, design.parameters
    groups = machine.row_groups
    passes = sum(step.passes for step in design.steps)
    cycles = sum(step.cycles for step in design.steps)
    return README.format(
        design_line=(
            f"The array has {machine.rows} rows and {machine.columns} columns; the program has "
            f"{len(design.steps)} steps,\nwhich take {passes} passes and {cycles:,} cycles for "
            "one sample."
        ),
        matrix_cycles=f"n + {2 * groups + machine.columns + 6}",
        kept_cycles=f"n + {groups + machine.columns + 6}",
        tile_cycles=machine.rows + 4,
        sparse=sparse_section(machine),
        port_notes=port_notes(machine),
        weights_image=weights_image(machine),
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
    """Returns a shape with the axis of the channels in bold."""
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
    """Returns the text of the Makefile of an export.

    Args:
        design: gives the parameters and the number of samples.
        sources: the names of the RTL's files, packages first.
        conformance_limit: the number of cycles after which the conformance program is given up; 0
            if there is no conformance program.
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
    # The lines of a recipe must begin with a tab.
    return text.replace("\n    ", "\n\t")
