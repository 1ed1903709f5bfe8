"""Descriptors in Python and in SystemVerilog are one format."""

import re
from dataclasses import fields, replace
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from photomask.chip.forms.rtl.descriptors import (
    DESCRIPTOR_BITS,
    FIELDS,
    ROUNDINGS,
    STOP,
    Combine,
    Descriptor,
    Operation,
    render_table,
)
from photomask.chip.forms.rtl.readme import FIELD_MEANINGS
from photomask.errors import FormError

PACKAGE = resources.files("photomask.chip.forms.rtl") / "sources" / "descriptor_package.sv"
ENUM_BITS = {"operation_t": 4, "combine_t": 4, "rounding_t": 4}
WIDTHS = dict(FIELDS)


@st.composite
def descriptors(draw: st.DrawFn) -> Descriptor:
    values: dict[str, int] = {}
    for field in fields(Descriptor):
        bits = WIDTHS[field.name]
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if bits >= 32 else (0, 2**bits - 1)
        values[field.name] = draw(st.integers(low, high))
    values["operation"] = draw(st.sampled_from(list(Operation)))
    values["combine"] = draw(st.sampled_from(list(Combine)))
    return Descriptor(**values)  # type: ignore[arg-type]


@given(descriptors())
def test_decoding_is_the_inverse_of_encoding(descriptor: Descriptor):
    word = descriptor.encode()
    assert 0 <= word < 1 << DESCRIPTOR_BITS
    assert Descriptor.decode(word) == descriptor


def test_the_package_has_the_same_fields_in_the_same_order():
    struct = re.search(r"typedef struct packed \{(.*?)\} descriptor_t;", PACKAGE.read_text(), re.S)
    assert struct is not None
    found = []
    for line in struct[1].strip().splitlines():
        kind, name = re.match(r"\s*(.*?)\s+(\w+);", line).groups()  # type: ignore[union-attr]
        width = re.search(r"\[(\d+):0\]", kind)
        assert ("signed" in kind) == (name in SIGNED), name
        found.append((name, ENUM_BITS.get(kind) or (int(width[1]) + 1 if width else 1)))
    assert tuple(found) == FIELDS


SIGNED = {name for name, bits in FIELDS if bits == 64} | {
    "input_height",
    "input_width",
    "origin_row",
    "origin_column",
    "stride_row",
    "stride_column",
    "dilation_row",
    "dilation_column",
}


@pytest.mark.parametrize(
    ("enum", "names"),
    [
        ("operation_t", [one.name for one in Operation]),
        ("combine_t", [one.name for one in Combine]),
        ("rounding_t", [one.name for one in ROUNDINGS]),
    ],
)
def test_the_package_has_the_same_numbers(enum: str, names: list[str]):
    body = re.search(r"typedef enum logic \[3:0\] \{([^}]*)\} " + enum, PACKAGE.read_text())
    assert body is not None
    assert re.findall(r"(\w+)\s*= 4'd(\d+)", body[1]) == [
        (name, str(number)) for number, name in enumerate(names)
    ]


def test_every_field_is_explained():
    assert list(FIELD_MEANINGS) == [name for name, _ in FIELDS]


@pytest.mark.parametrize(
    ("field", "value"),
    [("first_lane", 256), ("first_lane", -1), ("output_address", 1 << 31), ("offset", 1 << 63)],
)
def test_a_number_that_its_field_cannot_hold_is_refused(field: str, value: int):
    with pytest.raises(FormError, match=f"{field} is {value}"):
        replace(STOP, **{field: value})


def test_the_table_ends_with_a_stop():
    lines = render_table([Descriptor(Operation.VECTOR)]).splitlines()
    assert len(lines) == 3
    assert Descriptor.decode(int(lines[1], 16)).operation is Operation.VECTOR
    assert int(lines[2], 16) >> (DESCRIPTOR_BITS - 4) == Operation.STOP
    assert {len(line) for line in lines[1:]} == {DESCRIPTOR_BITS // 4}
