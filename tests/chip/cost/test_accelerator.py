import json
from pathlib import Path

import pytest

from photomask.chip.cost.accelerator import (
    PRESETS,
    Accelerator,
    EnergyTable,
    load_accelerator,
)
from photomask.errors import DocumentError, TargetError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_json(name: str, tmp_path: Path):
    path = tmp_path / "machine.json"
    path.write_text(PRESETS[name].render())
    assert load_accelerator(name) == load_accelerator(path) == PRESETS[name]


def test_widths_of_a_multiply_accumulate_agree_with_the_source():
    energy = EnergyTable()
    without_sum = energy.model_copy(update={"add_32_pj": 0.0})
    assert without_sum.multiply_accumulate_pj(8, 8, 32) == 0.2
    assert without_sum.multiply_accumulate_pj(32, 32, 64) == pytest.approx(3.1, rel=0.04)
    without_product = energy.model_copy(update={"multiply_8x8_pj": 0.0})
    assert without_product.multiply_accumulate_pj(8, 8, 32) == 0.1
    assert without_product.multiply_accumulate_pj(8, 8, 8) == pytest.approx(0.03, rel=0.17)
    assert energy.multiply_accumulate_pj(4, 8, 32) == pytest.approx(0.2)


def test_part_of_the_energy_table_can_be_replaced(tmp_path: Path):
    document = json.loads(PRESETS["reference"].render())
    document["energy"] = {"external_byte_pj": 40.0}
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(document))
    assert load_accelerator(path).energy == EnergyTable(external_byte_pj=40.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", 0),
        ("columns", 5000),
        ("dataflow", "row_stationary"),
        ("weight_buffer_bytes", -1),
        ("memory_bytes_per_cycle", 0.0),
        ("clock_mhz", "fast"),
        ("energy", {"buffer_byte_pj": -1.0}),
        ("energy", {"dram": 1.0}),
        ("weight_bits", 65),
        ("speed", 3),
    ],
)
def test_what_no_machine_has_is_refused_with_its_field(field: str, value: object, tmp_path: Path):
    document = json.loads(PRESETS["reference"].render()) | {field: value}
    with pytest.raises(DocumentError, match=rf"machine\.json: field {field}"):
        Accelerator.parse(json.dumps(document), "machine.json")


def test_a_name_that_is_nothing_lists_the_presets():
    with pytest.raises(TargetError, match=r"'fast'.*reference, edge, output_stationary"):
        load_accelerator("fast")
