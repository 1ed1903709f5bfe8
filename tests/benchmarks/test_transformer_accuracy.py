import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("rows")


@pytest.fixture
def script(rows: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = importlib.import_module("transformer_accuracy")
    monkeypatch.setattr(module, "COMPILER", "cc -O0")  # it need not be fast here
    return module


class Attention(nn.Module):
    """A norm, attention of tokens to each other beside a skip, and a class."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.layer = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + nn.functional.scaled_dot_product_attention(self.layer(y), y, y)
        return self.head(self.norm(x).mean(dim=1))


@pytest.fixture
def encoder(script: ModuleType) -> object:
    encoders = importlib.import_module("encoders")
    model, x = Attention().eval(), torch.randn(6, 5, 8)
    with torch.no_grad():
        labels = model(x).argmax(dim=1)

    def judge(scores: Tensor, expected: Tensor) -> dict:
        cosine = float(torch.cosine_similarity(scores, expected).mean())
        right = (scores.argmax(dim=1) == labels[: len(scores)]).double().mean()
        return {encoders.TOP1: 100 * float(right), encoders.COSINE: cosine}

    return encoders.Encoder("small", model, [[x]], [x], judge, batch=4, c_samples=5)


def test_every_path_of_an_encoder_is_measured_and_shown(
    rows: ModuleType, script: ModuleType, encoder: object, tmp_path: Path
):
    measurement = script.Measurement(rows.Results(script.WHAT, tmp_path), encoder, 5)
    measurement.float_model()
    assert measurement.recipe("w8a8-residual16", compared=2) == 0
    found = {
        (row["implementation"].removeprefix("photomask w8a8-residual16"), row["metric"]): row
        for row in rows.read(script.WHAT, tmp_path)
    }
    assert found["float", "top1"]["value"] == "100"
    assert ("float", "cosine with float, mean") not in found
    for path, samples in (("fake-quantized", 6), ("integer", 6), ("C", 5)):
        assert found[f", {path}", "top1"]["note"] == f"{samples} samples"
        assert float(found[f", {path}", "sqnr"]["value"]) > 20
    engines = ("torch engine, every edge", "C engine, every edge", "ONNX engine, outputs")
    for engine in engines:
        assert int(found[f", {engine}", "integers"]["value"]) >= 2 * 3
        assert found[f", {engine}", "mismatches"]["value"] == "0"
    for stage in ("prepare", "calibrate", "convert", "verify", "in all"):
        assert float(found["", stage]["value"]) > 0
    assert float(found[", integer", "sqnr behind the last norm"]["value"]) > 20
    text = importlib.import_module("figures").render(tmp_path)
    assert "| small, w8a8-residual16 | top1; 6 samples | 100.00 % |" in text
    assert " % (5 samples) |" in text  # C takes fewer


def test_an_engine_that_differs_is_counted(
    rows: ModuleType,
    script: ModuleType,
    encoder: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    class Wrong(script.OnnxEngine):
        def run(self, inputs: dict) -> dict:
            return {name: codes + 1 for name, codes in super().run(inputs).items()}

    monkeypatch.setattr(script, "OnnxEngine", Wrong)
    measurement = script.Measurement(rows.Results(script.WHAT, tmp_path), encoder, 1)
    assert measurement.recipe("w8a8", compared=2) == 2 * 3


def test_the_rtl_has_the_integers_that_differed_where_it_was_simulated(
    rows: ModuleType, tmp_path: Path
):
    table = importlib.import_module("transformer_table")
    results = rows.Results(table.WHAT, tmp_path)
    results.number(rows.Subject(table.WHAT, "float", "net"), "top1", 91.5, "%")
    for recipe in ("w8a8", "w4a8"):
        for path in table.PATHS:
            subject = rows.Subject(table.WHAT, f"photomask {recipe}, {path}", "net")
            results.number(subject, "top1", 91.25, "%")
            results.number(subject, "sqnr", 30.04, "dB")
    simulated = rows.Results(table.SIMULATED, tmp_path)
    verilator = rows.Subject(table.SIMULATED, "verilator", "net")

    def shown() -> dict[str, tuple[str, ...]]:
        both = [*rows.read(table.WHAT, tmp_path), *rows.read(table.SIMULATED, tmp_path)]
        return {line[0]: line[1:] for line in table.build(both)[1:]}

    measured = ("top1", "91.50 %", *["91.25 %"] * 3)
    simulated.number(verilator, "integers compared", 2000, "integers")
    assert shown()["net, w8a8"] == (*measured, "–", "30.0 dB", "0", "0")
    simulated.number(verilator, "mismatches", 0, "integers")
    assert shown()["net, w8a8"] == (*measured, "0 of 2,000 differ", "30.0 dB", "0", "0")
    assert shown()["net, w4a8"] == (*measured, "–", "30.0 dB", "0", "0")
    simulated.number(verilator, "mismatches", 3, "integers")
    assert shown()["net, w8a8"] == (*measured, "3 of 2,000 differ", "30.0 dB", "0", "0")
