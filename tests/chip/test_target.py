"""Targets: strict documents whose presets state what real executors do."""

import json

import pytest
from pydantic import ValidationError

from photomask.chip.target import PRESETS, Rounding, Target, ZeroPoints, load_target
from photomask.errors import DocumentError, TargetError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_file(name: str, tmp_path):
    path = tmp_path / "target.json"
    path.write_text(PRESETS[name].render())
    assert load_target(path) == PRESETS[name] == load_target(name)


def test_onnx_runtime_multiplies_by_a_float32_and_rounds_half_to_even():
    target = PRESETS["onnxruntime"]
    assert (target.rounding, target.multiplier_bits) == (Rounding.HALF_EVEN, 24)


def test_tflite_and_tosa_round_twice_with_31_bit_multipliers():
    target = PRESETS["tflite"]
    assert (target.rounding, target.multiplier_bits) == (Rounding.DOUBLE, 31)
    assert (target.shift_min, target.shift_max) == (2, 62)


def test_deeploy_adds_half_and_shifts_by_one_amount_per_operator():
    target = PRESETS["deeploy"]
    assert target.rounding is Rounding.HALF_UP
    assert not target.per_channel_shift
    assert target.zero_points is ZeroPoints.NONE


def test_max78000_shifts_alone_and_adds_half():
    target = PRESETS["max78000"]
    assert target.rounding is Rounding.HALF_UP
    assert target.power_of_two_only
    assert target.weight_bits == (1, 2, 4, 8)
    assert target.zero_points is ZeroPoints.NONE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("multiplier_bits", 3),
        ("multiplier_bits", 32),
        ("multiplier_bits", 16.0),
        ("multiplier_bits", "16"),
        ("multiplier_bits", True),
        ("shift_min", -1),
        ("shift_min", 48),
        ("shift_max", 63),
        ("accumulator_bits", 48),
        ("weight_bits", []),
        ("weight_bits", [0]),
        ("activation_bits", [17]),
        ("rounding", "nearest"),
        ("zero_points", None),
        ("schema_version", 2),
        ("name", ""),
        ("colour", "red"),
    ],
)
def test_what_no_hardware_can_mean_is_refused(field: str, value):
    document = json.loads(PRESETS["asic"].render()) | {field: value}
    with pytest.raises(DocumentError, match=field):
        Target.parse(
            json.dumps(document | {"multiplier_bits": document["multiplier_bits"]}), "here"
        )


def test_a_missing_name_is_refused():
    with pytest.raises(DocumentError, match="name"):
        Target.parse("{}", "here")


def test_a_target_never_changes():
    with pytest.raises(ValidationError, match="frozen"):
        PRESETS["asic"].rounding = Rounding.TRUNCATE  # type: ignore[misc]


def test_an_unknown_name_lists_the_presets():
    with pytest.raises(TargetError, match="asic, onnxruntime, tflite"):
        load_target("fpga")
