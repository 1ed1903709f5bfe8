"""Faults planted in the RTL, one at a time: the golden vectors of one small program find them all.

All faults are built into one design: each faulty expression takes the place of the right one where
the plus argument `+mutant` has its number.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.chip.forms.rtl.rescaling_mutants import RESCALING_MUTANTS, Mutant
from tests.chip.forms.rtl.rtl_programs import NARROW, built, every_operator, shared_folder
from tests.chip.programs import small_program

from photomask.chip import export
from photomask.chip.forms.rtl.export import RtlForm, write_sources
from photomask.chip.forms.rtl.simulation import simulate, sources_in
from photomask.chip.forms.rtl.simulator import Simulator
from photomask.errors import EngineError

MUTANTS = (
    *RESCALING_MUTANTS,
    Mutant("half up without the half", "requantize_unit", "biased >>> shift", "product >>> shift"),
    Mutant("half even rounds up", "requantize_unit", "tie && up[0] ? up - 1 : up", "up"),
    Mutant(
        "half away like half up",
        "requantize_unit",
        "product < 0 ? -((half - product) >>> shift) : up",
        "up",
    ),
    Mutant(
        "truncate to zero",
        "requantize_unit",
        "product >>> shift",
        "product / (product_t'(1) <<< shift)",
    ),
    Mutant("double rounds once", "requantize_unit", "biased + nudge", "biased"),
    Mutant(
        "double nudges upwards",
        "requantize_unit",
        "-(product_t'(1) <<< 30)",
        "product_t'(1) <<< 30",
    ),
    Mutant("half of another bit", "requantize_unit", "shift - 6'd1", "shift - 6'd2"),
    Mutant("double nudges from 33 on", "requantize_unit", "shift > 31", "shift > 32"),
    Mutant("no zero point", "requantize_unit", "scaled + product_t'(zero_point)", "scaled"),
    Mutant(
        "signed multiplier",
        "requantize_unit",
        "product_t'($signed({1'b0, multiplier}))",
        "product_t'($signed(multiplier[15:0]))",
    ),
    Mutant(
        "no offset", "elementwise_unit", "(value + offset) * coefficient", "value * coefficient"
    ),
    Mutant(
        "no coefficient", "elementwise_unit", "(value + offset) * coefficient", "value + offset"
    ),
    Mutant("minimum", "elementwise_unit", "scaled > carried", "scaled < carried"),
    Mutant("product as a sum", "elementwise_unit", "carried * scaled", "carried + scaled"),
    Mutant(
        "windows run into each other",
        "elementwise_unit",
        "first_of_scaled ? start_of_scaled : result",
        "result",
    ),
    Mutant("stale start", "vector_unit", "descriptor.start_from_memory", "1'b0"),
    Mutant(
        "lookup index off by one",
        "lookup_unit",
        "INDEX_BITS'(values[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS])",
        "INDEX_BITS'(values[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] + 1)",
    ),
    Mutant("lookup ignored", "vector_unit", "descriptor.lookup", "1'b0"),
    Mutant(
        "no bias",
        "accumulator_unit",
        "parameters[lane*PARAMETER_BITS+:ACCUMULATOR_BITS]",
        "ACCUMULATOR_BITS'(0)",
    ),
    Mutant("stale accumulator", "accumulator_unit", "descriptor.start_from_memory", "1'b1"),
    Mutant(
        "sums of one tile only",
        "accumulator_unit",
        "previous[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]",
        "ACCUMULATOR_BITS'(0)",
    ),
    Mutant(
        "padding by zero",
        "reference_design",
        "accumulator_t'(descriptor.padding_value)",
        "accumulator_t'(0)",
    ),
    Mutant("everything signed", "reference_design", "descriptor.input_signed", "1'b1"),
    Mutant("nothing signed", "reference_design", "descriptor.input_signed", "1'b0"),
    Mutant(
        "swapped lanes",
        "reference_design",
        "aligned[i*ACCUMULATOR_BITS+:ACTIVATION_BITS+1]",
        "aligned[(INPUTS-1-i)*ACCUMULATOR_BITS+:ACTIVATION_BITS+1]",
    ),
    Mutant("lanes never rotate", "reference_design", "32'(descriptor.rotation)", "0"),
    Mutant(
        "last lane not written",
        "reference_design",
        "lane <= 32'(descriptor.last_lane)",
        "lane < 32'(descriptor.last_lane)",
    ),
    Mutant(
        "first lanes overwritten", "reference_design", "lane >= 32'(descriptor.first_lane)", "1'b1"
    ),
    Mutant(
        "a row below the map",
        "address_generator",
        "row < descriptor.input_height",
        "row <= descriptor.input_height",
    ),
    Mutant("a column before the map", "address_generator", "column >= 0", "column >= -1"),
    Mutant(
        "address off by one",
        "address_generator",
        "row * descriptor.input_width + column",
        "row * descriptor.input_width + column + 1",
    ),
    Mutant(
        "kernel one column wider",
        "address_generator",
        "j == descriptor.kernel_width - 1",
        "j == descriptor.kernel_width",
    ),
    Mutant(
        "dilation ignored", "address_generator", "tap_row + descriptor.dilation_row", "tap_row + 1"
    ),
    Mutant(
        "stride ignored",
        "address_generator",
        "window_row + descriptor.stride_row",
        "window_row + 1",
    ),
    Mutant(
        "output step ignored",
        "address_generator",
        "ADDRESS_BITS'(descriptor.output_step)",
        "ADDRESS_BITS'(1)",
    ),
    Mutant(
        "rows not skewed", "systolic_array", "skewed[i][(i/GROUP+CELLS-1)%CELLS]", "skewed[i][0]"
    ),
    Mutant(
        "columns not aligned",
        "systolic_array",
        "aligned[c][(2*COLUMNS-2-c)%COLUMNS]",
        "aligned[c][0]",
    ),
    Mutant(
        "unsigned weights", "systolic_array", "sum_t'(weight[r][c])", "sum_t'({1'b0, weight[r][c]})"
    ),
    Mutant("passes overlap", "sequencer", "(pending == 0)", "1'b1"),
    Mutant("one weight row too few", "sequencer", "WEIGHT_WORDS - 1", "WEIGHT_WORDS - 2"),
    Mutant(
        "weights of a tile overwritten",
        "sequencer",
        "descriptor.keep_weights ? START : LOAD",
        "LOAD",
    ),
    Mutant(
        "zero point of the first factor",
        "reference_design",
        "activation_t'(descriptor.offset)",
        "activation_t'(0)",
    ),
    Mutant(
        "centre of the second factor",
        "reference_design",
        "accumulator_t'(descriptor.offset)",
        "accumulator_t'(0)",
    ),
    Mutant("row's entry off by one", "lookup_unit", "(row_address)", "(row_address + 1)"),
    Mutant(
        "divides too little",
        "reciprocal_unit",
        "remainder >= (DIVISOR_BITS + 1)'(divisor)",
        "remainder > (DIVISOR_BITS + 1)'(divisor)",
    ),
    Mutant("root too small", "square_root_unit", "trial >= candidate", "trial > candidate"),
    Mutant("smallest for largest", "softmax_unit", "value > peak", "value < peak"),
    Mutant(
        "hidden ones may be largest", "softmax_unit", "value >= lane_t'(descriptor.low)", "1'b1"
    ),
    Mutant("hidden ones count", "softmax_unit", "seen_before[1]", "1'b1"),
    Mutant(
        "distance beyond the table",
        "softmax_unit",
        "distance > last_entry ? last_entry : distance",
        "distance",
    ),
    Mutant(
        "softmax rounds down",
        "softmax_unit",
        "(product + (product_t'(1) << (shift - 6'd1))) >> shift",
        "product >> shift",
    ),
    Mutant("zero point in a norm", "normalize_unit", "wide_t'(descriptor.offset)", "64'sd0"),
    Mutant(
        "mean not subtracted",
        "normalize_unit",
        "element * descriptor.coefficient - sum",
        "element * descriptor.coefficient",
    ),
    Mutant(
        "elements not scaled",
        "normalize_unit",
        "element * descriptor.coefficient - sum",
        "element - sum",
    ),
    Mutant("no epsilon", "normalize_unit", "descriptor.start", "64'd0"),
    Mutant("squares not counted to the end", "normalize_unit", "7'(place + 1)", "7'(place)"),
    Mutant(
        "large squares not shifted", "normalize_unit", "squares >> (-half_shift_now * 2)", "squares"
    ),
    Mutant(
        "small squares not shifted", "normalize_unit", "squares << (half_shift_now * 2)", "squares"
    ),
    Mutant(
        "norm rounds down",
        "normalize_unit",
        "(product + (wide_t'(1) <<< (shift - 6'd1))) >>> shift",
        "product >>> shift",
    ),
    Mutant("gain of the next element", "normalize_unit", "gains[2]", "gains[1]"),
    Mutant("bias of the next element", "normalize_unit", "biases[2]", "biases[1]"),
    Mutant(
        "every norm is centred",
        "row_unit",
        "is_softmax || descriptor.centred ? 2'd0 : 2'd1",
        "2'd0",
    ),
    Mutant(
        "no norm is centred",
        "row_unit",
        "is_softmax || descriptor.centred ? 2'd0 : 2'd1",
        "is_softmax ? 2'd0 : 2'd1",
    ),
    Mutant(
        "a row's last element left out",
        "row_unit",
        "descriptor.kernel_width - 1",
        "descriptor.kernel_width - 2",
    ),
    Mutant(
        "last row left out",
        "row_unit",
        "descriptor.output_width - 1",
        "descriptor.output_width - 2",
    ),
    Mutant(
        "words of a row beside each other",
        "row_unit",
        "ADDRESS_BITS'(descriptor.input_width)",
        "ADDRESS_BITS'(1)",
    ),
    Mutant("gains for biases", "row_unit", "32'd1", "32'd0"),
    Mutant("first gains for all", "row_unit", "2 * word", "0"),
    Mutant("every lane written", "row_unit", "LANES'(1) << lanes[LATENCY-1]", "{LANES{1'b1}}"),
    Mutant("a walk ends early", "row_unit", "settled == 3'(LATENCY - 1)", "1'b1"),
    Mutant(
        "reciprocal too short",
        "row_unit",
        "is_softmax ? descriptor.reciprocal_bits : ROOT_EXPONENT",
        "ROOT_EXPONENT",
    ),
)


def plant(folder: Path) -> None:
    """Writes the RTL with every mutant in it; number 0 is none of them."""
    write_sources(folder)
    for file in {mutant.file for mutant in MUTANTS}:
        path = folder / f"{file}.sv"
        path.write_text(planted(path.read_text(), file))
    package, testbench = folder / "descriptor_package.sv", folder / "testbench.sv"
    replaced(package, "package descriptor_package;", "package descriptor_package;\n  int mutant;")
    replaced(testbench, "#1;", '#1;\n    if (!$value$plusargs("mutant=%d", mutant)) mutant = 0;')


def planted(text: str, file: str) -> str:
    """Returns a file in which each expression that has mutants is a choice by number."""
    choices: dict[str, str] = {}
    for number, mutant in enumerate(MUTANTS, start=1):
        if mutant.file == file:
            before = choices.get(mutant.right, "")
            number_is = f"descriptor_package::mutant == {number}"
            choices[mutant.right] = f"{before}{number_is} ? ({mutant.wrong}) : "
    header, module = text[: text.index("\nmodule ")], text[text.index("\nmodule ") :]
    spans = []
    for right, choice in choices.items():
        assert module.count(right) == 1, f"{right!r} occurs {module.count(right)} times in {file}"
        start = module.index(right)
        spans.append((start, start + len(right), f"({choice}({right}))"))
    spans.sort()
    assert all(a[1] <= b[0] for a, b in pairwise(spans)), f"expressions of {file} overlap"
    for start, end, choice in reversed(spans):
        module = module[:start] + choice + module[end:]
    return header + module


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Simulator]:
    """The export of one program, and a design with every mutant."""
    folder = tmp_path_factory.mktemp("mutants")
    program, codes = every_operator()
    export(program, folder / "export", codes, form=RtlForm(accelerator=NARROW), samples=1)
    plant(folder / "rtl")
    build = shared_folder(tmp_path_factory) / "rtl-mutants"
    return folder / "export", built(build, NARROW, sources_in(folder / "rtl"))


def test_the_design_with_no_mutant_chosen_is_right(design):
    folder, simulator = design
    assert simulate(folder, simulator=simulator).passed


@pytest.mark.parametrize("number", range(1, len(MUTANTS) + 1))
def test_a_mutant_is_found(design, number: int):
    folder, simulator = design
    chosen = replace(simulator, arguments=(f"+mutant={number}",))
    assert fault(folder, chosen) is not None, MUTANTS[number - 1]


@pytest.fixture(scope="module")
def dull(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a network in which no product is a tie."""
    folder = tmp_path_factory.mktemp("dull") / "export"
    program, codes = small_program(batch=1)
    export(program, folder, codes, form=RtlForm(accelerator=NARROW))
    return folder


@pytest.mark.parametrize("number", range(1, len(RESCALING_MUTANTS) + 1))
def test_a_wrong_rescaling_is_named_on_a_network_that_shows_no_tie(design, dull, number: int):
    chosen = replace(design[1], arguments=(f"+mutant={number}",))
    report = simulate(dull, simulator=chosen)
    assert not report.passed
    assert report.conformance is not None
    assert report.conformance.faults == (RESCALING_MUTANTS[number - 1].name,)
    if "halves" in RESCALING_MUTANTS[number - 1].name:
        assert report.mismatches == 0


def fault(folder: Path, simulator: Simulator) -> str | None:
    """What a simulation says is wrong."""
    try:
        report = simulate(folder, simulator=simulator)
    except EngineError as error:
        return str(error)
    return None if report.mismatches == 0 else str(report.first_mismatch)
