import base64
import io

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photomask.chip import IntegerProgram, Report, verify
from photomask.chip.verification.samples import WORST_SAMPLES, WorstSamples
from photomask.report import NoiseMeter


@pytest.fixture(scope="module")
def report(small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor) -> Report:
    labels = torch.arange(16) % 5
    return verify(
        small_network, small_program, small_images, labels, oracle_samples=1, multiplier_widths=()
    )


def test_the_worst_samples_are_those_of_a_plain_sort(
    report: Report, small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor
):
    from photomask.chip import TorchEngine

    with torch.no_grad():
        exact = small_network(small_images)
    name = small_program.outputs[0]
    codes = TorchEngine(small_program).run(
        {small_program.inputs[0]: small_program.quantize_input(small_images)}
    )[name]
    found = small_program.edges[name].dequantize(codes)
    ranked = []
    for number in range(16):
        meter = NoiseMeter()
        meter.add(exact[number].double(), found[number])
        same = bool(exact[number].argmax() == found[number].argmax())
        ranked.append((same, meter.sqnr_db, number))
    ranked.sort()
    assert [sample.index for sample in report.worst_samples] == [
        number for _, _, number in ranked[:WORST_SAMPLES]
    ]
    for sample, (same, sqnr_db, number) in zip(report.worst_samples, ranked, strict=False):
        assert sample.same_class is same
        assert sample.sqnr_db == pytest.approx(sqnr_db, abs=1e-6)
        assert sample.label == number % 5
        assert sample.float_class == int(exact[number].argmax())


def test_samples_of_different_classes_come_before_noisier_ones():
    worst = WorstSamples(count=2)
    exact = torch.tensor([[1.0, 0.0], [1.0, 0.9], [5.0, 0.0]])
    found = torch.tensor([[0.2, 0.0], [0.9, 1.0], [5.0, 0.0]])
    worst.add(exact, found, None)
    worst.add(exact[2:], exact[2:], None)
    assert [sample.index for sample in worst.reports([torch.zeros(4, 7)])] == [1, 0]


def test_a_picture_is_a_png_of_the_sample(report: Report, small_images: Tensor):
    image = pytest.importorskip("PIL.Image")
    sample = report.worst_samples[0]
    assert sample.picture is not None
    found = np.asarray(image.open(io.BytesIO(base64.b64decode(sample.picture))))
    x = small_images[sample.index].permute(1, 2, 0).numpy()
    expected = np.rint((x - x.min()) / (x.max() - x.min()) * 255)
    assert found.shape == (12, 12, 3)
    assert np.abs(found - expected).max() <= 1


def test_inputs_that_are_large_or_no_pictures_have_none():
    for inputs in (torch.zeros(2, 3, 65, 8), torch.zeros(2, 4, 8, 8), torch.zeros(2, 8)):
        worst = WorstSamples()
        worst.add(torch.eye(2), torch.eye(2), None)
        assert {sample.picture for sample in worst.reports([inputs])} == {None}
