import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photomask import DataError, DocumentError, UsageError
from photomask.chip import (
    IntegerProgram,
    NumpyEngine,
    PreparedModel,
    Report,
    Thresholds,
    TorchEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
    verify,
)


@pytest.fixture(scope="module")
def labels(small_network: nn.Module, small_images: Tensor) -> Tensor:
    """The float model's own classes, but for three."""
    with torch.no_grad():
        classes = small_network(small_images).argmax(dim=1)
    classes[:3] = (classes[:3] + 1) % 5
    return classes


@pytest.fixture(scope="module")
def report(
    small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor, labels: Tensor
) -> Report:
    return verify(small_network, small_program, small_images, labels, oracle_samples=4)


def codes_of(program: IntegerProgram, images: Tensor) -> dict[str, np.ndarray]:
    """Returns every edge's integers, by the oracle."""
    inputs = {program.inputs[0]: program.quantize_input(images).numpy()}
    return dict(NumpyEngine(program).edges(inputs))


def test_accuracy_and_agreement_are_those_of_model_and_program(
    report: Report,
    small_program: IntegerProgram,
    small_network: nn.Module,
    small_images: Tensor,
    labels: Tensor,
):
    with torch.no_grad():
        scores = small_network(small_images).numpy()
    codes = codes_of(small_program, small_images)[small_program.outputs[0]]
    truth = labels.numpy()
    output = report.outputs[0]
    assert output.float_top1 == pytest.approx(100 * np.mean(scores.argmax(1) == truth))
    assert output.float_top1 == pytest.approx(100 * 13 / 16)
    assert output.integer_top1 == pytest.approx(100 * np.mean(codes.argmax(1) == truth))
    assert output.agreement == pytest.approx(100 * np.mean(codes.argmax(1) == scores.argmax(1)))


def test_layer_noise_range_and_saturation_are_those_of_a_plain_computation(
    report: Report,
    small_program: IntegerProgram,
    small_prepared: PreparedModel,
    small_images: Tensor,
):
    codes = codes_of(small_program, small_images)
    with torch.no_grad():
        floats = {n.name: v.double().numpy() for n, v in small_prepared.graph.run([small_images])}
    assert [layer.node for layer in report.layers] == list(floats)
    for layer in report.layers:
        edge, value = small_program.edges[layer.node], floats[layer.node]
        found = codes[layer.node]
        real = (found - edge.zero_point) * edge.scale[0]
        sqnr = 10 * math.log10((value**2).sum() / ((value - real) ** 2).sum())
        position = value / edge.scale[0] + edge.zero_point
        below = (position < edge.format.low - 0.5) & (found == edge.format.low)
        above = (position > edge.format.high + 0.5) & (found == edge.format.high)
        assert layer.sqnr_db == pytest.approx(sqnr, abs=1e-4)
        assert layer.codes == (found.min(), found.max())
        assert layer.observed == pytest.approx((value.min(), value.max()))
        assert (layer.saturated_low, layer.saturated_high) == (below.sum(), above.sum())
        assert layer.elements == sum(layer.histogram) == found.size


def test_the_zero_of_a_relu_is_no_saturation(
    small_network: nn.Module, small_images: Tensor, small_program: IntegerProgram
):
    found = verify(small_network, small_program, small_images)
    stem = next(layer for layer in found.layers if layer.node.startswith("stem"))
    at_zero = (codes_of(small_program, small_images)[stem.node] == 0).mean()
    assert at_zero > 0.1
    assert stem.saturated_low == 0


def test_values_beyond_the_calibrated_range_count_as_saturated(
    small_network: nn.Module, small_images: Tensor, small_program: IntegerProgram
):
    found = verify(
        small_network,
        small_program,
        4 * small_images,
        thresholds=Thresholds(min_output_sqnr_db=None, max_saturation=1.0),
    )
    assert found.layers[0].saturation > 1
    assert sum(found.layers[0].histogram[:8]) > 0
    assert sum(found.layers[0].histogram[-8:]) > 0
    assert not found.passed
    assert "saturated outputs" in found.reasons[0]


def test_accumulators_are_observed_within_what_is_proven(
    report: Report, small_program: IntegerProgram, small_images: Tensor
):
    codes = codes_of(small_program, small_images)
    stem = next(layer for layer in report.layers if layer.node.startswith("stem"))
    assert stem.accumulator is not None
    edge = small_program.edges[f"{stem.node}.accumulator"]
    seen = codes[edge.name]
    assert (stem.accumulator.low, stem.accumulator.high) == (seen.min(), seen.max())
    bits = stem.accumulator.proven_bits
    assert -(1 << (bits - 1)) <= edge.low < edge.high < 1 << (bits - 1)
    assert edge.low < -(1 << (bits - 2)) or edge.high >= 1 << (bits - 2)
    for layer in report.layers:
        if layer.accumulator is not None:
            assert layer.accumulator.observed_bits <= layer.accumulator.proven_bits <= 32


