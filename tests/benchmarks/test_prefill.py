import csv
import dataclasses
import importlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from photomask.attention.kernels import reference_attention
from photomask.attention.layout import TokenKind
from photomask.attention.patterns import Pattern, visible

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPES = ("Qwen2.5-VL-7B", "Gemma-3-12B")
TOKENS = 768
IMAGE = 100
SIZE = 32


@pytest.fixture
def prefill(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("setting", "gate", "peers", "clock")
    modules = {name: importlib.import_module(f"prefill.{name}") for name in names}
    return SimpleNamespace(**modules, main=importlib.import_module("prefill_attention"))


def test_a_prompt_is_images_with_text_between_them_and_text_at_its_end(prefill: SimpleNamespace):
    prompt = prefill.setting.make_prompt(prefill.setting.SHAPES[SHAPES[0]], 36864, 1296, "cpu")
    kind = prompt.layout.kind[0]
    assert kind[:32].eq(TokenKind.TEXT).all()
    assert kind[-256:].eq(TokenKind.TEXT).all()
    assert prompt.layout.image_counts == [27]
    assert prompt.layout.describe(0).startswith(
        "32 text, 1 start 0, 1296 image 0, 1 end 0, 40 text"
    )


@pytest.mark.parametrize(
    ("percent", "counts"),
    [
        (0, (0, 7, 9, 12)),
        (10, (3, 7, 8, 10)),
        (30, (9, 5, 6, 8)),
        (50, (14, 4, 4, 6)),
        (100, (28, 0, 0, 0)),
    ],
)
def test_a_plan_has_its_share_of_dense_heads(
    prefill: SimpleNamespace, percent: int, counts: tuple[int, ...]
):
    setting = prefill.setting
    plan = setting.make_plan(setting.SHAPES[SHAPES[0]], percent)
    order = (Pattern.DENSE, Pattern.SINK, Pattern.INTRA_IMAGE, Pattern.INTRA_IMAGE_SINK)
    assert tuple(plan.patterns.count(pattern) for pattern in order) == counts
    assert plan == setting.make_plan(setting.SHAPES[SHAPES[0]], percent)
    other = setting.make_plan(setting.SHAPES[SHAPES[1]], percent)
    assert len(other.patterns) == 16
    assert other.patterns.count(Pattern.DENSE) == round(16 * percent / 100)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pattern", Pattern)
def test_every_way_to_write_the_mask_is_what_visible_defines(
    prefill: SimpleNamespace, shape: str, pattern: Pattern
):
    prompt = prefill.setting.make_prompt(prefill.setting.SHAPES[shape], TOKENS, IMAGE, "cpu")
    expected = visible(prompt.layout, pattern, prompt.sinks, prompt.rule)[0]
    rows = torch.arange(TOKENS)
    assert torch.equal(prefill.gate.rows_of_mask(prompt, pattern, rows), expected)
    assert prompt.pairs([pattern] * 3) == 3 * expected.sum()
    function = prefill.peers.make_mask_function(prompt, [Pattern.DENSE, pattern])
    head = torch.tensor(1)
    assert torch.equal(function(None, head, rows[:, None], rows[None, :]), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_blocks_of_the_mask_are_those_that_queries_see(
    prefill: SimpleNamespace, shape: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prefill.peers, "ROWS_AT_ONCE", 3 * SIZE)
    shape = prefill.setting.SHAPES[shape]
    prompt = prefill.setting.make_prompt(shape, TOKENS, IMAGE, "cpu")
    patterns = prefill.setting.make_plan(shape, 30).patterns
    mask = prefill.peers.make_block_mask(prompt, patterns, SIZE)
    blocks = TOKENS // SIZE
    for head, pattern in enumerate(patterns):
        seen = visible(prompt.layout, pattern, prompt.sinks, prompt.rule)[0]
        seen = seen.view(blocks, SIZE, blocks, SIZE).transpose(1, 2).flatten(2)
        whole = seen.all(2)
        for expected, numbers, places in (
            (seen.any(2) & ~whole, mask.kv_num_blocks, mask.kv_indices),
            (whole, mask.full_kv_num_blocks, mask.full_kv_indices),
        ):
            for row in range(blocks):
                listed = places[0, head, row, : numbers[0, head, row]].tolist()
                assert listed == expected[row].nonzero()[:, 0].tolist()


def test_the_gate_passes_the_reference_and_notices_one_wrong_head(prefill: SimpleNamespace):
    shape = dataclasses.replace(prefill.setting.SHAPES[SHAPES[1]], head_size=16)
    prompt = prefill.setting.make_prompt(shape, TOKENS, IMAGE, "cpu")
    layer = prefill.setting.make_layer(shape, TOKENS, "cpu")
    patterns = prefill.setting.make_plan(shape, 30).patterns
    tensors = (layer.query.float(), layer.key.float(), layer.value.float())
    output = reference_attention(
        *tensors, prompt.layout, patterns, prompt.sinks, prompt.rule, shape.scale
    )
    gate = prefill.gate.Gate.of(layer, prompt)
    assert gate.error(output, patterns) < 1e-5
    changed = [Pattern.SINK if each is Pattern.DENSE else each for each in patterns]
    assert gate.error(output, changed) > prefill.gate.LARGEST_ERROR
    sparse = [head for head, each in enumerate(patterns) if each is not Pattern.DENSE]
    assert gate.error(output, changed, sparse) < 1e-5
    output[0, 3, 5, 7] = torch.nan
    assert not gate.error(output, patterns) < prefill.gate.LARGEST_ERROR


def test_calls_take_turns_and_each_is_timed_at_least_five_times(prefill: SimpleNamespace):
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in ("ours", "theirs")}
    times = prefill.clock.time_together(calls, 0.0, torch.device("cpu"))
    assert [len(each) for each in times.values()] == [5, 5]
    rounds = [name for name, _ in itertools.groupby(order)]
    assert rounds[:3] == ["ours", "theirs", "ours"]
    assert order.count("ours") > 6  # also untimed, so that none is timed after a pause


def test_what_is_measured_unless_asked_otherwise(prefill: SimpleNamespace):
    main = prefill.main
    usual, quick = main.parse([]), main.parse(["--quick"])
    assert main.images_wanted(usual, 36864) == [1296, 256, 2500]
    assert main.images_wanted(usual, 73728) == [1296]
    assert main.plans_wanted(usual, 1296) == [0, 10, 30, 50, 100]
    assert main.plans_wanted(usual, 256) == [0, 10, 30]
    assert main.plans_wanted(main.parse(["--images", "256"]), 256) == [0, 10, 30, 50, 100]
    assert main.peers_wanted(usual, 36864) == ["fa4", "cudnn", "fa2", "triton"]
    assert main.peers_wanted(usual, 307200) == ["fa4", "cudnn"]
    wanted = [main.flex_is_wanted(usual, shape) for shape in prefill.setting.SHAPES.values()]
    assert wanted == [True, False]
    assert (quick.tokens, quick.plans, quick.shapes) == ([36864, 131072], [30], [SHAPES[0]])
    assert main.peers_wanted(quick, 36864) == ["fa4", "cudnn"]
    assert not main.flex_is_wanted(quick, prefill.setting.SHAPES[SHAPES[0]])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_script_runs_on_a_processor_and_writes_what_it_promises(
    prefill: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shape: str
):
    small = dataclasses.replace(prefill.setting.SHAPES[shape], head_size=16)
    monkeypatch.setitem(prefill.setting.SHAPES, shape, small)
    options = "--device cpu --tokens 640 --images 100 --plans 30 --milliseconds 1 --peers sdpa flex"
    arguments = [*options.split(), "--shapes", shape, "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["prefill_attention.py", *arguments])
    assert prefill.main.main() == 0
    with (tmp_path / "prefill_attention.csv").open(newline="") as file:
        rows = {(row["implementation"], row["metric"]): row for row in csv.DictReader(file)}
    dense, ours = "SDPA dense", "photomask, 30 % dense"
    value = {key: float(row["value"]) for key, row in rows.items() if row["value"]}
    assert {metric for name, metric in value if name == dense} == {"error", "time", "rate"}
    time, density = value[ours, "time"], value[ours, "density"]
    assert value[ours, f"speed over {dense}"] == pytest.approx(value[dense, "time"] / time, rel=0.3)
    share = value[ours, f"share of the ideal of {dense}"]
    assert share == pytest.approx(value[ours, f"speed over {dense}"] * density, rel=1e-3)
    pairs = density * small.heads * 640 * 641 / 2
    assert value[ours, "rate"] == pytest.approx(4 * 16 * pairs / time / 1e9, rel=0.3)
    assert value["photomask, schedule", "schedule"] > 0
    assert value["photomask, schedule", "memory over keys and values"] > 0
    assert rows["FlexAttention, 30 % dense", "skipped"]["note"].endswith("needs a CUDA device")
    assert rows[dense, "time"]["network"] == f"{shape}, 640 tokens"
    assert rows[ours, "time"]["network"] == f"{shape}, 640 tokens, images of 100"


def test_flex_attention_is_timed_beside_the_measured_plan_alone(
    prefill: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def make_flex(layer, prompt, patterns, options):
        if options:
            raise RuntimeError("BACKEND='FLASH' but flash attention cannot be used")
        return prefill.peers.make_ours(layer, prompt, patterns, prompt.rule)

    shape = SHAPES[0]
    small = dataclasses.replace(prefill.setting.SHAPES[shape], head_size=16)
    monkeypatch.setitem(prefill.setting.SHAPES, shape, small)
    monkeypatch.setattr(prefill.main, "make_flex", make_flex)
    options = "--device cpu --tokens 640 --images 100 --plans 30 --milliseconds 1"
    peers = ["--peers", "sdpa", "flex", "flex-flash", "--shapes", shape]
    arguments = [*options.split(), *peers, "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["prefill_attention.py", *arguments])
    assert prefill.main.main() == 0
    with (tmp_path / "prefill_attention.csv").open(newline="") as file:
        rows = {(row["implementation"], row["metric"]): row for row in csv.DictReader(file)}
    flex = "FlexAttention, 30 % dense"
    metrics = {metric for name, metric in rows if name == flex}
    assert metrics == {"error", "time", "rate", "speed over SDPA dense"}
    assert float(rows["photomask, 30 % dense", f"speed over {flex}"]["value"]) > 0
    assert ("FlexAttention on FlashAttention-4, 30 % dense", "skipped") in rows
    assert len([metric for name, metric in rows if metric == f"speed over {flex}"]) == 1


def test_nothing_is_begun_when_time_is_up(
    prefill: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    arguments = ["--device", "cpu", "--tokens", "640", "--minutes", "0", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["prefill_attention.py", *arguments])
    assert prefill.main.main() == 0
    with (tmp_path / "prefill_attention.csv").open(newline="") as file:
        assert {row["metric"] for row in csv.DictReader(file)} == {"skipped"}
