"""Plans in folders and on the hub: nothing of the user is lost, and every failure says why."""

import logging
import socket
import time
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import constants
from tests.attention.test_head_plan import MODEL, PATTERNS
from tests.fake_hub import FakeHub, Repository, running_hub, use_hub

from photomask.attention import HeadPlan
from photomask.attention.patterns import Pattern, SinkRule
from photomask.attention.plan_records import HandDecision
from photomask.documents import DOCUMENT_BYTES
from photomask.errors import DocumentError, ExportError, PhotomaskError, UsageError

NAME = "someone/plans"


@pytest.fixture
def plan() -> HeadPlan:
    return HeadPlan(model=MODEL, sinks=SinkRule(), patterns=PATTERNS, decision=HandDecision())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with running_hub(tmp_path / "cache", monkeypatch) as hub:
        yield hub


def test_a_plan_in_a_folder_is_read_without_the_network(
    plan: HeadPlan, tmp_path: Path, hub: FakeHub
):
    plan.save_pretrained(tmp_path / "shared")
    assert HeadPlan.from_pretrained(tmp_path / "shared") == plan
    assert HeadPlan.from_pretrained(str(tmp_path / "shared" / "head_plan.json")) == plan
    assert hub.requests == []


def test_a_folder_without_a_plan_is_not_looked_up_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: HeadPlan, hub: FakeHub
):
    plan.push_to_hub(NAME)
    hub.requests.clear()
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir(parents=True)
    with pytest.raises(DocumentError, match=r"head_plan\.json"):
        HeadPlan.from_pretrained(NAME)
    assert hub.requests == []


def test_a_plan_comes_back_from_the_hub(plan: HeadPlan, hub: FakeHub):
    address = plan.push_to_hub(NAME)
    assert address.startswith(f"{hub.address}/{NAME}/commit/")
    assert sorted(hub.repositories[NAME].files) == ["README.md", "head_plan.json"]
    assert HeadPlan.from_pretrained(NAME) == plan
    assert HeadPlan.from_pretrained(NAME, revision=hub.repositories[NAME].sha) == plan


def test_a_plan_in_the_cache_is_read_offline(
    plan: HeadPlan, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
):
    plan.push_to_hub(NAME)
    HeadPlan.from_pretrained(NAME)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert HeadPlan.from_pretrained(NAME) == plan
    assert hub.requests == []
    with pytest.raises(UsageError, match="not in the cache"):
        HeadPlan.from_pretrained("someone/other")
    with pytest.raises(ExportError, match="HF_HUB_OFFLINE"):
        plan.push_to_hub(NAME)


def test_the_other_files_of_a_repository_stay(plan: HeadPlan, hub: FakeHub):
    others = {"config.json": b"{}", "README.md": b"# My model\n"}
    hub.repositories[NAME] = Repository(dict(others))
    plan.push_to_hub(NAME)
    files = hub.repositories[NAME].files
    assert {name: files[name] for name in others} == others
    assert hub.commits == [["head_plan.json"]]


def test_a_second_plan_replaces_the_first_and_its_card(plan: HeadPlan, hub: FakeHub):
    plan.push_to_hub(NAME)
    other = plan.with_patterns([[Pattern.DENSE] * MODEL.heads] * MODEL.layers)
    other.push_to_hub(NAME)
    assert hub.commits == [["README.md", "head_plan.json"]] * 2
    assert HeadPlan.from_pretrained(NAME) == other


