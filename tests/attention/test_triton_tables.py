"""Triton computes exactly the schedules that PyTorch defines, and compiles for a GPU everywhere."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.attention import layouts

from photomask.attention import schedule as schedules
from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule, SinkRule
from photomask.attention.schedule import build_schedule
from photomask.attention.tables import torch_tables
from photomask.errors import UsageError

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
if not ON_GPU and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton")
if not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton was imported without its interpreter", allow_module_level=True)

from photomask.attention.triton_tables import triton_tables  # noqa: E402

# On a GPU where there is one, else by the interpreter.
pytestmark = [pytest.mark.gpu] if ON_GPU else []
RULES = [
    DenseRule(),
    DenseRule(window=20),
    DenseRule(bidirectional=True),
    DenseRule(bidirectional=True, window=20, window_spares_own_image=True),
]


@pytest.fixture(autouse=True, scope="module")
def _poisoned_memory():
    """Fills tensors that nobody has written to with a huge number."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def assert_equal(
    layout: PromptLayout,
    sinks: SinkRule = SinkRule(),  # noqa: B008
    rule: DenseRule = DenseRule(),  # noqa: B008
    start: int = 0,
    tile_rows: int = 16,
) -> None:
    """Compares all fields of the schedules that PyTorch and Triton make, dtypes included."""
    expected = build_schedule(layout, sinks, rule, start, tile_rows=tile_rows)
    there = on_device(layout)
    tables = triton_tables(there, sinks, rule, start, tile_rows)
    found = schedules._put_in_order(tables, there, rule, start)
    for field in dataclasses.fields(expected):
        wanted, got = getattr(expected, field.name), getattr(found, field.name)
        if isinstance(wanted, torch.Tensor):
            assert (got.dtype, got.device.type, got.is_contiguous()) == (wanted.dtype, DEVICE, True)
            assert torch.equal(got.cpu(), wanted), (field.name, layout.describe(0))
        else:
            assert got == wanted, field.name
            assert type(got) is type(wanted), field.name


def on_device(layout: PromptLayout) -> PromptLayout:
    """Copies a layout; what is a view of a longer prompt stays one."""
    fields = [getattr(layout, field.name) for field in dataclasses.fields(layout)]
    return PromptLayout(*(field.to(DEVICE) for field in fields))


def two_prompts(left: bool = True) -> PromptLayout:
    one = layouts.prompt(images=[37, 5], texts=[6, 0, 3], delimited=True)
    two = layouts.prompt(images=[30], texts=[4, 7], delimited=False, cut=9)
    return layouts.batch([one, two], left=left, extra=1)


@given(layouts.layouts(), layouts.sink_rules(), layouts.dense_rules(), st.data())
@settings(
    max_examples=300 if ON_GPU else 40,  # the interpreter is slow
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_layout_under_any_rule(layout, sinks, rule, data):
    start = data.draw(st.integers(0, layout.tokens))
    assert_equal(layout, sinks, rule, start, data.draw(st.sampled_from([16, 32])))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("left", "start"), [(True, 0), (False, 0), (True, 33), (False, 11)])
def test_padded_batches_of_every_rule(rule, left, start):
    assert_equal(two_prompts(left), SinkRule(leading=2, diagonal_block=7), rule, start)


@pytest.mark.parametrize("rule", RULES)
def test_the_rest_of_prompts_that_was_cut_off_in_images(rule):
    layout = two_prompts().tail(19)
    assert not layout.kind.is_contiguous()
    assert_equal(layout, SinkRule(per_image=2, diagonal_block=7), rule, 3)


@pytest.mark.parametrize("rule", [DenseRule(), DenseRule(bidirectional=True)])
def test_several_programs_share_the_work(rule):
    layout = layouts.regular(2, 400, 350)
    assert layout.tokens > 1024
    assert_equal(layout, SinkRule(), rule, tile_rows=128)


def test_tiles_of_equal_length_keep_their_order():
    prompts = [layouts.prompt(images=[16, 16], texts=[16, 0, 16], delimited=False)] * 3
    assert_equal(layouts.batch(prompts, left=False))


@pytest.mark.parametrize("start", [5, 6])
def test_the_last_token_of_an_image_does_not_look_ahead(start):
    layout = layouts.regular(1, 4, 2)
    assert (layout.stop - layout.positions)[0, start] == 7 - start
    assert_equal(layout, rule=DenseRule(bidirectional=True), start=start)


def test_padding_alone():
    kind = torch.zeros(2, 5, dtype=torch.int8)
    assert_equal(PromptLayout.of(kind, torch.full((2, 5), -1)))


@pytest.mark.parametrize("start", [9, 10])
def test_hardly_a_query(start):
    layout = layouts.regular(1, 4, 2)
    assert layout.tokens == 10
    assert_equal(layout, start=start)


def test_a_prompt_without_compact_keys_beside_one_with_some():
    image = layouts.prompt(images=[6], texts=[0, 0], delimited=False)
    text = layouts.prompt(images=[], texts=[9], delimited=False)
    assert_equal(layouts.batch([image, text], left=True, extra=1), SinkRule(leading=0))
    alone = layouts.batch([image], left=True)
    assert_equal(alone, SinkRule(leading=0))
    assert_equal(alone, SinkRule(leading=0), start=6)  # nothing at all


@pytest.mark.parametrize("shape", [(2, 0), (0, 4)])
def test_no_tokens(shape):
    assert_equal(PromptLayout.of(torch.zeros(shape), torch.zeros(shape)))


@pytest.mark.parametrize(
    ("rule", "start"), [(DenseRule(), 11), (DenseRule(), -1), (DenseRule(window=0), 0)]
)
def test_wrong_rules_are_refused(rule, start):
    with pytest.raises(UsageError, match=r"query_start must be|window must hold"):
        triton_tables(on_device(layouts.regular(1, 4, 2)), SinkRule(), rule, start, 16)


@pytest.mark.gpu
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("start", [0, 123_457])
def test_long_prompts(rule, start):
    layout = layouts.regular(200, 1296, 200)
    assert layout.tokens > 299_000
    assert_equal(layout, SinkRule(), rule, start, tile_rows=128)


@pytest.mark.gpu
def test_many_prompts():
    prompts = [
        layouts.prompt(images=[400] * (1 + n % 3), texts=[n] * (2 + n % 3), delimited=n % 2 == 0)
        for n in range(70)
    ]
    assert_equal(layouts.batch(prompts, left=True), tile_rows=64)


@pytest.mark.gpu
def test_a_gpu_computes_its_schedules_by_triton():
    assert schedules._choose(on_device(two_prompts()).device) is triton_tables


@pytest.mark.parametrize(
    ("device", "capability", "installed", "chosen"),
    [
        ("cuda:0", (9, 0), True, triton_tables),
        ("cuda:0", (8, 0), True, triton_tables),
        ("cuda:0", (7, 5), True, torch_tables),
        ("cuda:0", (9, 0), False, torch_tables),
        ("cpu", (9, 0), True, torch_tables),
    ],
)
def test_who_computes_where(monkeypatch, device, capability, installed, chosen):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(schedules.importlib.util, "find_spec", lambda name: installed or None)
    assert schedules._choose.__wrapped__(torch.device(device)) is chosen


def test_it_compiles_for_hopper_once_for_every_length():
    """Triton's interpreter, which the other tests set, compiles nothing: hence another process."""
    script = Path(__file__).with_name("compile_tables_for_hopper.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "2"]  # the second once for each of two rules
