"""The code of every page runs, and prints what the page says that it prints."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.docs.pages import PAGES, Block, blocks_of, joined_lines, name_of

RUN = {"console", "json", "python"}
"""Languages of blocks that are run, or written where the next block reads them."""
SHOWN = {"c", "jsonl", "make", "output", "py", "sh", "systemverilog", "text", "toml", "yaml"}
"""Languages of blocks that are only shown; `output` must be what the block before it prints, and
`py` is the code of other tools, which are not installed here."""


def run_command_line(line: str) -> None:
    """Runs one `photomask …` line in this process; a comment may name another exit status."""
    from photomask.cli import main

    command, _, comment = line.partition("#")
    expected = int(found[1]) if (found := re.search(r"exit status (\d)", comment)) else 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", shlex.split(command))
        try:
            status = main()
        except SystemExit as end:
            status = end.code
    assert (status or 0) == expected, line


def run_block(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    """Runs a block in the current folder, or writes the file that it is."""
    if block.file:
        Path(block.file).write_text(block.code, encoding="utf-8")
        sys.modules.pop(Path(block.file).stem, None)  # another page's file of that name
    elif block.language == "python":
        code = "\n" * block.line + block.code  # so that errors name the page's own lines
        exec(compile(code, str(page), "exec"), namespace)
    elif block.language == "json":
        Path(f"{page.stem}.json").write_text(block.code, encoding="utf-8")
    elif block.language == "console":
        for line in joined_lines(block.code):
            if line.startswith("photomask "):
                run_command_line(line)


def lines_not_printed(output: str, printed: str) -> list[str]:
    """Returns the lines of an output block that were not printed in this order; `…` is any text."""
    found, missing = [" ".join(line.split()) for line in printed.splitlines()], []
    for line in output.splitlines():
        words = " ".join(line.split())
        pattern = ".*".join(re.escape(part) for part in words.split("…"))
        places = [place for place, text in enumerate(found) if re.fullmatch(pattern, text)]
        if words and words != "…" and not places:
            missing.append(line)
        elif words and places:
            found = found[places[0] + 1 :]
    return missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_code_of_a_page_runs_and_prints_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Blocks run top to bottom, in one namespace and one empty folder a page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    printed = ""
    for block in blocks_of(page):
        if block.language == "output":
            assert not lines_not_printed(block.code, printed), f"line {block.line} of {page.name}"
        else:
            run_block(block, page, namespace)
            printed = capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_of_a_page_is_run_or_marked_as_something_else(page: Path):
    assert {block.language for block in blocks_of(page)} <= RUN | SHOWN


def test_an_output_is_compared_line_by_line():
    printed = "steps  65\nignored\n3 compared, 0 differ\n"
    assert not lines_not_printed("steps 65\n…\n… compared, 0 differ\n", printed)
    assert lines_not_printed("steps 66\n", printed) == ["steps 66"]
    assert lines_not_printed("… differ\nsteps 65\n", printed) == ["steps 65"]
