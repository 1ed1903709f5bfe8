"""Damaged files are refused or mean the same, and the benchmark would tell if they did not."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.damage import KINDS, Specimen, Task, Verdict, judge, make_specimens, run_all
from benchmarks.damage import workers as module

from photomask.chip.target import PRESETS

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
FILES = 150


@pytest.fixture(scope="module")
def specimens() -> list[Specimen]:
    return make_specimens()


def read_all(task: Task, numbers: range) -> list[Verdict]:
    found: list[Verdict] = []
    run_all(task, numbers, found.append)
    assert [verdict.number for verdict in found] == [*numbers]
    return found


def only(specimens: list[Specimen], kind: str, **changes: object) -> Task:
    """A task of one kind, whose reader may be another."""
    chosen = [specimen for specimen in specimens if specimen.kind == kind]
    return Task({kind: replace(KINDS[kind], **changes)}, chosen, seed=0)  # type: ignore[arg-type]


def test_every_good_specimen_is_read_and_its_hashes_are_found_again(
    specimens: list[Specimen], tmp_path: Path
):
    for specimen in specimens:
        kind = KINDS[specimen.kind]
        for files in (specimen.files, kind.repair(specimen.files)):
            module.write(files, tmp_path / "files")
            outcome = judge(kind, specimen.files, files, False, tmp_path / "files")
            refused = specimen.kind == "output record"  # it holds a file of the user's
            assert outcome[0] == ("refused" if refused else "harmless"), outcome


def test_damaged_files_are_refused_or_harmless(specimens: list[Specimen]):
    verdicts = read_all(Task(KINDS, specimens, seed=0), range(FILES))
    bad = [verdict for verdict in verdicts if verdict.outcome not in ("refused", "harmless")]
    assert not bad, "\n".join(f"{x.kind} {x.number}: {x.outcome}: {x.says}" for x in bad)
    counts = Counter(verdict.outcome for verdict in verdicts)
    assert counts["refused"] > counts["harmless"] > 0


def test_the_same_seed_damages_the_same_bytes(specimens: list[Specimen]):
    first, second, other = (Task(KINDS, specimens, seed) for seed in (1, 1, 2))
    assert [first.make(n) for n in range(20)] == [second.make(n) for n in range(20)]
    assert [first.make(n) for n in range(20)] != [other.make(n) for n in range(20)]


def test_a_reader_that_lets_an_error_through_is_counted(specimens: list[Specimen]):
    def read(folder: Path) -> object:
        raise KeyError("name")

    verdicts = read_all(only(specimens, "target", read=read), range(4))
    assert {verdict.outcome for verdict in verdicts} == {"traceback"}
    assert "KeyError" in verdicts[0].says


def test_a_reader_that_returns_another_document_is_counted(specimens: list[Specimen]):
    verdicts = read_all(only(specimens, "target", read=lambda folder: PRESETS["tflite"]), range(20))
    assert {verdict.outcome for verdict in verdicts} == {"wrong"}


def test_a_reader_that_believes_no_hash_is_counted(specimens: list[Specimen], monkeypatch):
    from photomask.attention import HeadPlan
    from photomask.chip import IntegerProgram

    for kind, reader in (("program", IntegerProgram), ("head plan", HeadPlan)):
        task = only(specimens, kind)
        honest = Counter(verdict.outcome for verdict in read_all(task, range(200)))
        assert not honest["wrong"]
        with monkeypatch.context() as patch:
            patch.setattr(reader, "content_hash", lambda self: Anything())
            found = Counter(verdict.outcome for verdict in read_all(task, range(200)))
        assert found["wrong"], kind


class Anything(str):
    """Equals every hash."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


def test_a_reader_that_hangs_or_dies_is_ended_and_the_next_file_is_read(
    specimens: list[Specimen], monkeypatch
):
    import os

    monkeypatch.setattr(module, "SECONDS", 0.1)
    hung = read_all(only(specimens, "target", read=lambda folder: time.sleep(60)), range(2))
    died = read_all(only(specimens, "target", read=lambda folder: os._exit(1)), range(2))
    assert [verdict.outcome for verdict in hung + died] == ["slow"] * 4
    assert "hung" in hung[0].says
    assert "died" in died[0].says


def test_a_reader_that_takes_a_gigabyte_is_counted(specimens: list[Specimen], monkeypatch):
    def read(folder: Path) -> object:
        return bytearray(b"x") * (256 << 20)

    # Meanwhile the system may take back tens of megabytes that the process no longer uses.
    monkeypatch.setattr(module, "MOST_BYTES", 64 << 20)
    (verdict,) = read_all(only(specimens, "target", read=read), range(1))
    assert verdict.outcome == "slow", verdict