def test_sizes_count_every_parameter_at_its_true_width(
    report: Report, small_network: nn.Module, small_program: IntegerProgram
):
    weights = 3 * 8 * 9 + 8 * 8 * 9 + 8 * 5
    biases = 8 + 8 + 5
    totals = report.totals
    assert totals.parameters == weights + biases
    assert totals.float_bytes == 4 * (weights + biases)
    assert totals.weight_bytes == weights + 4 * biases
    assert totals.integer_bytes == small_program.weight_bytes()
    assert totals.multiply_accumulates == 144 * (3 * 8 * 9 + 8 * 8 * 9) + 8 * 5
    for layer in report.layers:
        if layer.weight is not None:
            assert layer.parameters == sum(layer.weight.histogram) + layer.shape[0]
            assert -127 <= layer.weight.low < layer.weight.high <= 127


def test_both_engines_are_compared_on_every_edge(report: Report, small_program: IntegerProgram):
    edges = small_program.edges.values()
    assert report.engine.mismatches == 0
    assert report.engine.edges == len(edges)
    assert report.engine.integers == 4 * sum(math.prod(edge.shape) for edge in edges)


def test_one_wrong_integer_of_the_fast_engine_is_found_and_named(
    small_program: IntegerProgram,
    small_network: nn.Module,
    small_images: Tensor,
    monkeypatch: pytest.MonkeyPatch,
):
    original, last = TorchEngine.edges, small_program.outputs[0]

    def wrong(self: TorchEngine, inputs: dict[str, Tensor]):
        for name, value in original(self, inputs):
            if name == last and len(value) == 5:
                value[3, 2] += 1
            yield name, value

    monkeypatch.setattr(TorchEngine, "edges", wrong)
    found = verify(small_network, small_program, small_images, oracle_samples=5)
    assert found.engine.mismatches == 1
    assert f"edge {last!r}" in str(found.engine.first_mismatch)
    assert "sample 3, element (2,)" in str(found.engine.first_mismatch)
    assert not found.passed
    assert found.reasons[0].startswith("engine mismatches: 1")


@pytest.mark.parametrize(
    ("thresholds", "reason"),
    [
        (Thresholds(min_output_sqnr_db=150), "SQNR of output"),
        (Thresholds(min_layer_sqnr_db=150), "SQNR of the worst layer"),
        (Thresholds(max_accuracy_drop=-1), "accuracy lost"),
        (Thresholds(max_saturation=0), "saturated outputs"),
    ],
)
def test_a_missed_threshold_fails_and_is_named(
    thresholds: Thresholds,
    reason: str,
    small_program: IntegerProgram,
    small_network: nn.Module,
    small_images: Tensor,
    labels: Tensor,
):
    images = small_images * 1.5
    found = verify(small_network, small_program, images, labels, thresholds=thresholds)
    assert not found.passed
    assert any(reason in line for line in found.reasons)


def test_disagreement_fails(
    small_program: IntegerProgram, small_images: Tensor, small_network: nn.Module
):
    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return small_network(x).flip(1)

    graph = prepare(small_network, load_recipe("w8a8"), small_images[:1]).graph
    classes = torch.zeros(16, dtype=torch.int64)
    found = verify(Turned(), small_program, small_images, classes, graph=graph)
    assert any("top-1 agreement" in reason for reason in found.reasons)
    assert any("SQNR of output" in reason for reason in found.reasons)


def test_report_survives_json_and_refuses_unknown_fields(report: Report):
    assert Report.parse(report.render(), "report") == report
    assert report.passed
    with pytest.raises(DocumentError, match="surprise"):
        Report.parse(report.render().replace("{", '{"surprise": 1,', 1), "report")
    with pytest.raises(DocumentError, match="min_top1_agreement"):
        Thresholds.parse('{"min_top1_agreement": 101}', "thresholds")


def test_report_is_readable_in_a_hundred_columns(report: Report):
    text = str(report)
    assert max(map(len, text.splitlines())) <= 100
    assert text.splitlines()[-1].startswith("PASSED: 7 of 7 checks")
    for word in ("stem", "uint8", "acc. bits", "What a multiplier of k bits costs", "16 (chosen)"):
        assert word in text


