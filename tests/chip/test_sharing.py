"""A tensor that a model uses at several places: one parameter, one quantizer, one image."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photomask.chip import (
    NumpyEngine,
    PreparedModel,
    TorchEngine,
    align_to_target,
    calibrate,
    check_export,
    convert,
    export,
    load_recipe,
    load_target,
    prepare,
    verify,
)
from photomask.chip.equalization import correct_biases, equalize, smooth
from photomask.chip.forms import CForm
from photomask.chip.graph import capture, simplify
from photomask.chip.reconstruction import ReconstructionSettings, reconstruct
from photomask.chip.training import TrainingSettings, keep_batch_norms, train
from photomask.chip.weight_rounding import compensate_rounding, scale_salient_channels
from photomask.errors import UsageError

ASIC = load_target("asic")
ROWS = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
PICTURES = torch.randn(16, 4, 6, 6, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(0, 12, (48, 5), generator=torch.Generator().manual_seed(0))


class Unrolled(nn.Module):
    """A recurrent cell, three steps."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.cell(x))
        return self.head(x)


class Listed(nn.Module):
    """Two convolutions with one filter from a list, and biases of their own."""

    def __init__(self):
        super().__init__()
        self.filters = nn.ParameterList([torch.randn(4, 4, 3, 3) / 6])
        self.biases = nn.ParameterList([torch.randn(4), torch.randn(4)])

    def forward(self, x: Tensor) -> Tensor:
        for bias in self.biases:
            x = F.relu(F.conv2d(x, self.filters[0], bias, padding=1))
        return x


class Computed(nn.Module):
    """A weight that is computed from parameters, used twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.relu(self.layer(x)))


class Blocks(nn.Module):
    """One block of norm and layer, applied twice."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(8), nn.Linear(8, 8)
        with torch.no_grad():
            self.norm.weight.copy_(torch.logspace(-1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = x + torch.tanh(self.layer(self.norm(x)))
        return x


class Transposed(nn.Module):
    """An autoencoder whose decoder has the transposed weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(F.linear(x, self.weight)), self.weight.t())


class Tied(nn.Module):
    """A head with the weight of the embedding, behind a norm."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(12, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.embed.weight
        with torch.no_grad():
            self.norm.weight.copy_(torch.logspace(-1, 1, 8))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.embed(tokens)))


class TwoNorms(nn.Module):
    """One convolution before two batch norms."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])
        for at, norm in enumerate(self.norms):
            nn.init.constant_(norm.weight, 1.0 + at)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.norms:
            x = F.relu(norm(self.layer(x)))
        return x


class OneNorm(nn.Module):
    """One convolution and its batch norm, applied twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.weight, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = F.relu(self.norm(self.layer(x)))
        return x


