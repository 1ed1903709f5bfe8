import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from photomask import ExportError, MissingDependencyError
from photomask.report import (
    Cell,
    Column,
    Drawing,
    Figure,
    Ink,
    Page,
    Section,
    Tone,
    render_text,
    write_page,
)

VOID = {"meta", "br", "path", "use", "rect", "link", "img"}


class Balance(HTMLParser):
    """Collects tags that are closed wrongly, and all ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.ids += [str(value) for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.ids += [str(value) for name, value in attributes if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def draw(name: str) -> str:
    with Drawing(3, 2, name) as drawing:
        axes = drawing.figure.add_subplot()
        axes.plot([0, 1], [0, 1], "o-", color=Ink.ACCENT.value)
        axes.fill_between([0, 1], [0, 1], color=Ink.SOFT.value)
        axes.set_title("a title")
    return drawing.svg


@pytest.fixture
def page() -> Page:
    columns = (Column("name", number=False), Column("size"), Column("more", in_terminal=False))
    rows = [("<first>", Cell("12", Tone.BAD, bar=0.5, hint='a "hint"'), "x"), ("second", "3", "y")]
    return Page(
        title="A page",
        verdict="FAILED: it is not so",
        passed=False,
        reasons=["because & so"],
        facts=[("size", "12 kB")],
        sections=[
            Section("Table", "About it.", columns, rows),
            Section(
                "Pictures", figures=[Figure(n, f"about {n}", lambda n=n: draw(n)) for n in "ab"]
            ),
        ],
        footer="made by hand",
    )


def test_a_page_is_one_file_that_refers_to_nothing_else(page: Page, tmp_path: Path):
    write_page(page, tmp_path / "new" / "page.html")
    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:", text)
    assert not re.search(r'(src|href)="(?!#)', text)
    assert text.count("<svg") == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_html_is_well_formed_and_ids_are_unique(page: Page, tmp_path: Path):
    write_page(page, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    balance = Balance()
    balance.feed(text)
    assert not balance.wrong
    assert not balance.open
    assert len(balance.ids) == len(set(balance.ids))
    assert {match for match in re.findall(r'(?:url\(|href=")#([^")]+)', text)} <= set(balance.ids)


def test_text_is_escaped(page: Page, tmp_path: Path):
    write_page(page, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;first&gt;" in text
    assert "<first>" not in text
    assert "because &amp; so" in text


def test_pictures_take_the_colours_of_the_page():
    svg = draw("name")
    assert "var(--accent)" in svg
    assert "var(--soft)" in svg
    assert not [ink for ink in Ink if ink.value in svg]
    assert "var(--sans)" in svg


def test_the_same_picture_has_the_same_bytes():
    assert draw("same") == draw("same")


def test_the_terminal_shows_tables_reasons_and_no_pictures(page: Page):
    text = render_text(page, width=60)
    assert "<first>" in text
    assert "because & so" in text
    assert "more" not in text
    assert "Pictures" not in text
    assert max(map(len, text.splitlines())) <= 60


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named(
    package: str, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in (package, f"{package}.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"{package}.*photomask\[report\]"):
        write_page(page, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_refused_file_leaves_nothing(page: Page, tmp_path: Path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(ExportError, match="cannot write"):
        write_page(page, tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
