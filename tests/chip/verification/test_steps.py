"""What a report says of steps is what the exported files say."""

import json
from pathlib import Path

import pytest
from torch import Tensor, nn

from photomask.chip import IntegerProgram, Report, export, verify
from photomask.chip.cost import estimate, load_accelerator
from photomask.chip.cost.liveness import live_memory
from photomask.chip.forms.c.project import generate_c
from photomask.chip.forms.memory import MemoryForm
from photomask.chip.forms.rtl import RtlForm
from photomask.chip.verification.step_documents import Numbers

ACCELERATOR = "reference"


@pytest.fixture(scope="module")
def report(small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor) -> Report:
    return verify(
        small_network, small_program, small_images, oracle_samples=1, accelerator=ACCELERATOR
    )


def test_the_addresses_are_those_of_the_rtl_export(
    report: Report, small_program: IntegerProgram, small_images: Tensor, tmp_path: Path
):
    codes = small_program.quantize_input(small_images)
    form = RtlForm(accelerator=ACCELERATOR)
    export(small_program, tmp_path / "out", codes, form=form, samples=1)
    design = json.loads((tmp_path / "out" / "design.json").read_text())
    places = {step["edge"]: step["place"] for step in (*design["steps"], *design["inputs"])}
    assert len(places) == len(small_program.edges)
    for edge in (*report.inputs, *(step.output for step in report.steps)):
        assert edge.place is not None
        assert edge.place.model_dump() == places[edge.name]
    assert report.memory is not None
    assert report.memory.word_lanes == design["parameters"]["lanes"]
    assert (report.memory.activation_words or 0) <= design["parameters"]["activation_depth"]


def test_the_offsets_are_those_of_the_arena_of_the_c_form(
    report: Report, small_program: IntegerProgram
):
    plan = generate_c(small_program).plan
    offsets = {step.output.name: step.output.arena_offset for step in report.steps}
    assert {name: at for name, at in offsets.items() if at is not None} == {
        name: at for name, at in plan.offsets.items() if name in offsets
    }
    assert any(at is not None for at in offsets.values())
    assert report.memory is not None
    assert report.memory.arena_bytes == plan.bytes


def test_formats_scales_and_constants_are_those_of_the_manifest(
    report: Report, small_program: IntegerProgram, small_images: Tensor, tmp_path: Path
):
    codes = small_program.quantize_input(small_images)
    export(small_program, tmp_path / "out", codes, form=MemoryForm(), samples=1)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    edges = {edge["name"]: edge for edge in manifest["edges"]}
    images = {(image["step"], image["role"]): image for image in manifest["memory"]}
    bits = manifest["target"]["memory_word_bits"]
    for step, record in zip(report.steps, manifest["steps"], strict=True):
        edge = edges[step.output.name]
        assert (step.name, step.operator) == (record["name"], record["operator"]["kind"])
        assert list(step.inputs) == record["inputs"]
        assert step.output.format.model_dump() == edge["format"]
        assert (step.output.low, step.output.high) == (edge["low"], edge["high"])
        assert step.output.zero_point == edge["zero_point"]
        assert list(step.output.scale.values) == edge["scale"]
        for tensor in step.tensors:
            image = images[step.name, tensor.role]
            assert list(tensor.shape) == image["shape"]
            assert tensor.bytes == -(-image["words"] * bits // 8)


def test_multipliers_and_shifts_are_those_of_the_program(
    report: Report, small_program: IntegerProgram
):
    rescalings = [step for step in report.steps if step.operator == "requantize"]
    assert rescalings
    for found in rescalings:
        step = small_program.links.steps[found.name]
        for role in ("multiplier", "shift"):
            tensor = found.tensor(role)
            assert tensor is not None
            codes = small_program.parameters(step)[role]
            assert tensor.numbers.values == tuple(codes.reshape(-1).tolist())
            assert (tensor.numbers.low, tensor.numbers.high) == (codes.min(), codes.max())


def test_cycles_are_those_of_the_estimate(report: Report, small_program: IntegerProgram):
    hardware = estimate(small_program, load_accelerator(ACCELERATOR))
    assert report.hardware == hardware
    assert sum(step.cycles or 0 for step in report.steps) == hardware.totals.cycles.total
    for found in hardware.steps:
        for name in found.fused:
            step = next(step for step in report.steps if step.name == name)
            assert (step.cycles, step.fused_into) == (None, found.step)


def test_the_noise_of_a_step_is_that_of_the_node_whose_edge_it_makes(report: Report):
    noise = {layer.node: layer.sqnr_db for layer in report.layers}
    found = {step.output.name: step.sqnr_db for step in report.steps}
    assert {name: value for name, value in found.items() if value is not None} == {
        name: value for name, value in noise.items() if name in found
    }


def test_the_peak_memory_names_its_step(report: Report, small_program: IntegerProgram):
    live = live_memory(small_program)
    most = max(found.activation_bytes for found in live)
    first = next(found.step for found in live if found.activation_bytes == most)
    assert report.memory is not None
    assert report.memory.peak_activation_bytes == most
    assert report.memory.peak_activation_step == first


def test_without_an_accelerator_there_are_no_cycles_and_no_rtl_addresses(
    small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor
):
    found = verify(
        small_network, small_program, small_images, oracle_samples=1, multiplier_widths=()
    )
    assert found.hardware is None
    assert {step.cycles for step in found.steps} == {None}
    assert {step.output.place for step in found.steps} == {None}
    titles = next(s for s in found.page().sections if s.title == "Steps of the program").columns
    assert {"cycles", "RTL address"}.isdisjoint(column.title for column in titles)


def test_an_accelerator_that_is_no_reference_design_has_cycles_and_no_addresses(
    small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor
):
    machine = load_accelerator(ACCELERATOR).model_copy(update={"dataflow": "output_stationary"})
    found = verify(
        small_network,
        small_program,
        small_images,
        oracle_samples=1,
        multiplier_widths=(),
        accelerator=machine,
    )
    assert any(step.cycles for step in found.steps)
    assert {step.output.place for step in found.steps} == {None}


def test_of_many_numbers_the_ends_are_kept():
    assert Numbers.of([3, 1, 2]).values == (3, 1, 2)
    many = Numbers.of(list(range(65)))
    assert (many.count, many.low, many.high, many.values) == (65, 0, 64, ())


def test_a_report_of_version_0_1_is_still_read(report: Report):
    document = json.loads(report.render())
    for name in ("inputs", "steps", "memory", "worst_samples", "sensitivity", "hardware"):
        del document[name]
    for layer in document["layers"]:
        for name in ("float_values", "integer_values", "channels"):
            del layer[name]
    old = Report.parse(json.dumps(document), "report")
    titles = {section.title for section in old.page().sections}
    assert "Layers" in titles
    assert {"Steps of the program", "Channels", "Memory"}.isdisjoint(titles)
