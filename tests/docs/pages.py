"""The pages of the documentation, and what stands in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FENCED = re.compile(r"^ *```([^\n`]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        language: the first word behind the fence.
        file: its title; the block is then the file of that name.
        code: what stands between the fences.
        line: of the page, on which the code begins.
    """

    language: str
    file: str | None
    code: str
    line: int


def name_of(page: Path) -> str:
    """Returns what a page is called in the tests' names."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> Iterator[Block]:
    """Yields the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for found in FENCED.finditer(text):
        language, _, rest = found[1].partition(" ")
        title = re.fullmatch(r'title="([^"]+)"', rest)
        line = text[: found.start(2)].count("\n")
        yield Block(language, title and title[1], found[2], line)


def prose_of(page: Path) -> str:
    """Returns a page without its fenced blocks."""
    return re.sub(
        r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def inline_code_of(page: Path) -> list[str]:
    """Returns what the prose of a page writes as code."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose_of(page))


def joined_lines(code: str) -> list[str]:
    """Returns the lines of a block of commands, continued ones as one."""
    return code.replace("\\\n", " ").splitlines()