class TwoReadings(nn.Module):
    """One embedding of two columns of tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer = nn.Embedding(12, 8), nn.Linear(8, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        a, b = self.embed(tokens[:, :2]), self.embed(tokens[:, 2:4])
        return self.layer(torch.cat([a, b * 0.5], dim=1))


MODELS = {
    "unrolled": (Unrolled, ROWS),
    "listed": (Listed, PICTURES),
    "computed": (Computed, ROWS),
    "blocks": (Blocks, ROWS),
    "one norm": (OneNorm, PICTURES),
}
ALL = {**MODELS, "transposed": (Transposed, ROWS), "tied": (Tied, TOKENS)}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    kind, data = ALL[name]
    return kind().eval(), data


def data_of(x: Tensor) -> Tensor | list[Tensor]:
    return x if x.is_floating_point() else [x]


def prepared_of(name: str, recipe: str = "w8a8") -> tuple[PreparedModel, Tensor]:
    model, data = made(name)
    return prepare(model, load_recipe(recipe), data[:1]), data


@pytest.mark.parametrize("name", ALL)
def test_the_float_results_and_the_gradients_are_those_of_the_model(name: str):
    """Without quantizers, the gradient of the one parameter is the sum over all places."""
    model, data = made(name)
    prepared = prepare(model, load_recipe("w8a8"), data[:1])
    *_, (_, found) = prepared.graph.run([data], prepared.constants_of)
    expected = model(data)
    assert torch.allclose(found, expected, atol=1e-5)
    if name in ("computed", "one norm"):
        return  # their weights are functions of several parameters
    found.square().sum().backward()
    expected.square().sum().backward()
    own = [p.grad for p in model.parameters() if p.grad is not None]
    for gradient in own:
        close = [
            torch.allclose(p.grad, gradient, rtol=1e-4, atol=1e-4)
            for p in prepared.weights.values()
            if p.grad is not None and p.shape == gradient.shape
        ]
        assert any(close)


@pytest.mark.parametrize("name", MODELS)
def test_one_parameter_one_quantizer_and_one_tensor_of_the_program(name: str):
    prepared, data = prepared_of(name)
    layers = [node for node in prepared.graph.nodes if "weight" in node.constants]
    first, second = layers[:2]
    assert first.constants["weight"] == second.constants["weight"]
    assert prepared.weight_quantizer(first.name) is prepared.weight_quantizer(second.name)
    calibrate(prepared, data)
    program = convert(prepared, ASIC)
    names = [step.tensors["weight"] for step in program.steps if "weight" in step.tensors]
    assert len(names) == len(layers)
    assert len(set(names)) == len({node.constants["weight"] for node in layers})
    assert len([key for key in program.tensors if key.endswith(".weight")]) == len(set(names))
    codes = {edge: program.quantize_input(data, edge) for edge in program.inputs}
    expected = NumpyEngine(program).run({edge: x.numpy() for edge, x in codes.items()})
    found = TorchEngine(program).run(codes)
    assert all((expected[edge] == found[edge].numpy()).all() for edge in expected)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("recipe", ["w8a8", "w4a8"])
def test_every_function_keeps_one_parameter_and_a_program_that_verifies(name: str, recipe: str):
    model, data = made(name)
    prepared = prepare(model, load_recipe(recipe), data[:1])
    count, given = len(prepared.weights), data_of(data)
    smooth(prepared, given, strength=0.5, shift=True)
    equalize(prepared)
    scale_salient_channels(prepared, given, steps=2)
    correct_biases(prepared, given)
    with torch.no_grad():
        *_, (_, found) = prepared.graph.run([data], prepared.constants_of)
        expected = model(data)
    if recipe == "w8a8":  # corrected biases move by what few bits lose
        assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())
    calibrate(prepared, given)
    compensate_rounding(prepared, given)
    align_to_target(prepared, ASIC)
    assert len(prepared.weights) == count
    report = verify(model, convert(prepared, ASIC), data, multiplier_widths=())
    assert report.outputs[0].sqnr_db > (25 if recipe == "w8a8" else 10)


@pytest.mark.parametrize("name", MODELS)
def test_reconstruction_rounds_a_weight_for_all_its_places(name: str):
    prepared, data = prepared_of(name, "w4a8")
    calibrate(prepared, data)
    settings = ReconstructionSettings(iterations=20, granularity="network")
    report = reconstruct(prepared, data, settings=settings)
    assert report.sqnr_after_db >= report.sqnr_before_db
    convert(prepared, ASIC)


@pytest.mark.parametrize("name", ALL)
def test_training_keeps_one_parameter(name: str):
    prepared, data = prepared_of(name, "w8a8")
    calibrate(prepared, data_of(data))
    count = len(list(prepared.parameters()))
    settings = TrainingSettings(epochs=1, batch_size=8, learning_rate=0.01, distillation=1)
    train(prepared, (data, torch.zeros(len(data), dtype=torch.int64)), settings)
    assert len(list(prepared.parameters())) == count
    program = convert(prepared, ASIC)
    names = {step.tensors["weight"] for step in program.steps if "weight" in step.tensors}
    weights = {node.constants["weight"] for node in prepared.graph.nodes if has_weight(node)}
    assert len(names) == len(weights)


def has_weight(node) -> bool:
    return "weight" in node.constants


def test_a_shared_block_is_smoothed_by_one_factor_and_a_recurrent_cell_left_alone():
    prepared, data = prepared_of("blocks")
    assert smooth(prepared, data, strength=0.7, shift=True) == 2
    prepared, data = prepared_of("unrolled")
    assert smooth(prepared, data) == 0
    assert equalize(prepared) == 0


def test_a_tied_head_is_smoothed_and_its_table_stays():
    prepared, data = prepared_of("tied")
    before = prepared.weights["embed/table"].detach().clone()
    assert smooth(prepared, [data], strength=0.7, shift=True) == 1
    assert torch.equal(prepared.weights["embed/table"], before)
    assert len([key for key in prepared.weights if key.startswith(("embed", "head/weight"))]) == 1


def test_two_norms_make_two_weights_and_the_model_says_so():
    torch.manual_seed(0)
    model = TwoNorms().eval()
    graph = simplify(capture(model, PICTURES[:1]))
    assert graph.parted == (
        ("layer.weight", "layer_1.weight"),
        ("layer.bias", "layer_1.bias"),
    )
    text = str(prepare(model, load_recipe("w8a8"), PICTURES[:1]))
    assert "layer.weight, layer_1.weight: one tensor of the model" in text


def test_a_norm_behind_a_shared_layer_stays_folded():
    prepared, data = prepared_of("one norm")
    with pytest.raises(UsageError, match="no batch norm"):
        keep_batch_norms(prepared, made("one norm")[0], data[:1])


def test_an_embedding_of_two_inputs_is_one_table():
    torch.manual_seed(0)
    model = TwoReadings().eval()
    prepared = prepare(model, load_recipe("w8a8"), TOKENS[:1])
    calibrate(prepared, [TOKENS])
    program = convert(prepared, ASIC)
    tables = [step.tensors["table"] for step in program.steps if step.operator.kind == "embedding"]
    assert len(tables) == 2
    assert len(set(tables)) == 1


def test_layers_that_start_equal_but_are_not_one_stay_two():
    torch.manual_seed(0)
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.load_state_dict(first.state_dict())
    model = nn.Sequential(first, nn.ReLU(), second).eval()
    prepared = prepare(model, load_recipe("w8a8"), ROWS[:1])
    assert len([key for key in prepared.weights if key.endswith("weight")]) == 2


def test_c_source_holds_a_shared_weight_once(tmp_path: Path):
    prepared, data = prepared_of("unrolled")
    calibrate(prepared, data)
    program = convert(prepared, ASIC)
    export(program, tmp_path / "c", program.quantize_input(data[:2]), form=CForm())
    text = "".join(path.read_text() for path in (tmp_path / "c").rglob("*.c"))
    assert text.count("[64] = {") == 1


def test_an_export_holds_a_shared_weight_in_one_file(tmp_path: Path):
    prepared, data = prepared_of("unrolled")
    calibrate(prepared, data)
    program = convert(prepared, ASIC)
    manifest = export(program, tmp_path / "out", program.quantize_input(data[:1]), samples=1)
    paths = [image.path for image in manifest.memory if image.tensor == "cell.weight"]
    assert len(paths) == 3 * len(manifest.encodings)
    assert len(set(paths)) == len(manifest.encodings)
    assert check_export(tmp_path / "out").passed
