"""The tables of the page are what the code does."""

import re
from pathlib import Path

import numpy as np
import pytest

from photomask.chip.cost.accelerator import PRESETS, Accelerator
from photomask.chip.formats import IntFormat
from photomask.chip.forms.memory.bit_stream import StreamPacking
from photomask.chip.forms.memory.storages import NofMStorage, stored_bits
from photomask.chip.packing import Packing
from photomask.chip.sparsity import NofM
from photomask.chip.target import load_target

PAGE = (Path(__file__).parents[3] / "docs" / "explanation" / "hardware-model.md").read_text(
    encoding="utf-8"
)
ELEMENTS = 32 * 1024 * 5


def rows_below(heading: str) -> list[list[str]]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_fields_names_every_field_of_an_accelerator():
    named = [
        name for row in rows_below("The accelerator") for name in re.findall("`(.+?)`", row[0])
    ]
    assert sorted(named) == sorted(set(Accelerator.model_fields) - {"schema_version"})
    assert all(f"`{name}`" in PAGE for name in PRESETS)


@pytest.mark.parametrize("row", rows_below("Compressed weights"), ids=lambda row: row[0])
def test_the_table_of_compressed_weights_is_what_they_take(row: list[str]):
    target = load_target("asic")
    format = IntFormat(bits=int(row[0].split()[0]), signed=True)
    found = [Packing.of(format, target).words(ELEMENTS) * 32 / ELEMENTS]
    found.append(StreamPacking.of(format, target).bits_per_element(ELEMENTS))
    weight = np.zeros((ELEMENTS // 1024, 1024), dtype=np.int64)
    for kept in (2, 1):
        storage = NofMStorage(pattern=NofM(kept=kept, group=4))
        streams = storage.compress(weight, np.zeros(len(weight), dtype=np.int64))
        bits = stored_bits(storage, streams, format, weight.shape, target)
        found.append(bits / ELEMENTS)
    assert [float(cell) for cell in row[1:]] == pytest.approx(found, rel=1e-3)
