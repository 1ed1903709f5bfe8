import math

import pytest
import torch

from photomask.report import SQNR_LIMIT_DB, Check, NoiseMeter, Top1Meter, joint_verdict


def test_sqnr_is_signal_power_over_error_power_in_decibels():
    reference, found = torch.randn(4, 5), torch.randn(4, 5)
    meter = NoiseMeter()
    for a, b in zip(reference.split(1), found.split(1), strict=True):
        meter.add(a, b)
    a, b = reference.double(), found.double()
    expected = 10 * math.log10(float((a * a).sum() / ((a - b) ** 2).sum()))
    assert meter.sqnr_db == pytest.approx(expected, abs=1e-6)


def test_sqnr_is_finite_without_noise_and_without_signal():
    same, silent = NoiseMeter(), NoiseMeter()
    same.add(torch.ones(3), torch.ones(3))
    silent.add(torch.zeros(3), torch.ones(3))
    assert (same.sqnr_db, silent.sqnr_db) == (SQNR_LIMIT_DB, -SQNR_LIMIT_DB)


def test_top1_counts_agreement_and_right_answers_apart():
    reference = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    found = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])
    meter = Top1Meter()
    meter.add(reference[:1], found[:1], torch.tensor([0]))
    meter.add(reference[1:], found[1:], torch.tensor([0, 2, 0]))
    assert (meter.agreement, meter.reference_top1, meter.found_top1) == (50.0, 75.0, 75.0)


def test_top1_without_labels_knows_no_accuracy():
    meter = Top1Meter()
    meter.add(torch.eye(2), torch.eye(2))
    assert (meter.agreement, meter.reference_top1, meter.found_top1) == (100.0, None, None)


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        (Check.at_least("a", 10, 10), True),
        (Check.at_least("a", 9.99, 10), False),
        (Check.at_most("a", 10, 10), True),
        (Check.at_most("a", 10.01, 10), False),
    ],
)
def test_a_check_includes_its_limit(check: Check, passed: bool):
    assert check.passed is passed
    assert Check.parse(check.render(), "check") == check


def test_a_check_that_is_left_open_is_neither_passed_nor_failed():
    measured = Check.at_most("loss", 1, 2, "points").left_open("since 3 questions tell nothing")
    missing = Check.at_most("loss", 9, 2, "points").left_open("since nobody asked", measured=False)
    for check, found in ((measured, "1 points"), (missing, "–")):
        assert (check.verdict, check.passed, check.found) == ("not decided", False, found)
        assert Check.parse(check.render(), "check") == check
    assert str(measured) == (
        "loss: 1 points, must be at most 2 points; not decided, since 3 questions tell nothing"
    )
    assert "undecided" not in Check.at_most("loss", 1, 2).render()  # as earlier versions wrote it


def test_checks_together_fail_before_they_are_left_open():
    passed, failed = Check.at_most("a", 1, 2), Check.at_most("a", 3, 2)
    left_open = passed.left_open("since it is")
    assert joint_verdict([]) == joint_verdict([passed, passed]) == "passed"
    assert joint_verdict([passed, left_open]) == "not decided"
    assert joint_verdict([left_open, passed, failed]) == "failed"


def test_a_check_says_what_was_found_and_required():
    check = Check.at_least("SQNR of output 'y'", 7.25, 10, "dB")
    assert str(check) == "SQNR of output 'y': 7.25 dB, must be at least 10 dB"
