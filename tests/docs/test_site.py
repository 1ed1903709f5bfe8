"""The documentation site: it builds strictly, needs no network, and links every page."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from mkdocs.config import load_config

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}
"""Attributes whose address a browser loads together with a page; `link` is told apart by `rel`."""


class Page(HTMLParser):
    """Collects what a page links to, and what a browser loads with it."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        self.loaded |= {found[name] for kind, name in LOADED if kind == tag and name in found}
        if tag == "link" and found.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.add(found["href"])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def pages_of_nav(nav: object) -> Iterator[str]:
    """Yields the pages of a navigation, however deep they stand."""
    if isinstance(nav, str):
        yield nav
    for each in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []:
        yield from pages_of_nav(each)


def test_every_page_stands_in_the_navigation_once():
    config = load_config(str(ROOT / "mkdocs.yml"))
    linked = list(pages_of_nav(config["nav"]))
    written = {
        path.relative_to(DOCS).as_posix()
        for kind in ("*.md", "*.ipynb")
        for path in DOCS.rglob(kind)
        if ".ipynb_checkpoints" not in path.parts
    }
    assert len(linked) == len(set(linked))
    assert not written - set(linked)


def test_every_page_of_the_site_is_reached_by_links_from_its_home(site: Path):
    reached, ahead = set(), [site / "index.html"]
    while ahead:
        path = ahead.pop()
        if path in reached:
            continue
        reached.add(path)
        local = {link.partition("#")[0] for link in Page(path).links if "://" not in link}
        for link in local:
            target = (path.parent / unquote(link)).resolve()
            if target.suffix == ".html" and target.is_file():
                ahead.append(target)
    assert {path for path in site.rglob("*.html") if path.name != "404.html"} == reached


def test_the_site_loads_nothing_from_the_network(site: Path):
    pages = {path: Page(path).loaded for path in site.rglob("*.html")}
    foreign = {link for links in pages.values() for link in links if re.match(r"(\w+:)?//", link)}
    assert not foreign
    delivered = re.compile(r"//(cdn\w*\.|cdn\.jsdelivr|unpkg|fonts\.google)")
    assert not [path for path in pages if delivered.search(path.read_text(encoding="utf-8"))]
    imported = [
        path
        for path in site.rglob("*.css")
        if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8"))
    ]
    assert not imported


def test_links_that_leave_the_pages_lead_to_the_repository(site: Path):
    links = Page(site / "tutorials" / "quantizer.html").links
    assert any(link.endswith("/blob/main/examples/your_own_quantizer.py") for link in links)
    assert not [link for link in links if link.startswith("..") and link.endswith(".py")]
