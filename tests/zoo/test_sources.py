import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from photomask import zoo
from photomask.errors import DataError, UsageError

MODELS = """
import helper_beside_it
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(helper_beside_it.SIZE, 2)

    def forward(self, x):
        return self.layer(x)

def build():
    return Small()

ready = Small()
number = 3

def breaks():
    raise RuntimeError("no such checkpoint")

def returns_text():
    return "model"

def needs_argument(width):
    return Small()
"""


@pytest.fixture
def user_file(tmp_path):
    (tmp_path / "helper_beside_it.py").write_text("SIZE = 4\n")
    path = tmp_path / "network.py"
    path.write_text(MODELS)
    yield path
    sys.modules.pop("helper_beside_it", None)


@pytest.mark.parametrize("attribute", ["build", "Small", "ready"])
def test_a_users_function_class_or_instance_becomes_a_model(user_file, attribute):
    model = zoo.load_model(f"{user_file}:{attribute}")
    assert isinstance(model, nn.Module)
    assert not model.training
    assert model(torch.zeros(1, 4)).shape == (1, 2)
    assert str(user_file.parent) not in sys.path


def test_two_files_of_one_name_do_not_share_a_module(tmp_path):
    for name, size in (("first", 2), ("second", 3)):
        (tmp_path / name).mkdir()
        text = f"from torch import nn\nclass Net(nn.Linear):\n    pass\nnet = Net({size}, 1)\n"
        (tmp_path / name / "same.py").write_text(text)
    first = zoo.load_model(f"{tmp_path}/first/same.py:net")
    second = zoo.load_model(f"{tmp_path}/second/same.py:net")
    assert type(first).__module__ == "photomask_user_same"
    assert type(second).__module__ != type(first).__module__


def test_a_name_of_the_zoo_is_a_model():
    assert type(zoo.load_model("resnet20")).__name__ == "ResNet"


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("missing", "no attribute 'missing'; it has: Small, build"),
        ("", "no attribute ''"),
        ("number", "gave builtins.int, not a torch.nn.Module"),
        ("returns_text", "gave builtins.str"),
        ("needs_argument", "TypeError"),
    ],
)
def test_what_is_wrong_with_a_users_attribute_is_said(user_file, attribute, message):
    with pytest.raises(UsageError, match=message):
        zoo.load_model(f"{user_file}:{attribute}")


def test_an_error_in_the_users_function_is_chained(user_file):
    with pytest.raises(UsageError, match="RuntimeError: no such checkpoint") as caught:
        zoo.load_model(f"{user_file}:breaks")
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("text", ["def build(:", "raise ValueError('early')", "exit(3)"])
def test_a_file_that_cannot_be_imported_is_refused(tmp_path, text):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"broken\.py"):
        zoo.load_model(f"{path}:build")


def test_missing_files_and_unknown_names_are_said(tmp_path):
    with pytest.raises(UsageError, match=r"no file .*absent\.py"):
        zoo.load_model(f"{tmp_path}/absent.py:build")
    with pytest.raises(UsageError, match=r"resnet20.*file\.py:function"):
        zoo.load_model("resnet2")
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(UsageError, match="not a Python file"):
        zoo.load_model(f"{tmp_path}/weights.bin:build")


def test_images_come_from_npy_files(tmp_path):
    values = np.linspace(-1, 1, 24).reshape(2, 3, 2, 2)
    np.save(tmp_path / "x.npy", values)
    images = zoo.load_images(str(tmp_path / "x.npy"))
    assert images.dtype == torch.float32
    assert torch.equal(images, torch.from_numpy(values).float())


def test_images_come_from_functions_in_batches(tmp_path):
    path = tmp_path / "data.py"
    path.write_text(
        "import torch\ndef batches():\n    yield torch.zeros(2, 3)\n    yield torch.ones(1, 3)\n"
        "array = torch.zeros(5, 2).numpy()\n"
    )
    assert zoo.load_images(f"{path}:batches").tolist() == [[0] * 3, [0] * 3, [1] * 3]
    assert zoo.load_images(f"{path}:array").shape == (5, 2)


def test_images_come_by_name():
    assert torch.equal(zoo.load_images("fashion_mnist"), zoo.calibration_set()[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((0, 3)), "no samples"),
        (np.zeros(3), "no samples"),
        (np.zeros((2, 3), np.uint8), "uint8"),
        (np.full((2, 3), np.nan), "NaN"),
        (np.full((2, 3), np.inf, np.float32), "infinity"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, values, message):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(DataError, match=message):
        zoo.load_images(str(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = []", "no samples"),
        ("x = [np.zeros((1, 2)), np.zeros((1, 3))]", "different shapes"),
        ("x = 'text'", r"builtins\.str"),
        ("x = {'a': 1}", r"builtins\.int"),
        ("x = {'a': 1, 'b': 2}", r"array 'a', is builtins\.int"),
        ("x = [1, 2]", r"builtins\.int"),
    ],
)
def test_bad_values_from_files_are_refused(tmp_path, text, message):
    path = tmp_path / "data.py"
    path.write_text(f"import numpy as np\n{text}\n")
    with pytest.raises(DataError, match=message):
        zoo.load_images(f"{path}:x")


def test_damaged_missing_and_unknown_images_are_said(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"x\.npy"):
        zoo.load_images(str(tmp_path / "x.npy"))
    with pytest.raises(UsageError, match="no file"):
        zoo.load_images(str(tmp_path / "y.npy"))
    with pytest.raises(UsageError, match="fashion_mnist, photographs"):
        zoo.load_images("cifar")


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="plain"):
        zoo.load_images(str(tmp_path / "x.npy"))


def test_weights_behind_a_name_replace_those_of_the_zoo(tmp_path):
    path = tmp_path / "weights.safetensors"
    fresh = zoo.load_model("resnet20", untrained_seed=4)
    safetensors.torch.save_file(fresh.state_dict(), path)
    loaded = zoo.load_model(f"resnet20@{path}")
    assert not loaded.training
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name])
    trained = zoo.load("resnet20").state_dict()
    assert not torch.equal(loaded.state_dict()["stem.weight"], trained["stem.weight"])
    again = zoo.load_model(f"resnet20@{path}", untrained_seed=5)
    assert torch.equal(again.state_dict()["stem.weight"], fresh.state_dict()["stem.weight"])


def test_weights_of_another_network_or_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    state = zoo.load_model("resnet20", untrained_seed=4).state_dict()
    safetensors.torch.save_file(state, path)
    with pytest.raises(DataError, match=r"are not those of MobileNetV1: they differ in"):
        zoo.load_model(f"mobilenet_v1@{path}")
    state["stem.weight"] = state["stem.weight"] / 0
    safetensors.torch.save_file(state, path)
    with pytest.raises(DataError, match=r"NaN or infinity in 'stem\.weight'"):
        zoo.load_model(f"resnet20@{path}")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        zoo.load_model(f"resnet20@{path}")
    with pytest.raises(UsageError, match="no file of weights"):
        zoo.load_model("resnet20@nowhere.safetensors")