def test_a_file_that_only_has_the_name_of_a_plan_is_not_replaced(
    plan: HeadPlan, hub: FakeHub, tmp_path: Path
):
    hub.repositories[NAME] = Repository({"head_plan.json": b"[]"})
    with pytest.raises(ExportError, match="is no plan, so it is not replaced"):
        plan.push_to_hub(NAME)
    (tmp_path / "head_plan.json").write_text("[]")
    with pytest.raises(ExportError, match="is no plan, so it is not replaced"):
        plan.save_pretrained(tmp_path)
    assert hub.repositories[NAME].files == {"head_plan.json": b"[]"}
    assert (tmp_path / "head_plan.json").read_text() == "[]"
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("change", [lambda _: "# Mine\n", lambda card: card.replace("heads", "h")])
def test_a_readme_of_the_user_stays_and_the_log_says_so(
    plan: HeadPlan, tmp_path: Path, caplog: pytest.LogCaptureFixture, change
):
    plan.save_pretrained(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(change(readme.read_text()))
    before = readme.read_text()
    with caplog.at_level(logging.WARNING):
        plan.save_pretrained(tmp_path)
    assert readme.read_text() == before
    assert "README.md is already there" in caplog.text
    assert HeadPlan.from_pretrained(tmp_path) == plan


def test_an_untouched_card_is_replaced(plan: HeadPlan, tmp_path: Path):
    plan.save_pretrained(tmp_path)
    plan.save_pretrained(tmp_path, base_model="owner/model", base_revision="v1.0")
    card = (tmp_path / "README.md").read_text()
    assert 'base_model: "owner/model"' in card
    assert r"| revision | v1\.0 |" in card


def test_every_failure_of_the_hub_says_what_to_do(plan: HeadPlan, hub: FakeHub):
    hub.repositories["a/gated"] = Repository(is_gated=True)
    hub.repositories["a/empty"] = Repository()
    for name, revision, message in (
        ("a/none", None, "there is no repository a/none, or it is private"),
        ("a/gated", None, "a/gated is gated: ask for access"),
        ("a/empty", None, "a/empty has no file head_plan.json in revision main"),
        ("a/empty", "v7", "a/empty has no revision 'v7'"),
        ("a/b--c", None, "the name is not valid; expected owner/name"),
        ("a/b.json", None, "no plan 'a/b.json'"),
        ("../plan", None, "no plan '../plan'"),
        ("a b", None, "no plan 'a b'"),
    ):
        with pytest.raises(UsageError, match=message):
            HeadPlan.from_pretrained(name, revision=revision)


def test_a_server_that_is_gone_is_an_error(
    plan: HeadPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(time, "sleep", lambda _: None)  # huggingface_hub waits and tries again
    with socket.socket() as taken:  # it is bound and does not listen
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        use_hub(address, tmp_path / "cache", monkeypatch)
        with pytest.raises(UsageError, match=r"[Cc]heck the connection"):
            HeadPlan.from_pretrained(NAME)
        with pytest.raises(ExportError, match="Check the connection"):
            plan.push_to_hub(NAME)


def test_a_push_without_a_token_is_an_error(
    plan: HeadPlan, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ExportError, match="hf auth login"):
        plan.push_to_hub(NAME)
    assert hub.repositories == {}
    hub.repositories[NAME] = Repository()  # a public one of somebody else
    with pytest.raises(ExportError, match="hf auth login"):
        plan.push_to_hub(NAME)
    assert hub.repositories[NAME].files == {}


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((403, "Forbidden"), "use one with write access"),
        ((412, "A commit has happened since."), "try again"),
        ((500, "Oops"), "Check the connection"),
    ],
)
def test_a_refused_commit_leaves_the_repository_as_it_was(
    plan: HeadPlan, hub: FakeHub, refusal: tuple[int, str], message: str
):
    hub.refusal = refusal
    with pytest.raises(ExportError, match=message):
        plan.push_to_hub(NAME)
    assert hub.repositories[NAME].files == {}


def test_a_huge_file_is_refused_before_it_is_downloaded(plan: HeadPlan, hub: FakeHub):
    plan.push_to_hub(NAME)
    hub.repositories[NAME].sizes["head_plan.json"] = DOCUMENT_BYTES + 1
    hub.requests.clear()
    with pytest.raises(UsageError, match="but at most"):
        HeadPlan.from_pretrained(NAME)
    assert not [request for request in hub.requests if request.startswith("GET")]


def test_an_altered_plan_of_the_hub_is_refused(plan: HeadPlan, hub: FakeHub):
    plan.push_to_hub(NAME)
    files = hub.repositories[NAME].files
    files["head_plan.json"] = files["head_plan.json"].replace(b'"dense"', b'"sink"', 1)
    with pytest.raises(DocumentError, match="altered"):
        HeadPlan.from_pretrained(NAME)


@pytest.mark.parametrize("arguments", [{"base_model": "no name"}, {"base_revision": "v1"}])
def test_an_impossible_origin_is_refused(plan: HeadPlan, tmp_path: Path, arguments):
    with pytest.raises(UsageError, match="base_"):
        plan.save_pretrained(tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_on_this_machine_has_no_revision(plan: HeadPlan, tmp_path: Path):
    plan.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="only plans on the hub have revisions"):
        HeadPlan.from_pretrained(tmp_path, revision="main")


def test_an_impossible_name_is_not_sent_anywhere(plan: HeadPlan, hub: FakeHub):
    for name in ("a/b/c", "../a", "a b", "https://a/b"):
        with pytest.raises(PhotomaskError, match="is no name of a repository"):
            plan.push_to_hub(name)
    assert hub.requests == []
