"""Labels that are no classes are refused before anything computes with them."""

import numpy as np
import pytest
import torch

from photomask.chip.labels import class_labels
from photomask.errors import DataError

LABELS = torch.tensor([0, 3, 1, 2])


@pytest.mark.parametrize(
    "labels", [LABELS, LABELS.numpy(), LABELS.tolist(), LABELS.int(), LABELS.to(torch.uint8)]
)
def test_integers_of_any_kind_become_int64(labels):
    found = class_labels(labels, (4,), 4, "labels")
    assert found.dtype == torch.int64
    assert torch.equal(found, LABELS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 1, "labels - 1"),
        (LABELS - 1, "-1 to 2; the output has 4 classes, 0 to 3"),
        (LABELS.float(), r"labels\.long\(\)"),
        (LABELS[:3], "4 samples"),
        (torch.eye(4, dtype=torch.int64), r"argmax\(1\)"),
        (LABELS[:, None], r"labels\[:, 0\]"),
        (LABELS > 1, "torch.bool"),
        (["a", "b"], "list of integers"),
        ([0, 1, 2, 2**63], "no integer of 64 bits"),
        (np.array(["a"]), "numbers"),
        (torch.full((4,), -100), "-100 to -100"),
    ],
)
def test_no_classes_are_refused_with_the_way_out(labels, message: str):
    with pytest.raises(DataError, match=message):
        class_labels(labels, (4,), 4, "labels")


def test_a_mark_for_places_without_a_class_is_let_through():
    dense = torch.tensor([[0, -100], [1, 3]])
    assert torch.equal(class_labels(dense, (4, 2), 2, "labels", ignored=-100), dense)


@pytest.mark.parametrize("ignored", [None, -1])
def test_unsigned_labels_beyond_int64_are_refused_and_never_wrap(ignored: int | None):
    labels = np.array([0, 2, 2**64 - 1, 2**63], dtype=np.uint64)
    with pytest.raises(DataError, match="labels of output 'y' go up to 18446744073709551615"):
        class_labels(labels, [3], 4, "labels of output 'y'", ignored=ignored)


def test_unsigned_labels_that_are_classes_are_taken():
    labels = class_labels(np.array([0, 2], dtype=np.uint64), [3], 2, "labels")
    assert labels.dtype is torch.int64
    assert labels.tolist() == [0, 2]
