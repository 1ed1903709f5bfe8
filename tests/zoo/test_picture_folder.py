import json

import numpy as np
import pytest
import torch
from PIL import Image

from photomask import zoo
from photomask.errors import DataError, DocumentError, UsageError

FORM = {"size": [2, 3], "channels": 1, "mean": [0.5], "std": [0.25]}


def write_picture(path, value, size=(3, 2)):
    path.parent.mkdir(exist_ok=True)
    Image.new("L", size, value).save(path)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    (place / "preprocessing.json").write_text(json.dumps(FORM))
    return place


def test_pictures_become_what_the_folder_says(folder):
    write_picture(folder / "b.png", 255)
    write_picture(folder / "a.PNG", 51)
    (folder / ".DS_Store").write_bytes(b"hidden")
    images, labels = zoo.load_labelled(str(folder))
    assert labels is None
    assert images.shape == (2, 1, 2, 3)
    assert torch.allclose(images.flatten(1)[:, 0], torch.tensor([(0.2 - 0.5) / 0.25, 2.0]))
    assert torch.equal(zoo.load_images(str(folder)), images)


def test_colours_are_channels_and_other_sizes_are_resized(folder):
    form = {"size": [4, 4], "channels": 3, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 0.5]}
    (folder / "preprocessing.json").write_text(json.dumps(form))
    Image.new("RGB", (9, 5), (255, 0, 51)).save(folder / "x.png")
    images, _ = zoo.load_labelled(str(folder))
    assert images.shape == (1, 3, 4, 4)
    assert torch.allclose(images[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.4]))


def test_sub_folders_are_classes_in_the_order_of_their_names(folder):
    for name, value in (("dog", 10), ("cat", 20), ("ant", 30)):
        write_picture(folder / name / "0.png", value)
    write_picture(folder / "cat" / "1.png", 25)
    images, labels = zoo.load_labelled(str(folder))
    assert labels is not None
    assert labels.tolist() == [0, 1, 1, 2]
    pixels = (images.flatten(1)[:, 0] * 0.25 + 0.5) * 255
    assert pixels.round().int().tolist() == [30, 20, 25, 10]


@pytest.mark.parametrize(("room", "fits"), [(72, True), (71, False)])
def test_pictures_are_limited_by_the_memory_that_they_take(folder, monkeypatch, room, fits):
    monkeypatch.setattr("photomask.zoo.picture_folder.MOST_BYTES", room)
    for number in range(3):  # each is 2x3 float32, whatever the file has
        write_picture(folder / f"{number}.png", number, size=(30, 20))
    if fits:
        assert len(zoo.load_images(str(folder))) == 3
        return
    with pytest.raises(DataError, match=r"72 bytes of memory at 24 each.* keep 2 of them there"):
        zoo.load_images(str(folder))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "preprocessing.json").unlink(), "does not say how its pictures"),
        (lambda f: (f / "a.png").unlink(), "holds no pictures"),
        (lambda f: (f / "notes.txt").write_text("x"), "notes.txt is not a picture"),
        (lambda f: (f / "b.png").write_bytes(b"no picture"), "cannot read the picture"),
        (lambda f: write_picture(f / "cat" / "0.png", 1), "'a.png' beside its 1 sub-folders"),
        (lambda f: Image.new("I;16", (3, 2), 30_000).save(f / "b.png"), "more than 8 bits"),
        (lambda f: Image.new("F", (3, 2), 0.5).save(f / "a.tiff"), "a.tiff is not a picture"),
    ],
)
def test_what_is_no_folder_of_pictures_is_refused(folder, spoil, message):
    write_picture(folder / "a.png", 1)
    spoil(folder)
    with pytest.raises(DataError, match=message):
        zoo.load_images(str(folder))


def test_a_class_without_pictures_is_refused_because_it_would_shift_the_others(folder):
    write_picture(folder / "cat" / "0.png", 1)
    (folder / "ant").mkdir()
    with pytest.raises(DataError, match="ant holds no pictures"):
        zoo.load_images(str(folder))


