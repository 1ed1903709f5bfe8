"""The forms in which users have data, and what is refused with a way out."""

from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from photomask.chip.data import MOST_UNSIZED_SAMPLES, InputForm, read_batches, read_samples
from photomask.errors import DataError

ONE = [InputForm("x", (3, 4, 5))]
TWO = [InputForm("ids", (6,), integers=True), InputForm("x", (4,))]
X = torch.arange(8 * 60).reshape(8, 3, 4, 5).float()
LABELS = torch.arange(8) % 3
IDS, REAL = torch.arange(48).reshape(8, 6), torch.arange(32).reshape(8, 4).float()
Pair = namedtuple("Pair", "image target")


class Pictures(Dataset):
    """A map-style data set of samples."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"x": X[index], "label": int(LABELS[index])}


@pytest.mark.parametrize(
    "data",
    [
        X.numpy(),
        X.double(),
        X.numpy().astype(">f4"),
        X.numpy()[::-1][::-1],
        X.numpy().astype(np.longdouble),
        (X, LABELS),
        [X, LABELS.tolist()],
        ([X], LABELS),
        [X[:3], X[3:]],
        [(X[:3], LABELS[:3]), (X[3:], LABELS[3:])],
        {"x": X.numpy(), "labels": LABELS},
        UserDict(x=X),
        [{"x": X[:5]}, {"x": X[5:]}],
        [Pair(X, [{"boxes": 1}])],
        DataLoader(TensorDataset(X, LABELS), batch_size=3),
        DataLoader(Pictures(), batch_size=3),
        [X.clone().requires_grad_()],
    ],
)
def test_samples_are_the_same_in_every_form(data):
    (found,) = read_samples(ONE, data, what="data").inputs
    assert found.dtype == torch.float32
    assert torch.equal(found, X)
    assert not found.requires_grad


@pytest.mark.parametrize(
    "data",
    [
        (IDS, REAL),
        [IDS.int().numpy(), REAL],
        (IDS, REAL, LABELS),
        ((IDS, REAL), LABELS),
        {"x": REAL, "ids": IDS, "label": LABELS},
        ({"x": REAL, "ids": IDS}, LABELS),
        DataLoader(TensorDataset(IDS, REAL, LABELS), batch_size=4),
    ],
)
def test_two_inputs_are_told_from_labels_by_their_number(data):
    ids, real = read_samples(TWO, data, what="data").inputs
    assert ids.dtype == torch.int64
    assert torch.equal(ids, IDS)
    assert torch.equal(real, REAL)


def test_labels_come_along_and_are_cut_with_their_samples():
    batches = list(read_batches(ONE, (X, LABELS), what="data", size=3))
    assert [len(batch.labels) for batch in batches] == [3, 3, 2]
    assert torch.equal(torch.cat([batch.labels for batch in batches]), LABELS)
    loaded = read_samples(ONE, DataLoader(Pictures(), batch_size=5), what="data")
    assert torch.equal(loaded.labels, LABELS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X % 256).to(torch.uint8), r"x\.float\(\) / 255"),
        (X.long(), "units that the model was trained on"),
        (X.permute(0, 2, 3, 1), r"permute\(0, 3, 1, 2\)"),
        (X[0], r"x\[None\]"),
        (X[:, :2], r"expected \[batch, 3, 4, 5\]"),
        (X[:0], r"\[0, 3, 4, 5\]"),
        (X.double() * 1e300, "sample 0 holds NaN or infinity"),
        (X + 1j, "real"),
        (X.flatten(1).to_sparse(), "dense"),
        (np.array(["a"]), "numbers"),
        ({"image": X}, "lacks the input 'x'"),
        ({"x": X, "index": LABELS}, "'index'"),
        ([(X, LABELS, LABELS)], "tuple of 3"),
        (Pictures(), "DataLoader"),
        ("pictures", "a str"),
        (3, "a int"),
        ([], "no samples"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_way_out(data, message: str):
    with pytest.raises(DataError, match=message):
        read_samples(ONE, data, what="data")


def test_a_tensor_alone_is_refused_where_a_model_has_two_inputs():
    with pytest.raises(DataError, match=r"2 inputs \(ids, x\)"):
        read_samples(TWO, IDS, what="data")
    with pytest.raises(DataError, match="integer"):
        read_samples(TWO, (IDS.float(), REAL), what="data")


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_unsigned_integers_are_taken_or_refused_and_never_wrap(dtype):
    numbers = IDS.numpy().astype(dtype)
    ids, _ = read_samples(TWO, (numbers, REAL), what="data").inputs
    assert torch.equal(ids, IDS)
    with pytest.raises(DataError, match=r"0 to 47"):
        read_samples([InputForm("x", (6,))], torch.from_numpy(numbers), what="data")


@pytest.mark.parametrize("number", [2**63, 2**64 - 1])
def test_integers_beyond_int64_are_refused_by_name(number: int):
    numbers = IDS.numpy().astype(np.uint64)
    numbers[2, 3] = number
    for given in (numbers, torch.from_numpy(numbers)):
        with pytest.raises(DataError, match=f"'ids' holds {number}, beyond int64"):
            read_samples(TWO, (given, REAL), what="data")


@pytest.mark.parametrize("x", [X, X.long(), X > 3, X.numpy().astype(np.uint64)])
def test_samples_of_every_dtype_are_moved_to_the_forms_device(x):
    # The device "meta" stands for a GPU: it is another one than the data's.
    elsewhere = InputForm("x", (3, 4, 5), None, torch.device("meta"))
    for data in (x, {"x": x}, [(x, LABELS)]):
        (batch,) = read_batches([elsewhere], data, what="data")
        assert batch.inputs[0].device.type == "meta"
        assert batch.inputs[0].dtype in (torch.float32, torch.int64, torch.bool)


def test_an_endless_iterable_is_an_error_and_no_hang():
    def endless():
        while True:
            yield torch.zeros(MOST_UNSIZED_SAMPLES // 4, 1)

    with pytest.raises(DataError, match="islice"):
        list(read_batches([InputForm("x", (1,))], endless(), what="data"))