def test_several_inputs_and_outputs_are_compared_each(tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 3)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"first": self.a(x + y), "second": self.b(x * y)}

    model, inputs = Two().eval(), [torch.randn(20, 6), torch.randn(20, 6)]
    prepared = prepare(model, load_recipe("w8a8"), [x[:1] for x in inputs])
    calibrate(prepared, [inputs])
    convert(prepared, load_target("asic")).save(tmp_path / "program")
    program = IntegerProgram.load(tmp_path / "program")
    classes = torch.zeros(20, dtype=torch.int64)
    with torch.no_grad():
        right = model(*inputs)["second"].argmax(1)
    found = verify(model, program, inputs, [None, right], multiplier_widths=(8,))
    first, second = found.outputs
    assert (first.float_top1, second.float_top1) == (None, 100.0)
    assert first.agreement is not None
    assert first.agreement > 50
    assert min(first.sqnr_db, second.sqnr_db) > 20
    with pytest.raises(DataError, match="3 labels"):
        verify(model, program, inputs, [classes, classes, classes])


def test_a_model_in_training_mode_is_compared_in_evaluation_and_not_changed(
    small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor, report: Report
):
    import copy

    model = copy.deepcopy(small_network).train()
    before = copy.deepcopy(model.state_dict())
    found = verify(model, small_program, small_images, oracle_samples=4)
    assert found.outputs[0].sqnr_db == report.outputs[0].sqnr_db
    assert all(module.training for module in model.modules())
    assert all(torch.equal(a, before[name]) for name, a in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": torch.zeros(0, 3, 12, 12)}, DataError, "has shape"),
        ({"inputs": torch.zeros(2, 3, 11, 12)}, DataError, "has shape"),
        ({"inputs": torch.zeros(2, 3, 12, 12, dtype=torch.int64)}, DataError, "float tensor"),
        ({"inputs": torch.full((2, 3, 12, 12), math.nan)}, DataError, "NaN"),
        ({"inputs": [(torch.zeros(2, 3, 12, 12),) * 3]}, DataError, "tuple of 3"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, DataError, r"integers \[16\]"),
        ({"labels": torch.full((16,), 5)}, DataError, "5 classes"),
        ({"labels": torch.zeros(16)}, DataError, "integers"),
        ({"oracle_samples": 0}, UsageError, "at least 1"),
        ({"model": nn.Flatten()}, DataError, "another model"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    change: dict,
    error: type[Exception],
    message: str,
    small_program: IntegerProgram,
    small_network: nn.Module,
    small_images: Tensor,
):
    arguments = {"model": small_network, "inputs": small_images, **change}
    with pytest.raises(error, match=message):
        verify(program=small_program, **arguments)


def test_the_order_of_earlier_versions_means_the_same_and_warns(
    small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor
):
    right = re.escape("verify(model, program, inputs, labels)")
    with pytest.warns(FutureWarning, match=right) as warned:
        report = verify(small_program, small_network, small_images, multiplier_widths=())
    assert warned[0].filename == __file__
    assert report == verify(small_network, small_program, small_images, multiplier_widths=())


def test_arguments_in_no_known_order_are_refused(
    small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor
):
    right = re.escape("verify(model, program, inputs, labels)")
    for first, second in [(small_program, small_program), (small_network, small_images)]:
        with pytest.raises(UsageError, match=right):
            verify(first, second, small_images)


def test_progress_sees_every_batch(
    small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor
):
    seen: dict[str, int] = {}

    def watch(items, label: str):
        for item in items:
            seen[label] = seen.get(label, 0) + 1
            yield item

    verify(small_network, small_program, small_images, progress=watch)
    assert seen == {
        "comparing engines": 1,
        "comparing layers": 1,
        "multiplier widths": 7,
        "float and integer outputs": 1,
    }


class Words(nn.Module):
    """Vectors of words, mixed, with one hidden by a mask: two inputs of integers."""

    def __init__(self):
        super().__init__()
        self.words, self.layer = nn.Embedding(7, 8), nn.Linear(8, 8)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.words(tokens)
        seen = mask[:, None, :].to(torch.bool)
        return nn.functional.scaled_dot_product_attention(x, self.layer(x), x, seen)


def test_integer_inputs_go_to_model_and_program_as_they_are():
    model, tokens = Words().eval(), torch.randint(0, 7, (5, 4))
    mask = torch.ones_like(tokens)
    mask[1:, 3] = 0
    prepared = prepare(model, load_recipe("w8a8"), [tokens[:1], mask[:1]])
    calibrate(prepared, [[tokens, mask]])
    program = convert(prepared, load_target("asic"))
    found = verify(model, program, [tokens, mask], multiplier_widths=(16,))
    assert found.engine.mismatches == 0
    assert found.outputs[0].sqnr_db > 25
    assert found.layers[0].sqnr_db == 200  # tokens are their own codes
    with pytest.raises(DataError, match="'tokens' holds 0 to 7, the program takes 0 to 6"):
        verify(model, program, [torch.arange(8).reshape(2, 4), mask[:2]])
