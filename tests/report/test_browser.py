"""A report in a browser: the chip report of 254 layers, whose tables are sorted and saved."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.report.browser import Browser, headless_browser
from torch import nn

from photomask.chip import IntegerProgram, verify, write_html
from photomask.report import write_csv

LAYERS = 254
"""Steps of a vision transformer's program."""
MOST_BYTES = 2_000_000


@pytest.fixture(scope="module")
def report(small_network: nn.Module, small_program: IntegerProgram, small_images: torch.Tensor):
    found = verify(small_network, small_program, small_images, labels=torch.arange(16) % 5)
    layers = [
        found.layers[place % len(found.layers)].model_copy(
            update={"node": f"blocks.{place}.layer", "sqnr_db": 10.0 + (place * 37 % 101) / 3}
        )
        for place in range(LAYERS)
    ]
    return found.model_copy(update={"layers": tuple(layers)})


@pytest.fixture(scope="module")
def page_file(report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(report, path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with headless_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def test_a_report_of_254_layers_is_small(page_file: Path):
    assert page_file.stat().st_size < MOST_BYTES


def test_it_opens_without_a_message_and_loads_nothing_else(browser: Browser, page_file: Path):
    browser.open(page_file)
    assert browser.run("return document.querySelectorAll('.tools').length") > 2
    assert browser.messages() == []
    addresses = {each for each in browser.requests() if not each.startswith("data:")}
    assert addresses == {page_file.absolute().as_uri()}


COLUMN = """
const [name, place] = arguments;
const table = document.querySelector(`table[data-name="${name}"]`);
return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => {
  const cell = row.cells[place];
  return [cell.dataset.sort ?? cell.textContent.trim(), row.id];
});
"""


def test_every_table_sorts_by_every_column(browser: Browser, page_file: Path):
    browser.open(page_file)
    tables = browser.run(
        "return [...document.querySelectorAll('table[data-name]')].map((table) => "
        "[table.dataset.name, [...table.tHead.rows[0].cells]"
        ".map((head) => head.classList.contains('number'))])"
    )
    assert len(tables) >= 3
    for name, columns in tables:
        before = browser.run(COLUMN, name, 0)
        for place, is_number in enumerate(columns):
            for direction in ("ascending", "descending", "none"):
                assert press_head(browser, name, place) == direction
                found = [value for value, _ in browser.run(COLUMN, name, place)]
                if is_number and direction != "none":
                    assert_sorted(found, direction == "descending")
        assert browser.run(COLUMN, name, 0) == before
    assert browser.messages() == []


def press_head(browser: Browser, table: str, place: int) -> str:
    """Presses the head of a column and returns how the table says it is sorted."""
    return browser.run(
        'const head = document.querySelector(`table[data-name="${arguments[0]}"]`)'
        ".tHead.rows[0].cells[arguments[1]];"
        "head.querySelector('button').click(); return head.getAttribute('aria-sort')",
        table,
        place,
    )


def assert_sorted(texts: list[str], descending: bool) -> None:
    """Holds that numbers are in order, and that what is no number comes last."""
    numbers = [number(text) for text in texts]
    known = [value for value in numbers if value is not None]
    assert numbers[: len(known)] == sorted(known, reverse=descending)


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def test_heads_are_pressed_by_keyboard(browser: Browser, page_file: Path):
    browser.open(page_file)
    from selenium.webdriver.common.keys import Keys

    button = browser.driver.find_element("css selector", "table[data-name=layers] thead button")
    button.send_keys(Keys.ENTER)
    head = browser.driver.find_element("css selector", "table[data-name=layers] thead th")
    assert head.get_attribute("aria-sort") == "ascending"


def test_rows_are_filtered_by_text_and_by_value(browser: Browser, page_file: Path):
    browser.open(page_file)
    tools = browser.driver.find_element("css selector", "#layers .tools")
    tools.find_element("css selector", "input").send_keys("blocks.25")
    found = browser.run(COLUMN, "layers", 0)
    assert [text for text, _ in found] == [f"blocks.{n}.layer" for n in (25, *range(250, LAYERS))]
    assert f"of {LAYERS} rows" in tools.find_element("css selector", ".count").text
    operator = browser.run(COLUMN, "layers", 1)[0][0]
    select = tools.find_element("css selector", "select")
    select.find_element("css selector", f"option[value='={operator}']").click()
    assert 0 < len(browser.run(COLUMN, "layers", 0)) < len(found)
    assert {text for text, _ in browser.run(COLUMN, "layers", 1)} == {operator}


def test_a_link_to_a_row_shows_it_although_it_is_filtered_out(browser: Browser, page_file: Path):
    browser.open(page_file)
    browser.driver.find_element("css selector", "#layers .tools input").send_keys("nothing")
    assert browser.run(COLUMN, "layers", 0) == []
    browser.run("location.hash = '#layers.blocks.200.layer'")
    browser.driver.implicitly_wait(5)
    row = browser.driver.find_element("css selector", "tr:target:not([hidden])")
    assert row.text.startswith("blocks.200.layer")
    top = browser.run("return arguments[0].getBoundingClientRect().top / innerHeight", row)
    assert 0 < top < 1


def test_downloaded_tables_are_those_that_python_writes(
    browser: Browser, page_file: Path, report, tmp_path: Path
):
    browser.open(page_file)
    names = write_csv(report.page(), tmp_path / "tables")
    assert "layers.csv" in names
    for name in names:
        anchor = name.removesuffix(".csv")
        browser.run(
            "[...document.querySelectorAll(`#${CSS.escape(arguments[0])} .tools button`)]"
            ".at(-1).click()",
            anchor,
        )
        assert browser.downloaded(name) == (tmp_path / "tables" / name).read_bytes()


def test_csv_holds_numbers(report, tmp_path: Path):
    write_csv(report.page(), tmp_path / "tables")
    with (tmp_path / "tables" / "layers.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == LAYERS
    for row, layer in zip(rows, report.layers, strict=True):
        assert math.isclose(float(row["SQNR dB"]), layer.sqnr_db, abs_tol=0.051)
        assert "B" not in row["bytes [B]"]
