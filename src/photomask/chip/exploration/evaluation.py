"""Measures design points: from a captured model to the figures of an integer program."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from photomask.chip.calibration import calibrate, input_forms
from photomask.chip.conversion import convert
from photomask.chip.cost import estimate
from photomask.chip.data import Data, read_samples
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.engines import TorchEngine
from photomask.chip.exploration.points import DesignPoint, Measurement
from photomask.chip.forms.memory.compressed import chosen_storages, weight_of_step, zero_of
from photomask.chip.forms.memory.storages import STORAGES
from photomask.chip.forms.memory.storages.choice import AnyStorage, dense_bits, stored_bits
from photomask.chip.graph import capture_simplified
from photomask.chip.labels import class_labels
from photomask.chip.placement import place_with_copies
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.program import IntegerProgram
from photomask.chip.pruning import prune
from photomask.chip.training import TrainingSettings, train
from photomask.errors import DataError

BATCH = 250
"""The most samples that run at a time."""
REPORTS = 8
"""How often the accuracy so far is reported within the held-out samples."""

Observe = Callable[[int, float], None]
"""A function of the number of samples so far and their accuracy; it may raise an error to stop."""
Costs = Mapping[str, float]
"""The figures of a point, except its accuracy, by metric."""


@dataclass(frozen=True)
class Training:
    """A short training between the calibration and the conversion of every point.

    Attributes:
        settings: the schedule.
        inputs: the samples, one tensor for each input.
        labels: their classes.
    """

    settings: TrainingSettings
    inputs: Sequence[Tensor]
    labels: Tensor


class Evaluator:
    """Turns design points of one model into programs and figures.

    The model is captured once. The scales are found on the CPU, so a point gives the same program
    wherever the held-out samples run; the integers of an engine are the same on every device.

    Args:
        model: the float model, which is not changed.
        data: the calibration data.
        test: the held-out samples with their labels.
        training: the settings of a training and its labelled data, or None for none.
        device: where the held-out samples run, and where a training runs.

    Attributes:
        graph: the captured model.
        inputs: the calibration samples, one tensor for each input.
        test_inputs: the held-out samples, one tensor for each input.
        labels: the classes of the held-out samples.
        training: the training with its data, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        test: Data,
        training: tuple[TrainingSettings, Data] | None = None,
        device: str | torch.device = "cpu",
    ):
        self.device = torch.device(device)
        self.graph = capture_simplified(model, data)
        self._forms = input_forms(self.graph, torch.device("cpu"))
        self.inputs = read_samples(self._forms, data, what="calibration data").inputs
        self.test_inputs, self.labels = self._labelled(test, "held-out data")
        self.training: Training | None = None
        if training is not None:
            self.training = Training(training[0], *self._labelled(training[1], "training data"))

    def _labelled(self, data: Data, what: str) -> tuple[list[Tensor], Tensor]:
        """Returns samples and their classes.

        Raises:
            DataError: there are no labels, or they are no classes of the first output.
        """
        batch = read_samples(self._forms, data, what=what)
        shape = self.graph.by_name[self.graph.outputs[0]].shape[1:]
        if not shape or shape[0] < 2:
            raise DataError(
                f"the accuracy needs a classifier, but the first output has shape {list(shape)} "
                "for a sample; its first axis must count the classes"
            )
        if batch.labels is None:
            raise DataError(f"the {what} has no labels; give (inputs, labels)")
        count = len(batch.inputs[0])
        labels = class_labels(batch.labels, shape, count, f"labels of the {what}")
        return batch.inputs, labels

    @float32_by_default()
    def program(self, point: DesignPoint) -> IntegerProgram:
        """Returns the integer program of a point.

        The order is prepare, prune, calibrate, train, convert. What changes the float model itself,
        such as the removal of channels, belongs before the first of these.

        Raises:
            RecipeError: the recipe is not possible.
            PruningError: the pruning fits no layer, or a layer that it names.
            TargetError: the target cannot hold what the program needs.
            QuantizerError: a quantizer cannot fit its values.
            TrainingError: a loss is not finite.
        """
        placement = place_with_copies(self.graph, point.recipe.build(), {})
        prepared = PreparedModel(placement)
        if point.pruning is not None:
            prune(prepared, point.pruning.pruner(point.accelerator), self._calibration())
        calibrate(prepared, self._calibration())
        if self.training is not None:
            data = (*self.training.inputs, self.training.labels)
            train(prepared, data, self.training.settings, device=self.device)
        return convert(prepared, point.target)

    def _calibration(self) -> Data:
        return self.inputs[0] if len(self.inputs) == 1 else tuple(self.inputs)

    def measure(
        self,
        point: DesignPoint,
        *,
        check: Callable[[Costs], None] | None = None,
        observe: Observe | None = None,
    ) -> Measurement:
        """Returns the figures of a point. The accuracy comes last, because it takes longest.

        Args:
            point: the design point.
            check: is called with the costs before the accuracy is measured; it may raise an error
                to stop.
            observe: is called with the accuracy of a part of the samples, several times.

        Raises:
            TargetError: the accelerator cannot run the program, or as for `program`.
            PhotomaskError: as for `program`.
        """
        started = time.perf_counter()
        program = self.program(point)
        totals = estimate(program, point.accelerator).totals
        costs = {
            "weight_bytes": weight_bytes(program),
            "accumulator_bits": accumulator_bits(program),
            "cycles": totals.cycles.total,
            "energy_pj": totals.energy.total_pj,
        }
        if check is not None:
            check(costs)
        accuracy = self._accuracy(program, observe)
        return Measurement(
            accuracy=accuracy,
            samples=len(self.labels),
            program_sha256=program.content_hash(),
            seconds=time.perf_counter() - started,
            **costs,
        )

    def _accuracy(self, program: IntegerProgram, observe: Observe | None) -> float:
        """Returns the percentage of labels that the program finds."""
        engine = TorchEngine(program, self.device)
        count, right = len(self.labels), 0
        size = min(BATCH, -(-count // REPORTS))
        marks = {count * part // REPORTS // size * size for part in range(1, REPORTS)}
        for start in range(0, count, size):
            codes = {
                name: program.quantize_input(x[start : start + size], name)
                for name, x in zip(program.inputs, self.test_inputs, strict=True)
            }
            scores = engine.run(codes)[program.outputs[0]]
            expected = self.labels[start : start + size].to(scores.device)
            right += int((scores.argmax(dim=1) == expected).sum())
            done = min(count, start + size)
            if observe is not None and done in marks:
                observe(done, 100 * right / self.labels[:done].numel())
        return 100 * right / self.labels.numel()


def weight_bytes(program: IntegerProgram) -> int:
    """Returns the bytes of the memory images of all weights, each shared tensor counted once.

    A weight is stored without its zeros if one of the storages of `photomask.chip.forms.memory`
    makes it smaller, as `MemoryForm` writes it with compressed weights. Tables are dense.
    """
    storages = chosen_storages(program, tuple(STORAGES))
    bits: dict[tuple[str, str | None], int] = {}
    for step in program.steps:
        pair = weight_of_step(step)
        if pair is not None:
            bits[pair] = _weight_bits(program, pair, storages.get(pair))
        elif "table" in step.operator.learned_roles:
            name = step.tensors["table"]
            size = program.tensors[name].size
            bits[name, None] = dense_bits(program.formats[name], size, program.target)
    return sum(bits.values()) // 8


def _weight_bits(
    program: IntegerProgram, pair: tuple[str, str | None], storage: AnyStorage | None
) -> int:
    """Returns the bits of memory of a weight, unused bits of words included."""
    name, zero_point = pair
    weight, format = program.tensors[name], program.formats[name]
    if storage is None:
        return dense_bits(format, weight.size, program.target)
    streams = storage.compress(weight, zero_of(program.tensors, zero_point, len(weight)))
    return stored_bits(storage, streams, format, weight.shape, program.target)


def accumulator_bits(program: IntegerProgram) -> int:
    """Returns the bits of the narrowest signed integer that holds every accumulator.

    They follow from the proven intervals of the program, so they hold for every input.
    """
    intervals = [edge.interval for edge in program.edges.values() if edge.role == "accumulator"]
    return max((interval.bits + (interval.low >= 0) for interval in intervals), default=0)
