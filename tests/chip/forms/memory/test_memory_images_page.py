import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "memory-images.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_python_block_of_the_page_runs(block):
    exec(compile(block, str(PAGE), "exec"), {})


def test_the_report_shown_is_the_report_printed(capsys):
    exec(compile(BLOCKS[-1], str(PAGE), "exec"), {})
    printed = capsys.readouterr().out
    page = PAGE.read_text(encoding="utf-8")
    shown = re.search(r"```output\n(first mismatch.*?)```", page, re.DOTALL)
    assert shown is not None
    assert shown.group(1) in printed
