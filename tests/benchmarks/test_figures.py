import csv
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MARKED = "# Title\n<!-- figures -->\nold\n<!-- /figures -->\nend\n"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("rows")


@pytest.fixture
def figures(rows: ModuleType) -> ModuleType:
    return importlib.import_module("figures")


def test_rows_state_what_was_measured_with_which_versions(rows: ModuleType, tmp_path: Path):
    results = rows.Results("accuracy", tmp_path)
    results.samples(rows.Subject("accuracy", "ours", "net"), "speed", [1.0, 2.0, 6.0], "images/s")
    with (tmp_path / "accuracy.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert tuple(row) == rows.COLUMNS
    assert (row["value"], row["p50"], row["repetitions"]) == ("2", "2", "3")
    assert 1 <= float(row["p20"]) < 2 < float(row["p80"]) <= 6
    assert all(row[name] for name in ("version", "device", "cores", "torch", "python", "date"))


def test_the_newest_row_of_a_subject_wins(rows: ModuleType, tmp_path: Path):
    results = rows.Results("accuracy", tmp_path)
    subject = rows.Subject("accuracy", "ours", "net")
    results.number(subject, "top1", 90, "%")
    results.number(subject, "top1", 91, "%")
    assert [row["value"] for row in rows.read("accuracy", tmp_path)] == ["91"]


def test_figures_replace_what_is_between_the_markers_and_nothing_else(
    rows: ModuleType, figures: ModuleType, tmp_path: Path
):
    results = rows.Results("accuracy", tmp_path)
    results.number(rows.Subject("accuracy", "ours", "net"), "top1", 93.256, "%")
    results.skipped(rows.Subject("accuracy", "theirs", "net"), "not installed: pip install it")
    text = figures.with_figures(MARKED, figures.render(tmp_path))
    assert text.startswith("# Title\n<!-- figures -->\n")
    assert text.endswith("\n<!-- /figures -->\nend\n")
    assert "93.26 %" in text
    assert "old" not in text
    assert "theirs" not in text
    assert figures.with_figures(text, figures.render(tmp_path)) == text


def test_what_learned_says_how_long_and_from_how_much(
    rows: ModuleType, figures: ModuleType, tmp_path: Path
):
    results = rows.Results("quantizers", tmp_path)
    for flow, note in (
        ("calibrated", ""),
        ("reconstructed", ", 1000 steps a block, each of 128 of 8192 images; mean of seeds: 9, 9"),
        ("trained", ", 1 epoch"),
    ):
        subject = rows.Subject("quantizers", f"ours W4A4, {flow}", "net")
        results.number(subject, "top1", 90, "%", note=f"10000 images{note}")
    text = figures.render(tmp_path)
    for cell in ("| 90.00 % |", "| 90.00 %, 1000 steps, 8192 images |", "| 90.00 %, 1 epoch |"):
        assert cell in text


def test_a_text_without_markers_is_left_alone(figures: ModuleType):
    assert figures.with_figures("# Title\n", "figures") is None


def test_every_measured_file_can_be_shown(figures: ModuleType):
    text = figures.render(BENCHMARKS / "results")
    for section in figures.SECTIONS:
        measured = (BENCHMARKS / "results" / f"{section.script}.csv").is_file()
        assert (f"### {section.title}\n" in text) == measured, section.title


def test_every_picture_of_a_section_exists(figures: ModuleType):
    pictures = [each.picture for each in figures.SECTIONS if each.picture]
    assert pictures
    assert all((figures.PAGE.parent / picture).is_file() for picture in pictures)


def without_age(text: str) -> str:
    """Returns figures without what says how old they are, which a change of the code changes."""
    dateless = re.sub(r" †|\*Older than the code.*\*|<sub>†.*</sub>", "", text)
    return re.sub(r"\n+", "\n", dateless)


def test_the_page_and_the_readme_show_the_newest_rows(figures: ModuleType):
    results = BENCHMARKS / "results"
    for path, shown in (
        (figures.PAGE, figures.render(results)),
        (figures.README, figures.markdown(figures.headline.build(results))),
    ):
        text = path.read_text(encoding="utf-8")
        updated = figures.with_figures(text, shown)
        assert updated is not None
        assert without_age(updated) == without_age(text), path.name


def test_a_figure_of_ours_that_is_older_than_the_code_is_marked(
    rows: ModuleType, figures: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    results = rows.Results("mobilenet_v2", tmp_path)
    for name, value in (("photomask w8a8", 80), ("theirs", 70)):
        results.number(rows.Subject("mobilenet_v2", name, "net"), "agreement", value, "%")
    fresh = figures.headline.build(tmp_path)
    assert fresh[1][1:] == ("100 %", "80.0 %", "70.0 % (theirs)")
    assert not figures.headline.note(fresh)
    monkeypatch.setattr(rows, "code_hash", lambda what: "another")
    old = figures.headline.build(tmp_path)
    assert old[1][1:] == ("100 %", "80.0 % †", "70.0 % (theirs)")
    assert figures.headline.note(old)


def test_a_check_finds_figures_that_are_out_of_date_and_writes_nothing(
    rows: ModuleType, figures: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    results = rows.Results("accuracy", tmp_path)
    results.number(rows.Subject("accuracy", "ours", "net"), "top1", 93.256, "%")
    page, readme = tmp_path / "page.md", tmp_path / "README.md"
    page.write_text(MARKED, encoding="utf-8")
    readme.write_text("# Title\n", encoding="utf-8")
    options = ["--page", str(page), "--readme", str(readme), "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["figures.py", *options, "--check"])
    assert figures.main() == 1
    assert page.read_text(encoding="utf-8") == MARKED
    monkeypatch.setattr("sys.argv", ["figures.py", *options])
    assert figures.main() == 0
    assert "93.26 %" in page.read_text(encoding="utf-8")
    assert readme.read_text(encoding="utf-8") == "# Title\n"


def test_the_headline_shows_the_best_other_tool_even_where_it_is_ahead(
    rows: ModuleType, figures: ModuleType, tmp_path: Path
):
    results = rows.Results("quantizers", tmp_path)
    for name, value in (
        ("float", 95),
        ("photomask W8A8, calibrated", 94),
        ("Theirs W8A8, calibrated", 94.5),
        ("Others W8A8, calibrated", 93),
        ("Theirs W4A4, calibrated", 99),
    ):
        results.number(rows.Subject("quantizers", name, "resnet20"), "top1", value, "%")
    head, line = figures.headline.build(tmp_path)
    assert head[1:] == ("original model", "Photomask", "best other tool")
    assert line[1:] == ("95.00 %", "94.00 %", "94.50 % (Theirs)")


def test_the_headline_leaves_out_what_was_not_measured(figures: ModuleType, tmp_path: Path):
    assert figures.headline.build(tmp_path) == [figures.headline.HEAD]


@pytest.fixture
def prefill_rows(rows: ModuleType, tmp_path: Path) -> Path:
    """Rows of one length: two dense kernels, and a plan on images of two sizes."""
    results = rows.Results("prefill_attention", tmp_path)

    def add(name: str, where: str, metric: str, value: float) -> None:
        subject = rows.Subject("prefill_attention", name, where, device="a GPU")
        results.number(subject, metric, value, "", note="28/4 heads")

    layer = "Qwen2.5-VL-7B, 36864 tokens"
    for name, time in (("cuDNN dense (SDPA)", 16), ("FlashAttention-4 dense", 14)):
        add(name, layer, "time", time)
    for image, time in ((1296, 8), (256, 10)):
        where = f"{layer}, images of {image}"
        add("photomask, 30 % dense", where, "time", time)
        add("photomask, 30 % dense", where, "density", 0.4)
        add("photomask, 30 % dense", where, "speed over cuDNN dense (SDPA)", 16 / time)
        add("photomask, 30 % dense", where, "speed over FlashAttention-4 dense", 14 / time)
        add("photomask, 30 % dense", where, "speed over FlexAttention, 30 % dense", 1.1)
        add("photomask, 30 % dense, sparse heads alone", where, "time", 2)
    return tmp_path


def test_plans_stand_beside_the_best_dense_kernel(figures: ModuleType, prefill_rows: Path):
    text = figures.render(prefill_rows)
    assert "| 36,864 tokens |\n" in text
    assert "16.00 ms |\n" in text
    assert "8.00 ms, 1.75×, 70 % |\n" in text
    assert "10.00 ms, 1.40×, 56 % | 8.00 ms, 1.75×, 70 % |\n" in text
    assert "alone (" not in text


def test_the_picture_is_drawn_from_the_rows(
    prefill_rows: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    picture = tmp_path / "pictures" / "prefill.png"
    script = importlib.import_module("prefill_picture")
    options = ["--results", str(prefill_rows), "--picture", str(picture)]
    monkeypatch.setattr("sys.argv", ["prefill_picture.py", *options])
    assert script.main() == 0
    assert 5_000 < picture.stat().st_size < 150_000


def test_no_picture_is_drawn_without_rows(
    rows: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    script = importlib.import_module("prefill_picture")
    options = ["--results", str(tmp_path), "--picture", str(tmp_path / "prefill.png")]
    monkeypatch.setattr("sys.argv", ["prefill_picture.py", *options])
    assert script.main() == 0
    assert not list(tmp_path.iterdir())


def test_a_table_shows_one_gpu_and_one_processor(rows: ModuleType, tmp_path: Path):
    results = rows.Results("accuracy", tmp_path)
    for value, device in enumerate(("NVIDIA A", "NVIDIA B", "AMD", "Intel")):
        subject = rows.Subject("accuracy", "ours", "net", device=device)
        results.number(subject, "top1", value, "%")
    current = rows.read_current("accuracy", tmp_path)
    assert [row["device"] for row in current] == ["NVIDIA B", "Intel"]
