import shutil
from pathlib import Path

import numpy as np
import pytest

from photomask.chip.forms.memory import check_outputs
from photomask.errors import DocumentError, UsageError


def rewrite(path: Path, word: int, text: str) -> None:
    """Replaces one word of a hex file; word 0 follows the comment."""
    lines = path.read_text().split("\n")
    lines[word + 1] = text
    path.write_text("\n".join(lines))


def test_a_faultless_simulator_passes(pristine_export, simulated):
    report = check_outputs(pristine_export, simulated)
    assert report.passed
    assert report.first_mismatch is None
    assert {edge.missing for edge in report.edges} == {0}
    assert report.files == 22


def test_any_subset_of_edges_and_samples_passes(pristine_export, tmp_path):
    (tmp_path / "out/1").mkdir(parents=True)
    shutil.copy(pristine_export / "golden/1/pool.npy", tmp_path / "out/1")
    shutil.copy(pristine_export / "golden/0/logits.dec", tmp_path / "out")
    (tmp_path / "out/simulator.log").write_text("finished at 1234 ns")
    report = check_outputs(pristine_export, tmp_path / "out")
    assert report.passed
    results = {edge.edge: edge for edge in report.edges}
    assert (results["pool"].matched, results["pool"].missing) == (36, 36)
    assert (results["logits"].matched, results["logits"].missing) == (5, 5)
    assert results["x"].verdict == "absent"
    assert results["pool"].verdict == "partial"


def test_one_wrong_element_is_named(pristine_export, simulated):
    path = simulated / "1/pool.hex"
    word = int(path.read_text().split("\n")[1 + 5], 16)
    rewrite(path, 5, f"{word ^ (1 << 16):08x}")
    report = check_outputs(pristine_export, simulated)
    golden = np.load(pristine_export / "golden/1/pool.npy")
    first = report.first_mismatch
    assert not report.passed
    assert first is not None
    assert (first.sample, first.edge, first.step) == (1, "pool", "pool")
    assert first.operator == "max_pool"
    assert (first.word, first.lane) == (5, 2)
    assert first.axes == ("n", "c", "h", "w")
    # Element 22 of [1, 4, 3, 3].
    assert first.coordinate == (0, 2, 1, 1)
    assert first.expected == golden[0, 2, 1, 1]
    assert first.found == int(golden[0, 2, 1, 1]) ^ 1
    assert first.suspects == ("pool",)
    assert "the fault is in this step" in str(report)
    assert {e.edge: e.mismatched for e in report.edges if e.mismatched} == {"pool": 1}


def test_the_first_edge_in_the_order_of_computation_is_named(pristine_export, simulated):
    for name in ("0/logits", "1/layer2.conv", "0/residual", "1/flatten"):
        rewrite(simulated / f"{name}.hex", 0, "5a5a5a5a")
    report = check_outputs(pristine_export, simulated)
    assert report.first_mismatch is not None
    assert (report.first_mismatch.edge, report.first_mismatch.sample) == ("layer2.conv", 1)
    assert sum(edge.mismatched > 0 for edge in report.edges) == 4


def test_edges_that_were_not_dumped_widen_the_suspicion(pristine_export, simulated):
    rewrite(simulated / "0/residual.hex", 2, "00000fff")
    for name in ("layer2.conv_requantize", "layer2.conv"):
        (simulated / f"0/{name}.hex").unlink()
    report = check_outputs(pristine_export, simulated)
    assert report.first_mismatch is not None
    assert report.first_mismatch.suspects == (
        "layer2.conv",
        "layer2.conv/requantize",
        "residual",
    )
    assert "the fault is in one of 3 steps" in str(report)


def test_a_wrong_input_is_named_as_such(pristine_export, simulated):
    rewrite(simulated / "0/x.hex", 0, "00000000")
    report = check_outputs(pristine_export, simulated)
    assert report.first_mismatch is not None
    assert report.first_mismatch.step is None
    assert report.first_mismatch.suspects == ()
    assert "this is an input of the model" in str(report)


def test_unknown_digits_are_mismatches(pristine_export, simulated):
    rewrite(simulated / "0/pool.hex", 1, "00xxzz13")
    report = check_outputs(pristine_export, simulated)
    first = report.first_mismatch
    assert first is not None
    assert (first.found, first.word, first.lane) in [(None, 1, 1), (0x13, 1, 0)]
    golden = np.load(pristine_export / "golden/0/pool.npy").ravel()[4:8].astype(np.uint8)
    assert sum(edge.mismatched for edge in report.edges) == 2 + (golden[0] != 0x13) + (
        golden[3] != 0
    )
    assert "x or z" in str(report) or golden[0] != 0x13