@pytest.mark.parametrize(
    "change", [{"channels": 2}, {"mean": [0.5, 0.5]}, {"std": [0]}, {"size": [0, 3]}, {"more": 1}]
)
def test_an_impossible_preprocessing_is_refused(folder, change):
    write_picture(folder / "a.png", 1)
    (folder / "preprocessing.json").write_text(json.dumps(FORM | change))
    with pytest.raises(DocumentError, match=r"preprocessing\.json"):
        zoo.load_images(str(folder))


@pytest.mark.parametrize("change", [{"mean": [1e300]}, {"std": [1e-45]}])
def test_pictures_beyond_float32_are_refused(folder, change):
    write_picture(folder / "a.png", 7)
    (folder / "preprocessing.json").write_text(json.dumps(FORM | change))
    with pytest.raises(DataError, match=r"beyond float32.*preprocessing\.json"):
        zoo.load_images(str(folder))


def test_labels_lie_beside_an_array_or_in_its_archive(tmp_path):
    x, y = np.ones((3, 2), np.float32), np.array([2, 0, 1])
    np.save(tmp_path / "x.npy", x)
    assert zoo.load_labelled(str(tmp_path / "x.npy"))[1] is None
    np.save(tmp_path / "x.labels.npy", y)
    np.savez(tmp_path / "both.npz", images=x, labels=y)
    for name in ("x.npy", "both.npz"):
        images, labels = zoo.load_labelled(str(tmp_path / name))
        assert torch.equal(images, torch.ones(3, 2))
        assert labels is not None
        assert labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize("key", ["labels", "label"])
@pytest.mark.parametrize(("real", "whole"), [(">f4", ">i8"), ("<f2", "<u2"), (">f8", ">i2")])
def test_arrays_of_any_width_and_byte_order_are_read(tmp_path, key, real, whole):
    x, y = np.array([[0.5], [2.0], [-1.0]], real), np.array([2, 0, 1], whole)
    np.savez(tmp_path / "a.npz", anything=x, **{key: y})
    images, labels = zoo.load_labelled(str(tmp_path / "a.npz"))
    assert images.tolist() == [[0.5], [2.0], [-1.0]]
    assert labels is not None
    assert labels.tolist() == [2, 0, 1]


def test_labels_may_be_one_for_each_place_of_a_sample(tmp_path):
    y = np.arange(12).reshape(3, 2, 2)
    np.savez(tmp_path / "a.npz", x=np.ones((3, 1, 2, 2)), labels=y)
    labels = zoo.load_labelled(str(tmp_path / "a.npz"))[1]
    assert labels is not None
    assert labels.tolist() == y.tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((3, 2)), "labels": np.zeros(2, int)}, r"expected \[3\]"),
        ({"x": np.ones((3, 2)), "labels": np.zeros(3)}, "expected integers"),
        ({"x": np.ones((3, 2)), "y": np.ones(3)}, "'y', holds no samples"),
        ({"labels": np.zeros(3, int)}, "the arrays labels; expected an array for each input"),
        ({"x": np.ones((3, 2)), "labels": np.array(3)}, r"expected \[3\]"),
        ({"x": np.ones((3, 2)), "labels": np.array(["a", "b", "c"])}, "labels: the array holds"),
        (
            {"x": np.ones((3, 2)), "label": np.zeros(3, int), "labels": np.zeros(3, int)},
            "both labels and label",
        ),
        ({"x": np.array(["a", "b"])}, "the array holds <U1; expected numbers"),
        ({"x": np.zeros((3, 2), "M8[D]")}, "expected numbers"),
        ({"x": np.ones((3, 2)), "y": np.ones((4, 2))}, "3 of 'x', 4 of 'y'"),
        (
            {"x": np.ones((3, 2)), "y": np.full((3, 2), 1e300)},
            "'y', holds NaN or infinity, or numb",
        ),
        (
            {"x": np.ones((3, 2)), "labels": np.full(3, 2**64 - 1, np.uint64)},
            "18446744073709551615, beyond int64",
        ),
    ],
)
def test_an_archive_that_cannot_be_understood_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        zoo.load_images(str(tmp_path / "a.npz"))


def test_an_absent_archive_is_named(tmp_path):
    with pytest.raises(UsageError, match="no file"):
        zoo.load_images(str(tmp_path / "gone.npz"))
