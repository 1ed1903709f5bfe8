"""Every path, link and command that a page names exists."""

import importlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.docs.pages import (
    PAGES,
    ROOT,
    blocks_of,
    inline_code_of,
    joined_lines,
    name_of,
    prose_of,
)

FOLDERS = ("benchmarks", "docs", "examples", "scripts", "src", "tests")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
RAW = REPOSITORY.replace("//github.com/", "//raw.githubusercontent.com/") + "/main/"


def slug(heading: str) -> str:
    """Returns the anchor of a heading, as the forge makes it."""
    words = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower())
    return words.replace(" ", "-")


def anchors_of(page: Path) -> set[str]:
    """Returns the anchors of a page."""
    return {slug(found) for found in re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)}


def target_of(link: str, page: Path) -> tuple[Path, str] | None:
    """Returns the file of the repository that a link leads to, and the anchor; None for others."""
    place, _, anchor = link.partition("#")
    for start in (f"{REPOSITORY}/blob/main/", f"{REPOSITORY}/tree/main/", RAW):
        if place.startswith(start):
            return ROOT / place.removeprefix(start), anchor
    if place.startswith(("http:", "https:", "mailto:")):
        return None
    return (page.parent / place if place else page), anchor


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path):
    made = {"reference/api/index.md", "reference/command-line.md", "reference/schemas.md"}
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        found = target_of(link, page)
        if found is None or link in made or f"reference/{link}" in made:
            continue
        path, anchor = found
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            broken.append(link)
    assert not broken


def test_the_readme_has_links_that_work_elsewhere_too():
    links = re.findall(r"\]\(([^)\s]+)\)", prose_of(ROOT / "README.md"))
    assert links
    assert not [link for link in links if not link.startswith("https://")]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_extra_that_a_page_installs_exists(page: Path):
    text = page.read_text(encoding="utf-8")
    extras = {
        name for group in re.findall(r"photomask\[([\w,-]+)\]", text) for name in group.split(",")
    }
    assert extras <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_that_a_page_names_exists(page: Path):
    named = [
        code.partition(":")[0]
        for code in inline_code_of(page)
        if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./*-]*(:\w+)?", code)
    ]
    assert not [path for path in named if not any(ROOT.glob(path.rstrip("/")))]


def wrong_words_of(line: str) -> list[str]:
    """Returns the commands and options in a `photomask …` line that do not exist."""
    from photomask.cli import app

    command: Any = typer.main.get_command(app)
    context = command.make_context("photomask", [], resilient_parsing=True)
    wrong = []
    for word in shlex.split(line, comments=True)[1:]:
        if word in ("…", "|"):  # what stands for any command, and the end of one
            break
        if hasattr(command, "list_commands") and not word.startswith("-"):
            below = command.get_command(context, word)
            if below is None:
                return [word]
            context = below.make_context(word, [], parent=context, resilient_parsing=True)
            command = below
        elif word.startswith("-") and len(word) > 1:
            options = [*command.get_params(context)]
            known = {name for each in options for name in (*each.opts, *each.secondary_opts)}
            if word.partition("=")[0] not in known:
                wrong.append(word)
    return wrong


def commands_of(page: Path) -> list[str]:
    """Returns the lines of a page that call `photomask`."""
    shown = [
        line.strip()
        for block in blocks_of(page)
        if block.language in ("sh", "console")
        for line in joined_lines(block.code)
    ]
    return [line for line in (*inline_code_of(page), *shown) if line.startswith("photomask ")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_a_page_names_exists_with_its_options(page: Path):
    assert not {line: wrong for line in commands_of(page) if (wrong := wrong_words_of(line))}


def test_the_examples_of_the_command_line_exist(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "site"))
    text = importlib.import_module("command_line").render()
    lines = [
        line
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        for line in joined_lines(block)
    ]
    assert len(lines) > 10
    assert not {line: wrong for line in lines if (wrong := wrong_words_of(line))}


def test_a_command_or_option_that_does_not_exist_is_found():
    assert wrong_words_of("photomask chip covert resnet20") == ["covert"]
    assert wrong_words_of("photomask chip convert MODEL --calibration X") == ["--calibration"]
    assert not wrong_words_of("photomask chip convert MODEL --data X --output out  # a comment")
