import gzip
import importlib
import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def pretraining(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("pretraining")


def test_few_labels_are_the_same_share_of_every_class(pretraining: ModuleType):
    labels = torch.arange(1000) % 4
    few = pretraining.few_labels(labels, 0.1, 0)
    assert torch.bincount(labels[few]).tolist() == [25, 25, 25, 25]
    assert len(set(few.tolist())) == 100
    assert torch.equal(few, pretraining.few_labels(labels, 0.1, 0))
    assert not torch.equal(few, pretraining.few_labels(labels, 0.1, 1))


def test_mnist_is_read_packed_or_not(pretraining: ModuleType, tmp_path: Path):
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    head = struct.pack(">HBB3I", 0, 8, 3, 2, 28, 28)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
    packed = gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2) + bytes([7, 3]))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(packed)
    images, labels = pretraining.mnist(str(tmp_path), "t10k")
    assert labels.tolist() == [7, 3]
    assert torch.allclose(images[:, 0] * 0.3530 + 0.2860, torch.from_numpy(pixels) / 255)


def test_the_table_has_a_line_for_each_network_and_start(pretraining: ModuleType, tmp_path: Path):
    rows = importlib.import_module("rows")
    table = importlib.import_module("pretraining_table")
    results = rows.Results("pretraining", tmp_path)
    for method, accuracy in (("from scratch", 80.0), ("XD", 85.5)):
        subject = rows.Subject("pretraining", f"photomask, {method}", "resnet20")
        results.number(subject, "w8a8_1%", accuracy, "%")
    head, *lines = table.build(rows.read("pretraining", tmp_path))
    assert head[:2] == ("network, start", "1 % of the labels, W8A8")
    assert [line[1] for line in lines] == ["80.00 %", "85.50 %"]
    assert lines[1][0].startswith("resnet20, photomask, XD")