def test_unused_bits_and_lanes_are_not_compared(pristine_export, simulated):
    """Five logits of 8 bits: three lanes of the last word hold nothing."""
    path = simulated / "0/logits.hex"
    last = path.read_text().split("\n")[2]
    rewrite(path, 1, "xxfe5a" + last[-2:])
    assert check_outputs(pristine_export, simulated).passed


def test_a_short_file_is_compared_as_far_as_it_goes(pristine_export, simulated):
    path = simulated / "0/pool.hex"
    path.write_text("\n".join(path.read_text().split("\n")[:5]) + "\n")
    report = check_outputs(pristine_export, simulated)
    assert report.problems == ("0/pool.hex: the file holds 4 words, expected 9",)
    pool = next(edge for edge in report.edges if edge.edge == "pool")
    assert (pool.matched, pool.mismatched, pool.missing) == (16 + 36, 0, 20)
    assert not report.passed


def test_a_long_file_is_a_problem(pristine_export, simulated):
    with (simulated / "0/pool.hex").open("a") as file:
        file.write("00000000\n")
    report = check_outputs(pristine_export, simulated)
    assert report.problems == ("0/pool.hex: the file holds 10 words, expected 9",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("0/pool.hex", b"hello world\n", "0/pool.hex: line 1 holds 'hello'"),
        ("0/pool.hex", b"", "0/pool.hex: the file holds 0 words, expected 9"),
        ("0/pool.hex", b"\x00\xff", "0/pool.hex: byte 1 is 0xff"),
        ("0/pool.bin", b"01012\n", "0/pool.bin: line 1 holds '01012'"),
        ("0/pool.dec", b"1.5\n", "0/pool.dec: line 1 holds '1.5'"),
        ("0/pool.npy", b"garbage", "0/pool.npy: it is not a readable .npy file"),
        ("0/pol.hex", b"00\n", "0/pol.hex: no edge of the export has this name; do you mean 'po"),
        ("7/pool.hex", b"00\n", "7/pool.hex: the export has the samples 0 to 1, but no sample 7"),
        ("a/b/pool.hex", b"00\n", "a/b/pool.hex: the path is neither <sample>/<edge>.<format>"),
        ("zero/pool.hex", b"00\n", "zero/pool.hex: the path is neither <sample>/<edge>.<format>"),
    ],
)
def test_a_file_that_is_no_edge_is_a_problem(name, content, message, pristine_export, simulated):
    path = simulated / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    report = check_outputs(pristine_export, simulated)
    assert not report.passed
    assert len(report.problems) == 1
    assert report.problems[0].startswith(message)


def test_an_empty_folder_is_a_problem(pristine_export, tmp_path):
    (tmp_path / "empty").mkdir()
    report = check_outputs(pristine_export, tmp_path / "empty")
    assert not report.passed
    expected = "no file is named after an edge of the export; expected, for example, 0/x.hex"
    assert expected in str(report)


def test_a_dumped_memory_with_addresses_and_comments_passes(pristine_export, simulated):
    """What `$writememh` of common simulators looks like."""
    path = simulated / "0/residual.hex"
    words = path.read_text().split("\n")[1:-1]
    lines = []
    for index, word in enumerate(words):
        if index % 16 == 0:
            lines.append(f"// 0x{index:08x}")
        lines.append(word.upper())
    path.write_text("\n".join(lines) + "\n")
    (simulated / "1/residual.hex").write_text("@00000000\n" + " ".join(words))
    report = check_outputs(pristine_export, simulated)
    assert report.problems == ()
    assert all(edge.mismatched == 0 for edge in report.edges if edge.edge != "residual")


def test_a_missing_folder_is_a_usage_error(pristine_export, tmp_path):
    for pair in ((pristine_export, tmp_path / "no"), (tmp_path / "no", pristine_export)):
        with pytest.raises(UsageError, match="there is no folder"):
            check_outputs(*pair)


def test_a_damaged_export_is_a_document_error(exported, simulated):
    (exported / "golden/0/pool.hex").write_text("00\n")
    with pytest.raises(DocumentError, match=r"golden/0/pool\.hex: the file has 3 bytes"):
        check_outputs(exported, simulated)
    (exported / "manifest.json").write_text("{")
    with pytest.raises(DocumentError, match=r"manifest\.json"):
        check_outputs(exported, simulated)


def test_the_report_is_frozen(pristine_export, simulated):
    report = check_outputs(pristine_export, simulated)
    with pytest.raises(ValueError, match="frozen"):
        report.files = 3
