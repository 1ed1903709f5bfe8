import sys

import pytest
import torch

from photomask import zoo
from photomask.errors import DataError, MissingDependencyError, UsageError
from photomask.zoo import photographs

pytest.importorskip("skimage")
pytest.importorskip("sklearn")


def test_crops_are_normalised_and_deterministic():
    crops = zoo.photograph_crops(16, size=32)
    assert crops.shape == (16, 3, 32, 32)
    assert crops.dtype == torch.float32
    assert torch.equal(crops, zoo.photograph_crops(16, size=32))
    assert crops.min() >= -2.2
    assert crops.max() <= 2.7
    assert crops.std() > 0.5


def test_fewer_crops_are_a_prefix_of_more():
    assert torch.equal(zoo.photograph_crops(3, size=16), zoo.photograph_crops(9, size=16)[:3])


def test_another_seed_gives_other_crops():
    one, other = zoo.photograph_crops(8, size=16), zoo.photograph_crops(8, size=16, seed=1)
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_five_hundred_crops_are_distinct():
    crops = zoo.photograph_crops(500, size=16)
    assert len(crops.flatten(1).unique(dim=0)) == 500


@pytest.mark.parametrize(("count", "size"), [(0, 224), (1, 0)])
def test_nonsense_is_refused(count, size):
    with pytest.raises(UsageError, match="at least 1"):
        zoo.photograph_crops(count, size=size)


@pytest.mark.parametrize(
    ("module", "package"),
    [("PIL", "pillow"), ("skimage", "scikit-image"), ("sklearn", "scikit-learn")],
)
def test_an_absent_package_is_named_with_its_extra(monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    find = photographs.importlib.util.find_spec
    monkeypatch.setattr(
        photographs.importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    with pytest.raises(MissingDependencyError, match=rf"{package}.*photomask\[zoo\]"):
        zoo.photograph_crops(1)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no picture"])
def test_a_damaged_photograph_is_refused(tmp_path, monkeypatch, content):
    (tmp_path / "photographs_of_a_test").mkdir()
    (tmp_path / "photographs_of_a_test/__init__.py").touch()
    (tmp_path / "photographs_of_a_test/one.png").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    files = (("package", "photographs_of_a_test", "one.png"),)
    monkeypatch.setattr(photographs, "_FILES", files)
    with pytest.raises(DataError, match=r"one\.png"):
        zoo.photograph_crops(1)
