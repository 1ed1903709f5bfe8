"""The report of a vision transformer of 254 steps: small, and usable in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.report.browser import Browser, headless_browser

from photomask.chip import (
    Report,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
    verify,
    write_html,
)
from photomask.zoo import calibration_set, load
from photomask.zoo import test_set as held_out_set

STEPS = 254
MOST_BYTES = 2_000_000
TABLE = "steps-of-the-program"

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def report() -> Report:
    model, (images, _) = load("vision_transformer"), calibration_set(8)
    prepared = prepare(model, load_recipe("w8a8-residual16"), images[:1])
    calibrate(prepared, images)
    pictures, labels = held_out_set()
    return verify(
        model,
        convert(prepared, load_target("asic")),
        pictures[:16],
        labels[:16],
        prepared=prepared,
        oracle_samples=1,
        layer_samples=4,
        multiplier_widths=(8, 16),
        study_samples=1,
        sensitivity_samples=1,
        accelerator="reference",
    )


@pytest.fixture(scope="module")
def page_file(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(report, path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with headless_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def test_the_file_is_small_although_it_has_every_step(report: Report, page_file: Path):
    assert len(report.steps) == STEPS
    assert page_file.stat().st_size < MOST_BYTES


def test_it_opens_without_a_message_and_loads_nothing_else(browser: Browser, page_file: Path):
    browser.open(page_file)
    assert browser.run("return document.querySelectorAll(`#${arguments[0]} tbody tr`).length",
                       TABLE) == STEPS  # fmt: skip
    assert browser.messages() == []
    own = page_file.absolute().as_uri()
    assert {url for url in browser.requests() if not url.startswith("data:")} == {own}


def test_steps_sort_by_cycles_and_by_address(browser: Browser, page_file: Path, report: Report):
    browser.open(page_file)
    for title, values in (
        ("cycles", [step.cycles or None for step in report.steps]),
        ("RTL address", [step.output.place and step.output.place.address for step in report.steps]),
    ):
        found = browser.run(
            """
            const table = document.querySelector(`table[data-name="${arguments[0]}"]`);
            const heads = [...table.tHead.rows[0].cells];
            const place = heads.findIndex((head) => head.textContent.trim() === arguments[1]);
            heads[place].querySelector("button").click();
            heads[place].querySelector("button").click();
            return table.tBodies[0].rows[0].cells[0].textContent.trim();
            """,
            TABLE,
            title,
        )
        most = max(value for value in values if value is not None)
        assert values[[step.name for step in report.steps].index(found)] == most
    assert browser.messages() == []


def test_pictures_of_samples_are_shown(browser: Browser, page_file: Path):
    browser.open(page_file)
    sizes = browser.run(
        """
        const sources = [...document.querySelectorAll("svg image")].map((x) => x.href.baseVal);
        return Promise.all(sources.map((source) => {
          const image = new Image();
          image.src = source;
          return image.decode().then(() => [image.naturalWidth, image.naturalHeight]);
        }));
        """
    )
    assert sizes == [[28, 28]] * 8
    assert browser.messages() == []


def test_a_row_of_the_graph_leads_to_the_step(browser: Browser, page_file: Path, report: Report):
    browser.open(page_file)
    last = report.steps[-1].name
    browser.run(
        """
        const links = document.querySelectorAll("#the-program-as-a-graph svg a");
        links[links.length - 1].dispatchEvent(new MouseEvent("click", {bubbles: true}));
        """
    )
    browser.driver.implicitly_wait(5)
    row = browser.driver.find_element("css selector", "tr:target:not([hidden])")
    assert row.text.startswith(last)
