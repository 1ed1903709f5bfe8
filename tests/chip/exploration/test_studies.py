"""One storage is one study: for several processes, for later calls, and for nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import torch
from torch import Tensor, nn

from photomask.chip.exploration import Evaluator, Exploration, SearchSpace, explore
from photomask.errors import DocumentError, UsageError

SPACE = SearchSpace(
    recipes=("w8a8", "w4a8"), groups=(), prunings=(), accelerators=("edge", "reference")
)


@pytest.fixture
def call(small_network: nn.Module, small_images: Tensor):
    def explored(storage: object, trials: int, **changes: object) -> Exploration:
        labels = torch.arange(16) % 5
        arguments = {"data": small_images, "space": SPACE, "test": (small_images, labels)}
        model = changes.pop("model", small_network)
        return explore(model, trials=trials, storage=storage, **(arguments | changes))  # type: ignore[arg-type]

    return explored


def test_a_later_call_continues_the_study(call, tmp_path: Path):
    first = call(tmp_path / "s.journal", 2)
    assert [trial.preset for trial in first.trials] == ["w8a8", "w4a8"]
    later = call(tmp_path / "s.journal", 4)
    assert [trial.number for trial in later.trials] == list(range(len(later.trials)))
    assert sum(trial.outcome == "measured" for trial in later.trials) == 4
    assert later.trials[:2] == first.trials
    assert call(tmp_path / "s.journal", 3) == later


def test_a_database_holds_a_study_too(call, tmp_path: Path):
    url = f"sqlite:///{tmp_path}/study.db"
    first = call(url, 2)
    assert call(url, 3).trials[:2] == first.trials


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"data": torch.zeros(4, 3, 12, 12)}, "calibration data"),
        ({"test": (torch.zeros(4, 3, 12, 12), torch.zeros(4).long())}, "held-out data"),
        ({"space": SPACE.model_copy(update={"recipes": ("w8a8",)})}, "search space"),
        ({"space": SPACE.model_copy(update={"limits": {"cycles": 9.0}})}, "search space"),
        ({"objectives": ("accuracy", "cycles")}, "objectives"),
    ],
)
def test_a_study_of_something_else_is_refused(call, tmp_path: Path, change: dict, word: str):
    call(tmp_path / "s.journal", 1)
    before = (tmp_path / "s.journal").read_bytes()
    with pytest.raises(UsageError, match=f"explores something else; it differs in: {word}"):
        call(tmp_path / "s.journal", 2, **change)
    assert (tmp_path / "s.journal").read_bytes() == before
    assert len(call(tmp_path / "s.journal", 1).trials) == 1


def test_a_study_of_another_model_is_refused(call, small_network: nn.Module, tmp_path: Path):
    call(tmp_path / "s.journal", 1)
    other = type(small_network)().eval()
    with pytest.raises(UsageError, match="differs in: model"):
        call(tmp_path / "s.journal", 2, model=other)


def test_two_names_are_two_studies(call, tmp_path: Path):
    one = call(tmp_path / "s.journal", 1, study_name="one")
    two = call(tmp_path / "s.journal", 2, study_name="two")
    assert (len(one.trials), len(two.trials)) == (1, 2)


def test_an_interrupted_preset_is_tried_again(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "program", interrupt)
        with pytest.raises(KeyboardInterrupt):
            call(tmp_path / "s.journal", 2)
    found = call(tmp_path / "s.journal", 2)
    assert found.interrupted == 1
    assert sorted(trial.preset for trial in found.trials) == ["w4a8", "w8a8"]
    assert "1 more were interrupted" in str(found)


def test_an_error_of_ours_ends_the_exploration(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Evaluator, "program", fail)
    with pytest.raises(ZeroDivisionError):
        call(tmp_path / "s.journal", 2)


@pytest.mark.parametrize(
    "content",
    [b"dear reader\n", b'{"a": 1}\n', b"[1, 2]\n", b"\x89PNG\r\n\x1a\n", b"7\n", b"null\n"],
)
def test_a_file_of_something_else_is_refused_and_stays(call, tmp_path: Path, content: bytes):
    (tmp_path / "letter").write_bytes(content)
    with pytest.raises(DocumentError, match="cannot be used as the storage"):
        call(tmp_path / "letter", 1)
    assert (tmp_path / "letter").read_bytes() == content


def test_a_damaged_journal_is_refused_and_stays(call, tmp_path: Path):
    path = tmp_path / "s.journal"
    call(path, 1)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for damaged in (whole[:-9], b"".join([*lines[:2], lines[2][:-9] + b"\n", *lines[3:]])):
        path.write_bytes(damaged)
        with pytest.raises(DocumentError, match="cannot be used as the storage"):
            call(path, 2)
        assert path.read_bytes() == damaged
    path.write_bytes(b"".join(lines))
    assert len(call(path, 1).trials) == 1


@pytest.mark.parametrize(
    "storage", ["{file}/s.journal", "{folder}", "nosuch://host/name", "sqlite:///{file}/s.db"]
)
def test_a_storage_out_of_reach_is_refused(call, tmp_path: Path, storage: str):
    (tmp_path / "file").touch()
    storage = storage.format(file=tmp_path / "file", folder=tmp_path)
    with pytest.raises(DocumentError, match="cannot be used as the storage"):
        call(storage, 1)


def test_the_password_of_a_url_is_not_told(call):
    with pytest.raises(DocumentError) as told:
        call("nosuch://user:secret@host/name", 1)
    assert "secret" not in str(told.value)


def test_a_study_that_photomask_did_not_begin_is_refused(call):
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="exploration")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(DocumentError, match="not one that Photomask began"):
        call(storage, 1)
    study.set_user_attr("photomask identity", {"model": 1})
    with pytest.raises(DocumentError, match="does not say what it explores"):
        call(storage, 1)


PROCESS = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from photomask.chip.exploration import SearchSpace, explore

place, own, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 4)).eval()
x, y = torch.randn(8, 8), torch.arange(8) % 4
space = SearchSpace(accelerators=("reference",))
explore(model, x, space, test=(x, y), trials=1)  # imports everything
(place / own).touch()
while not (place / other).exists():
    time.sleep(0.01)
found = explore(model, x, space, test=(x, y), trials=8, storage=place / "s.journal")
print(found.render())
"""


def test_two_processes_work_on_one_study(tmp_path: Path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    both = [
        subprocess.Popen([*command, *names], stdout=subprocess.PIPE, text=True)
        for names in (("a", "b"), ("b", "a"))
    ]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    seen = [Exploration.parse(text, "process") for text in printed]
    last = max(seen, key=lambda found: len(found.trials))
    # The other process may finish the trial that it has begun.
    assert sum(trial.outcome != "repeated" for trial in last.trials) in (8, 9)
    assert [trial.number for trial in last.trials] == list(range(len(last.trials)))
    presets = [trial.preset for trial in last.trials if trial.preset]
    assert sorted(presets) == sorted(SearchSpace().recipes)  # type: ignore[type-var]
    operations = map(json.loads, (tmp_path / "s.journal").read_text().splitlines())
    enders = [each["worker_id"] for each in operations if each.get("state") in (1, 2)]
    assert len(enders) == len(last.trials)
    assert len(set(enders)) == 2
