"""Calibration: what is measured, kept, shared and refused."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.attention.tiny_models import FAMILY_NAMES, tiny_model
from tests.attention.tiny_processor import TinyProcessor, tiny_prompt

from photomask.attention import calibration
from photomask.attention.calibration import calibrate
from photomask.attention.encoding import encode
from photomask.attention.kernels.reference import reference_attention
from photomask.attention.layout import TokenKind
from photomask.attention.measuring import SPARSE
from photomask.attention.patterns import Pattern, SinkRule, visible
from photomask.attention.planning import density, plan
from photomask.attention.plugin import attach
from photomask.attention.statistics import AttentionStatistics
from photomask.errors import DataError, DocumentError, MissingDependencyError, PlanError
from photomask.prompts import Prompt

FAMILY = "qwen2_5_vl"
SINKS = SinkRule(diagonal_block=3)
PROMPTS = [
    tiny_prompt(1, 2, 3, task="count"),
    tiny_prompt(4),
    tiny_prompt(5, 6, task="compare"),
    tiny_prompt(7, 8, 9, 10),
    tiny_prompt(),
    tiny_prompt(11, 12, 13),
]
ODD = Prompt(("not a number", *PROMPTS[0].content), task="odd")


def measured(prompts=PROMPTS, model=None, **options) -> AttentionStatistics:
    model = tiny_model(FAMILY) if model is None else model
    return calibrate(model, TinyProcessor(FAMILY), prompts, **{"sinks": SINKS, **options})


def assert_equal(a: AttentionStatistics, b: AttentionStatistics) -> None:
    assert (a.model, a.sinks, a.prompts, a.skipped) == (b.model, b.sinks, b.prompts, b.skipped)
    for name, tensor in a.tensors().items():
        assert torch.equal(tensor, b.tensors()[name]), name


@pytest.fixture(scope="module")
def statistics() -> AttentionStatistics:
    return measured()


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """The prompts whose dense pass was run, by index."""
    seen: list[int] = []
    run = calibration.PromptMeasurer.measure

    def recorded(self, inputs, digest, index, task, probed):
        seen.append(index)
        return run(self, inputs, digest, index, task, probed)

    monkeypatch.setattr(calibration.PromptMeasurer, "measure", recorded)
    return seen


class Literal:
    """A handler that measures errors and pairs with the masks written out, in float64."""

    def __init__(self):
        self.errors: dict[int, list[float]] = {}
        self.pairs: dict[int, list[int]] = {}

    def __call__(self, request):
        layer = request.layer
        query = request.query
        call = request.call
        layout, heads = call.layout, query.shape[1]
        rows = ((layout.kind[0] == TokenKind.IMAGE) & (layout.image[0] >= 1)).nonzero()[:, 0]
        q = query.double()
        k = request.key.double()
        v = request.value.double()
        weight = request.module.o_proj.weight.double()
        outputs = {
            pattern: reference_attention(
                q, k, v, layout, [pattern] * heads, SINKS, call.rule, request.scale
            )[0][:, rows]
            for pattern in Pattern
        }
        size = q.shape[3]
        columns = weight[:, :size]  # of head 0
        self.errors[layer] = [
            float(((outputs[p] - outputs[Pattern.DENSE])[0] @ columns.T).square().sum())
            for p in SPARSE
        ]
        self.pairs[layer] = [int(visible(layout, p, SINKS, call.rule).sum()) for p in Pattern]
        return request.dense()


class TestMeasuring:
    @pytest.mark.parametrize("family", FAMILY_NAMES)
    def test_every_family_is_measured_as_by_literal_masks(self, family):
        model = tiny_model(family)
        processor = TinyProcessor(family)
        prompt = PROMPTS[3]
        found = calibrate(model, processor, [prompt], sinks=SINKS)
        literal = Literal()
        with torch.no_grad():
            attach(model, literal)(**encode(processor, prompt).inputs, use_cache=False)
        for layer in range(found.model.layers):
            wanted = torch.tensor(literal.errors[layer])
            torch.testing.assert_close(
                found.projected_error[0, layer, 0], wanted, rtol=1e-4, atol=1e-5
            )
            assert found.pairs[0, layer].tolist() == literal.pairs[layer]

    def test_prompts_with_fewer_than_two_images_are_skipped(self, statistics):
        assert [record.index for record in statistics.prompts] == [0, 2, 3, 5]
        assert [record.images for record in statistics.prompts] == [3, 2, 4, 3]
        assert [record.task for record in statistics.prompts[:2]] == ["count", "compare"]
        assert statistics.skipped == 2

    def test_the_model_is_left_as_it_was(self, statistics):
        model = tiny_model(FAMILY)
        statistics.check(model)
        assert model.config.get_text_config()._attn_implementation == "sdpa"
        assert not model.training

    def test_a_model_in_training_is_measured_in_evaluation(self, statistics):
        model = copy.deepcopy(tiny_model(FAMILY)).train()
        assert_equal(measured(model=model), statistics)
        assert model.training

    def test_an_iterator_of_prompts_is_enough(self, statistics):
        assert_equal(measured(iter(PROMPTS)), statistics)

    def test_a_plan_follows(self, statistics):
        found = plan(statistics, budget=0.5)
        found.check(tiny_model(FAMILY))
        assert 0 < density(found, statistics) < 1

    def test_progress_is_shown_over_all_prompts(self):
        shown = []

        def progress(items, label):
            shown.append((len(items), label))
            return items

        measured(progress=progress)
        assert shown == [(6, "calibrating")]


class TestRefusing:
    def test_prompts_that_are_all_skipped_are_refused(self):
        with pytest.raises(DataError, match=r"at least one prompt with two images; 2 were given"):
            measured([tiny_prompt(1), tiny_prompt()])

    def test_what_is_not_finite_is_told_by_prompt_layer_and_head(self):
        model = copy.deepcopy(tiny_model(FAMILY))
        model.model.language_model.layers[1].self_attn.v_proj.weight.data[16:] = torch.nan
        with pytest.raises(DataError, match=r"prompt 2 \('compare'\), layer 1, head 2"):
            measured([PROMPTS[1], PROMPTS[1], PROMPTS[2]], model=model)

    def test_a_prompt_that_cannot_be_encoded_is_refused(self):
        with pytest.raises(DataError, match="TinyProcessor refuses a prompt of task 'odd'"):
            measured([PROMPTS[0], ODD])

    def test_several_processes_need_accelerate(self, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setitem(sys.modules, "accelerate", None)
        with pytest.raises(MissingDependencyError, match=r"photomask\[attention\]"):
            measured()


class TestKeeping:
    def test_finished_prompts_are_not_measured_again(self, tmp_path, statistics, passes):
        file = tmp_path / "statistics.safetensors"
        measured(PROMPTS[:3], save_to=file)
        assert passes == [0, 2]
        assert_equal(measured(save_to=file), statistics)
        assert passes == [0, 2, 3, 5]
        assert_equal(measured(save_to=file), statistics)
        assert passes == [0, 2, 3, 5]
        assert_equal(AttentionStatistics.load(file), statistics)
        assert list(tmp_path.iterdir()) == [file]

    def test_an_interrupted_run_continues(self, tmp_path, statistics, passes):
        file = tmp_path / "statistics.safetensors"

        def interrupted():
            yield from PROMPTS[:4]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            measured(interrupted(), save_to=file)
        assert not file.exists()
        assert_equal(measured(save_to=file), statistics)
        assert passes == [0, 2, 3, 5]

    def test_another_order_of_prompts_measures_only_what_is_probed_now(self, tmp_path, passes):
        file = tmp_path / "statistics.safetensors"
        measured(save_to=file)
        found = measured(PROMPTS[::-1], save_to=file)
        assert passes == [0, 2, 3, 5, 0]
        assert_equal(found, measured(PROMPTS[::-1]))
        assert [record.images for record in found.prompts] == [3, 4, 2, 3]
        assert [record.index for record in found.prompts] == [0, 2, 3, 5]

    def test_other_pixels_are_another_prompt(self, tmp_path, passes):
        file = tmp_path / "statistics.safetensors"
        measured([tiny_prompt(1, 2)], save_to=file)
        measured([tiny_prompt(3, 2)], save_to=file)
        assert passes == [0, 0]

    def test_statistics_of_another_model_are_refused(self, tmp_path):
        file = tmp_path / "statistics.safetensors"
        measured(PROMPTS[:1], save_to=file)
        other = copy.deepcopy(tiny_model(FAMILY))
        other.model.language_model.layers[0].self_attn.o_proj.weight.data *= 2
        with pytest.raises(PlanError, match="other weights"):
            measured(model=other, save_to=file)

    def test_statistics_of_other_sinks_are_refused(self, tmp_path):
        file = tmp_path / "statistics.safetensors"
        measured(PROMPTS[:1], save_to=file)
        with pytest.raises(DataError, match="choose another file"):
            measured(sinks=SinkRule(leading=0), save_to=file)

    def test_another_kind_of_file_is_refused(self, tmp_path):
        file = tmp_path / "statistics.safetensors"
        file.write_text("something else")
        with pytest.raises(DocumentError):
            measured(save_to=file)
        assert file.read_text() == "something else"


PROGRAM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.attention.test_calibration import ODD, PROMPTS, measured
from photomask.errors import DataError

folder = Path(sys.argv[1])
found = measured(save_to=folder / "statistics.safetensors")
from accelerate import PartialState
state = PartialState()
assert state.num_processes == 2
found.save(folder / f"{state.process_index}.safetensors")
try:
    measured([PROMPTS[0], ODD])
except DataError as error:  # of the second process, heard by both
    assert "refuses a prompt of task 'odd'" in str(error)
else:
    raise AssertionError("nobody noticed")
state.destroy_process_group()
"""


def test_two_processes_return_what_one_returns(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(program), str(tmp_path)]
    run = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = measured()
    torch.set_num_threads(threads)
    for name in ("0", "1", "statistics"):
        assert_equal(AttentionStatistics.load(tmp_path / f"{name}.safetensors"), alone)
