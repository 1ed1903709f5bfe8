"""Measures the attention of a model once, with one dense pass for each prompt.

Every plan is decided from these measurements.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from photomask.attention.encoding import encode
from photomask.attention.identity import ModelIdentity, identify
from photomask.attention.measuring import LayerMeasurement, OutputProjection, measure
from photomask.attention.patterns import DenseRule, Pattern, SinkRule
from photomask.attention.plugin import attach
from photomask.attention.probing import LayerProbe
from photomask.attention.sampling import SampledRows
from photomask.attention.statistics import AttentionStatistics, PromptRecord
from photomask.attention.visible_pairs import visible_pairs
from photomask.dependencies import OptionalPackage
from photomask.errors import DataError, PhotomaskError
from photomask.prompts import Prompt
from photomask.report import Progress, without_progress
from photomask.stages import stage

if TYPE_CHECKING:
    from photomask.attention.plugin import AttentionCall, AttentionRequest

Item = TypeVar("Item")

PASSES_PER_PROBE = 2
"""How rarely a prompt is probed: a model of n layers probes one prompt in 2 n.

A probe takes n passes, so probing costs one pass for every two dense ones.
"""


@stage(__name__, "calibrate")
def calibrate(
    model: nn.Module,
    processor: Any,
    prompts: Iterable[Prompt],
    *,
    sinks: SinkRule | None = None,
    save_to: Path | None = None,
    progress: Progress = without_progress,
) -> AttentionStatistics:
    """Measures how every head attends, with one dense pass for each prompt and no gradient.

    Some prompts are also probed: the first one, and then one prompt in `2 * layers`. A probe runs
    the prompt once more for each layer, with all heads of that layer at their cheapest pattern and
    all other layers dense. The resulting change of the answer decides how much the errors of the
    layer count in a plan.

    Prompts with fewer than two images are skipped, because every pattern is dense there. When
    `accelerate launch` or `torchrun` starts several processes, each process measures a share of
    the prompts on its own copy of the model, and all processes return the same statistics.

    Args:
        model: a vision-language model of a supported family, from transformers. It is not changed.
        processor: the processor of the model.
        prompts: prompts like those that the model will see. They are read one at a time, and their
            order must not change between calls.
        sinks: the rule that says which tokens are sinks; the default rule unless given.
        save_to: a file for the statistics. A second call with the same file measures only the
            prompts that are new, also after an interruption.
        progress: shows how far the work has come, if `prompts` has a length.

    Returns:
        The statistics of all prompts, in the order of the prompts.

    Raises:
        UsageError: the model is of no supported family, or it cannot be measured as it is.
        DataError: no prompt has two images, a prompt cannot be encoded, or a head computes a number
            that is not finite (the error names prompt, layer and head). Also raised if `save_to`
            holds statistics of other sinks.
        PlanError: `save_to` holds statistics of another model.
        DocumentError: `save_to` is not a file of statistics.
        MissingDependencyError: there are several processes, but accelerate is not installed.
    """
    sinks = sinks or SinkRule()
    measurer = PromptMeasurer(model, sinks)
    team = _Team(measurer.device)
    store = _Store(save_to, measurer.identity, sinks)
    parts: list[AttentionStatistics] = []
    skipped = 0
    ordinal = -1
    failure = None
    try:
        items = _shown(prompts, progress) if team.rank == 0 else prompts
        for index, prompt in enumerate(items):
            suits = len(_pictures(prompt)) >= 2
            ordinal += suits
            if index % team.size != team.rank:
                continue
            if not suits:
                skipped += 1
                continue
            inputs = encode(processor, prompt).inputs
            digest = _digest(inputs)
            probed = ordinal % (PASSES_PER_PROBE * measurer.identity.layers) == 0
            part = store.find(digest)
            if part is None or (probed and not part.prompts[0].probed):
                part = store.keep(
                    digest, measurer.measure(inputs, digest, index, prompt.task, probed)
                )
            parts.append(part.relabelled(index, prompt.task, probed))
    except PhotomaskError as error:
        failure = error  # the other processes wait in `gather`, so they must hear of the failure
    shares = team.gather((parts, skipped, failure))
    for _, _, error in shares:
        if error is not None:
            raise error
    statistics = _merge(shares)
    if team.rank == 0:
        store.finish(statistics)
    return statistics


def _merge(
    shares: Sequence[tuple[list[AttentionStatistics], int, PhotomaskError | None]],
) -> AttentionStatistics:
    """Joins the statistics that all processes measured.

    Raises:
        DataError: no prompt was measured.
    """
    skipped = sum(count for _, count, _ in shares)
    parts = [part for share, _, _ in shares for part in share]
    if not parts:
        raise DataError(
            f"calibration needs at least one prompt with two images; {skipped} were given with "
            "fewer, and on those every head is dense anyway; add prompts with several images"
        )
    return dataclasses.replace(AttentionStatistics.merge(parts), skipped=skipped)


def _shown(prompts: Iterable[Prompt], progress: Progress) -> Iterable[Prompt]:
    """Shows the progress through the prompts if their number is known."""
    return progress(prompts, "calibrating") if isinstance(prompts, Sequence) else prompts


def _pictures(prompt: Prompt) -> list[object]:
    return [part for part in prompt.content if not isinstance(part, str)]


def _digest(inputs: dict[str, Tensor]) -> str:
    """Returns the SHA-256 of the inputs of a model."""
    digest = hashlib.sha256()
    for name in sorted(inputs):
        value = inputs[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class PromptMeasurer:
    """Runs the dense model and measures its attention. It is a handler of the plug-in."""

    def __init__(self, model: nn.Module, sinks: SinkRule):
        """Attaches to a copy of the model that shares its tensors.

        Args:
            model: the model to measure.
            sinks: the rule that says which tokens are sinks.
        """
        self.identity = identify(model)
        self.sinks = sinks
        self.device = next(model.parameters()).device
        self.attached = attach(model, self).eval()
        self.probe = LayerProbe(model, sinks, self.identity.layers)
        self.projections: dict[int, OutputProjection] = {}
        self._start_prompt()

    def _start_prompt(self) -> None:
        self.layers: dict[int, LayerMeasurement] = {}
        self.pairs: dict[int, Tensor] = {}
        self.images = 0
        self._rows: dict[torch.device, SampledRows] = {}
        self._pairs_of_rule: dict[DenseRule, Tensor] = {}

    def measure(
        self, inputs: dict[str, Tensor], digest: str, index: int, task: str, probed: bool
    ) -> AttentionStatistics:
        """Runs one prompt, and once more for each layer if the prompt is to be probed."""
        self._start_prompt()
        on_device = {name: value.to(self.device) for name, value in inputs.items()}
        with torch.inference_mode():
            logits = self.attached(**on_device, use_cache=False, logits_to_keep=1).logits[0, -1]
        if sorted(self.layers) != list(range(self.identity.layers)) or self.images < 2:
            raise DataError(
                f"prompt {index} ({task!r}): {len(self.layers)} of {self.identity.layers} layers "
                f"and {self.images} images could be measured; expected all layers and at least "
                "two images; check that the processor belongs to the model"
            )
        record = PromptRecord(
            index=index,
            digest=digest,
            task=task,
            images=self.images,
            tokens=inputs["input_ids"].shape[1],
            rows=next(iter(self._rows.values())).count,
            probed=probed,
        )
        layers = [self.layers[layer] for layer in range(self.identity.layers)]
        columns = zip(LayerMeasurement._fields, zip(*layers, strict=True), strict=True)
        tensors = {
            name: torch.stack([value.cpu() for value in column])[None] for name, column in columns
        }
        pairs = torch.stack([self.pairs[layer].cpu() for layer in range(self.identity.layers)])
        self._start_prompt()
        change = torch.zeros(1, self.identity.layers)
        found = AttentionStatistics(
            self.identity, self.sinks, (record,), 0, **tensors, change=change, pairs=pairs[None]
        )
        if not probed:
            return found
        with torch.inference_mode():
            change = self.probe.measure(on_device, logits)
        return dataclasses.replace(found, change=change[None].clone())

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Measures one layer and returns the output of the model's own attention."""
        query = request.query
        layer = request.layer
        call = request.call
        rows = self._rows.get(query.device)
        if rows is None:
            rows = self._rows[query.device] = SampledRows.of(call.layout, self.sinks)
            self.images = int(call.layout.image_counts[0])
        if layer not in self.projections:
            weight: Tensor = request.module.o_proj.weight  # pyright: ignore
            self.projections[layer] = OutputProjection.of(weight, query.shape[1])
        if rows.count:
            self.layers[layer] = measure(
                query,
                request.key,
                request.value,
                rows,
                call.rule,
                request.scale,
                self.projections[layer],
            )
            self.pairs[layer] = self._visible_pairs(call)
        return request.dense()

    def _visible_pairs(self, call: AttentionCall) -> Tensor:
        """Returns the pairs of each pattern, counted once for all layers with the same rule."""
        if call.rule not in self._pairs_of_rule:
            counts = [
                visible_pairs(call.layout, pattern, self.sinks, call.rule) for pattern in Pattern
            ]
            self._pairs_of_rule[call.rule] = torch.cat(counts)
        return self._pairs_of_rule[call.rule]


