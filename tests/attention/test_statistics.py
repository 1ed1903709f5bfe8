"""Statistics: strict files, exact merging, no number that is none."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.attention.random_statistics import identity, random_statistics

from photomask.attention.patterns import SinkRule
from photomask.attention.statistics import AttentionStatistics
from photomask.errors import DataError, DocumentError, PlanError


def part(statistics: AttentionStatistics, places: list[int], skipped: int) -> AttentionStatistics:
    """The prompts at some places."""
    tensors = {name: tensor[places] for name, tensor in statistics.tensors().items()}
    prompts = tuple(statistics.prompts[place] for place in places)
    return dataclasses.replace(statistics, prompts=prompts, skipped=skipped, **tensors)


def assert_equal(a: AttentionStatistics, b: AttentionStatistics) -> None:
    assert (a.model, a.sinks, a.prompts, a.skipped) == (b.model, b.sinks, b.prompts, b.skipped)
    for name, tensor in a.tensors().items():
        assert torch.equal(tensor, b.tensors()[name]), name


def rewrite(path: Path, header: dict[str, object] | None = None, **tensors: torch.Tensor) -> None:
    """Changes some of what a file holds; leaves its hash as it is."""
    with safe_open(path, framework="pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        old = json.loads(file.metadata()["photomask"])
    changed = {name: value for name, value in (kept | tensors).items() if value.numel()}
    save_file(changed, path, {"photomask": json.dumps(old | (header or {}))})


class TestMerging:
    def test_shards_in_any_order_make_the_same_statistics(self):
        whole = random_statistics(prompts=5)
        shards = [part(whole, [0, 3], 1), part(whole, [1, 4], 0), part(whole, [2], 0)]
        for order in itertools.permutations(shards):
            merged = AttentionStatistics.merge(order)
            assert_equal(merged, whole)
            assert merged.content_hash() == whole.content_hash()

    def test_a_prompt_twice_is_refused(self):
        whole = random_statistics()
        with pytest.raises(DataError, match="prompt 2 is in the statistics twice"):
            AttentionStatistics.merge([whole, part(whole, [1], 0)])

    def test_other_models_and_sinks_are_refused(self):
        whole = random_statistics()
        other = dataclasses.replace(
            whole, model=whole.model.model_copy(update={"fingerprint": "a" * 64})
        )
        with pytest.raises(DataError, match="different models"):
            AttentionStatistics.merge([whole, other])
        other = dataclasses.replace(whole, sinks=SinkRule(leading=9))
        with pytest.raises(DataError, match="different sinks"):
            AttentionStatistics.merge([whole, other])

    def test_nothing_to_merge_is_refused(self):
        with pytest.raises(DataError):
            AttentionStatistics.merge([])


class TestFiles:
    def test_statistics_survive_their_file(self, tmp_path):
        whole = random_statistics()
        whole.save(tmp_path / "statistics.safetensors")
        assert_equal(AttentionStatistics.load(tmp_path / "statistics.safetensors"), whole)

    def test_the_same_statistics_make_the_same_bytes(self, tmp_path):
        random_statistics().save(tmp_path / "a")
        random_statistics().save(tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    @pytest.mark.parametrize("cut", [0, 5, 2000, -1])
    def test_a_truncated_file_is_refused(self, tmp_path, cut):
        path = tmp_path / "statistics.safetensors"
        random_statistics().save(path)
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(DocumentError, match=str(path)):
            AttentionStatistics.load(path)

    def test_an_absent_file_is_refused(self, tmp_path):
        with pytest.raises(DocumentError, match="cannot read"):
            AttentionStatistics.load(tmp_path / "none")

    def test_any_changed_byte_is_noticed(self, tmp_path):
        path = tmp_path / "statistics.safetensors"
        random_statistics().save(path)
        content = bytearray(path.read_bytes())
        for place in range(0, len(content), 211):
            changed = bytearray(content)
            changed[place] ^= 1
            path.write_bytes(changed)
            with pytest.raises(DocumentError):
                AttentionStatistics.load(path)

    @pytest.mark.parametrize(
        ("header", "problem"),
        [
            ({"schema_version": 2}, "schema_version"),
            ({"extra": 1}, "extra"),
            ({"skipped": 2}, "altered"),
            ({"sinks": {"leading": 3}}, "altered"),
            ({"prompts": []}, "at least one"),
        ],
    )
    def test_a_changed_header_is_refused(self, tmp_path, header, problem):
        path = tmp_path / "statistics.safetensors"
        random_statistics().save(path)
        rewrite(path, header)
        with pytest.raises(DocumentError, match=problem):
            AttentionStatistics.load(path)

    @pytest.mark.parametrize(
        ("tensors", "problem"),
        [
            ({"recall": torch.ones(5, 3, 4, 3)}, "altered"),
            ({"recall": torch.ones(5, 3, 4, 2)}, r"statistics recall: expected .*\[5, 3, 4, 3\]"),
            ({"recall": torch.ones(5, 3, 4, 3).double()}, "float64"),
            ({"recall": torch.full((5, 3, 4, 3), torch.nan)}, "found nan"),
            ({"recall": torch.ones(0)}, "not attention statistics"),
            ({"more": torch.ones(1)}, "not attention statistics"),
        ],
    )
    def test_changed_tensors_are_refused(self, tmp_path, tensors, problem):
        path = tmp_path / "statistics.safetensors"
        random_statistics().save(path)
        rewrite(path, **tensors)
        with pytest.raises(DocumentError, match=problem):
            AttentionStatistics.load(path)


class TestContents:
    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -1.0])
    def test_an_impossible_number_is_told_by_prompt_layer_and_head(self, value):
        whole = random_statistics()
        error = whole.error.clone()
        error[3, 1, 2, 0] = value
        with pytest.raises(DataError, match=r"prompt 6 \('count'\), layer 1, head 2"):
            dataclasses.replace(whole, error=error)

    def test_an_infinite_layer_is_told_without_head(self):
        whole = random_statistics()
        norm = whole.layer_norm.clone()
        norm[1, 2] = torch.inf
        with pytest.raises(DataError, match=r"prompt 2 \('count'\), layer 2: found inf"):
            dataclasses.replace(whole, layer_norm=norm)

    def test_the_relative_error_is_the_mean_over_prompts(self):
        whole = random_statistics()
        found = whole.relative_error()
        for layer, head, pattern in itertools.product(range(3), range(4), range(3)):
            ratios = [
                float(whole.projected_error[prompt, layer, head, pattern])
                / float(whole.layer_norm[prompt, layer])
                for prompt in range(5)
            ]
            assert float(found[layer, head, pattern]) == pytest.approx(sum(ratios) / 5)

    def test_a_layer_without_output_loses_nothing(self):
        whole = random_statistics()
        still = dataclasses.replace(
            whole,
            layer_norm=torch.zeros_like(whole.layer_norm),
            projected_error=torch.zeros_like(whole.projected_error),
        )
        assert still.relative_error().count_nonzero() == 0

    def test_the_sensitivity_is_the_change_for_each_unit_of_error_of_probed_prompts(self):
        whole = random_statistics()
        found = whole.sensitivity()
        for layer in range(3):
            places = [0, 2, 4]
            change = sum(float(whole.change[place, layer]) for place in places)
            error = sum(
                float(whole.projected_error[place, layer, head, 0])
                / float(whole.layer_norm[place, layer])
                for place in places
                for head in range(4)
            )
            assert float(found[layer]) == pytest.approx(change / error if error else 0)

    def test_a_layer_that_changes_no_answer_loses_nothing(self):
        whole = random_statistics()
        change = whole.change.clone()
        change[:, 2] = 0
        lost = dataclasses.replace(whole, change=change).lost_output()
        assert lost[2].count_nonzero() == 0
        assert lost[:2].count_nonzero() > 0

    def test_statistics_without_a_probe_are_refused(self):
        whole = random_statistics()
        records = tuple(record.model_copy(update={"probed": False}) for record in whole.prompts)
        with pytest.raises(DataError, match="no prompt of these statistics was probed"):
            dataclasses.replace(whole, prompts=records).sensitivity()

    def test_another_model_is_refused(self):
        whole = random_statistics()
        whole.check(identity())
        with pytest.raises(PlanError, match="layers: 3, 4"):
            whole.check(identity(layers=4))

    def test_the_printed_table_names_every_pattern_and_class(self):
        text = str(random_statistics())
        assert "5 prompts of 2 to 6 images and 100 to 104 tokens, 1 skipped" in text
        for name in ("sinks", "own image", "intra-image+sink", "output lost"):
            assert name in text

    def test_what_no_measurement_gives_is_refused(self):
        whole = random_statistics()
        recall, pairs = whole.recall.clone(), whole.pairs.clone()
        recall[1, 0, 2, 1] = 1.5
        pairs[2, 1, 0] = pairs[2, 1, 3] + 1
        for change, named in (
            ({"recall": recall}, r"recall: found 1\.5, but a share is at most 1"),
            ({"pairs": pairs}, "a sparse pattern has more pairs than the dense one"),
            ({"prompts": whole.prompts[::-1]}, r"\[8, 6, 4, 2, 0\] are not in order"),
            ({"prompts": whole.prompts[:1] * 5}, "one is there twice"),
        ):
            with pytest.raises(DataError, match=named):
                dataclasses.replace(whole, **change)