class _Store:
    """Keeps the statistics of finished prompts in a folder beside the final file."""

    def __init__(self, path: Path | None, model: ModelIdentity, sinks: SinkRule):
        """Opens the statistics that an earlier call saved.

        Args:
            path: the path of the final file; with None nothing is kept.
            model: the model that is measured.
            sinks: the rule that says which tokens are sinks.
        """
        self.path = path
        self.model = model
        self.sinks = sinks
        self.folder = path.with_name(f"{path.name}.parts") if path is not None else None
        self.earlier: dict[str, AttentionStatistics] = {}
        if path is not None and path.exists():
            whole = self._checked(path)
            for place, record in enumerate(whole.prompts):
                tensors = {name: x[place : place + 1] for name, x in whole.tensors().items()}
                self.earlier[record.digest] = dataclasses.replace(
                    whole, prompts=(record,), skipped=0, **tensors
                )

    def _checked(self, path: Path) -> AttentionStatistics:
        """Reads a file, and checks that it belongs to this model and these sinks."""
        found = AttentionStatistics.load(path)
        found.check(self.model)
        if found.sinks != self.sinks:
            raise DataError(
                f"{path} holds statistics with the sinks {found.sinks}, not {self.sinks}; remove "
                "the file or choose another file"
            )
        return found

    def find(self, digest: str) -> AttentionStatistics | None:
        """Returns the statistics of a prompt, or None if it was not measured yet."""
        if digest in self.earlier:
            return self.earlier[digest]
        part = self.folder / f"{digest}.safetensors" if self.folder is not None else None
        return self._checked(part) if part is not None and part.exists() else None

    def keep(self, digest: str, part: AttentionStatistics) -> AttentionStatistics:
        """Stores the statistics of one prompt, and returns them."""
        if self.folder is not None:
            part.save(self.folder / f"{digest}.safetensors")
        return part

    def finish(self, statistics: AttentionStatistics) -> None:
        """Saves the statistics of all prompts, and removes the files of the single prompts."""
        if self.path is not None and self.folder is not None:
            statistics.save(self.path)
            for record in statistics.prompts:
                (self.folder / f"{record.digest}.safetensors").unlink(missing_ok=True)
            with suppress(OSError):  # the folder stays if somebody else put files there
                self.folder.rmdir()


class _Team:
    """The processes that calibrate together. There is one unless a launcher started more."""

    def __init__(self, device: torch.device):
        """Joins the other processes, if there are any.

        Args:
            device: the device of the model. If it is the CPU, the processes use a communication
                backend for CPUs.
        """
        launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self.rank, self.size = 0, 1
        if launched or (torch.distributed.is_available() and torch.distributed.is_initialized()):
            with OptionalPackage("accelerate", "attention", "calibrating on several processes"):
                from accelerate import PartialState
            state = PartialState(cpu=device.type == "cpu")
            self.rank, self.size = state.process_index, state.num_processes

    def gather(self, mine: Item) -> list[Item]:
        """Returns the values of all processes, in the order of the processes, to each of them."""
        if self.size == 1:
            return [mine]
        from accelerate.utils import gather_object

        return list(gather_object([mine]))
