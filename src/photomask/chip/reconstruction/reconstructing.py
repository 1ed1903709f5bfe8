"""Learns roundings, scales and biases from a few hundred samples."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from photomask.chip.calibration import batches_of, make_room_for_bias
from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.reconstruction.blocks import Block, find_blocks, has_weight
from photomask.chip.reconstruction.checkpoints import Checkpoints, describe_run
from photomask.chip.reconstruction.documents import (
    BlockReport,
    ReconstructionReport,
    ReconstructionSettings,
)
from photomask.chip.reconstruction.edges import EdgeValues
from photomask.chip.reconstruction.learnable import check_reconstructible
from photomask.chip.reconstruction.learner import LARGEST_FACTOR, BlockLearner, Learned
from photomask.chip.reconstruction.optimization import DivergedError, optimize
from photomask.chip.standing import Effect, changes
from photomask.errors import DataError, QuantizerError, UsageError
from photomask.report import NoiseMeter, Progress, without_progress
from photomask.stages import stage

DEFAULT_SETTINGS = ReconstructionSettings()
SEEDS_APART = 1_000_003
"""The factor of the run's seed in a block's seed, so that runs with small seeds share none."""


@changes(Effect.ROUNDS)
@stage(__name__, "reconstruct")
@float32_by_default()
def reconstruct(
    prepared: PreparedModel,
    data: Data,
    *,
    settings: ReconstructionSettings = DEFAULT_SETTINGS,
    checkpoint: Path | None = None,
    device: str | torch.device | None = None,
    storage: str | torch.device | None = None,
    observe: Callable[[BlockReport], None] | None = None,
    progress: Progress = without_progress,
) -> ReconstructionReport:
    """Learns how weights are rounded, so that the outputs come close to those of the float model.

    Each block is trained with Adam. Its goal is its own output for float inputs and the current
    float weights, which may be smoothed or equalized. Its inputs come from the blocks before, which
    are reconstructed already; they are quantized, and mixed with float values (QDrop). The
    roundings start at the float weights and move up or down. At the end the weights are the values
    of their codes, so that `convert` finds exactly these codes. The scales of activations and the
    biases learn too. A block that does not improve is left unchanged.

    Args:
        prepared: the calibrated model, which is changed in place, block by block.
        data: the data, as for `calibrate`. A few hundred samples are enough; they stay in memory
            together with the values of a few edges.
        settings: the settings of the reconstruction.
        checkpoint: a folder for finished blocks. With the same model, data and settings, an
            interrupted run continues after the last of them, and ends with the same result.
        device: the device to compute on; None for the model's own. The model returns to its own.
        storage: the device that holds the edges' values; None for `device`. With "cpu" they need no
            memory of a GPU.
        observe: is called with the report of each block when the block is done.
        progress: shows the progress; it is called once per block with the steps of the block.

    Returns:
        The SQNR of every block and of the outputs, before and after. All are those of weights
        rounded to codes.

    Raises:
        DataError: there are no data, or they do not fit the model.
        OrderError: the model is not calibrated, or its weights are rounded already.
        QuantizerError: a weight's quantizer is not uniform, or a block diverged. The message names
            the block and the step. That block is unchanged, and those before it are reconstructed.
        UsageError: the checkpoint belongs to another run, the device does not exist, or batch norms
            are kept beside their layers.

    Source: Nagel et al. 2020 (AdaRound), arXiv:2004.10568; Li et al. 2021 (BRECQ),
    arXiv:2102.05426; Wei et al. 2022 (QDrop), arXiv:2203.05740.
    """
    check_reconstructible(prepared)
    inputs = _whole(prepared, data)
    blocks = find_blocks(prepared.graph, settings.granularity)
    saved = None
    if checkpoint is not None:
        run = describe_run(prepared, inputs, settings, [block.name for block in blocks])
        saved = Checkpoints(checkpoint, run)
    reports = []
    with torch.no_grad():
        for node in prepared.graph.nodes:
            if has_weight(node):
                make_room_for_bias(prepared.layer(node), LARGEST_FACTOR)
    with _placed(prepared, device) as place, _repeatable(), torch.no_grad():
        before = _noise_of_outputs(prepared, inputs, place)
        edges = EdgeValues(prepared, place, place if storage is None else _existing(storage))
        edges.enter(inputs)
        for index, block in enumerate(blocks):
            edges.add_float(block)
            done = None
            if saved is not None:
                before_it_learns = _state(prepared, BlockLearner(prepared, block, settings))
                done = saved.load(index, before_it_learns)
            if done is None:
                label = f"{block.name} ({index + 1} of {len(blocks)})"
                seed = settings.seed * SEEDS_APART + index
                done = _learn(prepared, block, edges, settings, seed, label, progress)
                if saved is not None:
                    saved.save(index, *done)
            apply(prepared, done[0])
            edges.add_quantized(block)
            reports.append(done[1])
            if observe is not None:
                observe(done[1])
            edges.forget(_still_read(prepared, blocks[index + 1 :]))
        after = edges.noise(prepared.graph.outputs)
    return ReconstructionReport(
        recipe=prepared.recipe.name,
        samples=len(inputs[0]),
        settings=settings,
        blocks=tuple(reports),
        sqnr_before_db=before.sqnr_db,
        sqnr_after_db=after.sqnr_db,
    )


def apply(prepared: PreparedModel, learned: Learned) -> None:
    """Puts the learned weights, biases and scales of a block into a prepared model."""
    device = prepared.device
    for role, tensors in (("weight", learned.weights), ("bias", learned.biases)):
        for node, tensor in tensors.items():
            prepared.set_constant(node, role, tensor.to(device))
    for owner, scale in learned.scales.items():
        quantizer = prepared.activation_quantizer(owner)
        quantizer.set_parameters(quantizer.format, scale.to(device), quantizer.zero_point)


def _learn(
    prepared: PreparedModel,
    block: Block,
    edges: EdgeValues,
    settings: ReconstructionSettings,
    seed: int,
    label: str,
    progress: Progress,
) -> tuple[Learned, BlockReport]:
    """Trains a block, and returns its learned state, or its old state if that is no worse."""
    before = edges.measure(block)
    learner = BlockLearner(prepared, block, settings)
    start = _state(prepared, learner)
    try:
        with torch.enable_grad():
            optimize(learner, edges, before, settings, seed, label, progress)
    except DivergedError as error:
        raise QuantizerError(
            f"the reconstruction of block {block.name!r} diverged: {error}. The blocks before it "
            "are reconstructed, and it and the blocks after it are unchanged; try a lower "
            "rounding_rate, scale_rate or bias_rate"
        ) from error
    learned = learner.learned()
    apply(prepared, learned)
    after = edges.measure(block)
    apply(prepared, start)
    kept = _total(after).sqnr_db > _total(before).sqnr_db
    weights = sum(weight.numel() for weight in learned.weights.values())
    report = BlockReport(
        name=block.name,
        layers=len(block.layers),
        weights=weights,
        scales=len(learner.owners),
        changed=learned.changed / max(1, weights) if kept else 0.0,
        sqnr_before_db=_total(before).sqnr_db,
        sqnr_after_db=_total(after if kept else before).sqnr_db,
        kept=kept,
    )
    return (learned if kept else start), report


def _state(prepared: PreparedModel, learner: BlockLearner) -> Learned:
    """Returns the weights, biases and scales of a block before it learns."""
    constants = {node.name: prepared.constants_of(node) for node in learner.block.layers}
    return Learned(
        {name: constants[name]["weight"].detach().clone() for name in learner.roundings},
        {name: constants[name]["bias"].detach().clone() for name in learner.biases},
        {owner: prepared.activation_quantizer(owner).scale for owner in learner.owners},
    )


def _total(meters: dict[str, NoiseMeter]) -> NoiseMeter:
    return NoiseMeter(
        sum(meter.signal for meter in meters.values()),
        sum(meter.noise for meter in meters.values()),
    )


def _still_read(prepared: PreparedModel, blocks: Sequence[Block]) -> set[str]:
    return {edge for block in blocks for edge in block.entries} | set(prepared.graph.outputs)


def _whole(prepared: PreparedModel, data: Data) -> list[Tensor]:
    """Returns one checked tensor with all samples for each input."""
    batches = list(batches_of(prepared, data))
    if not batches:
        raise DataError("reconstruction needs at least one sample, but the data holds none")
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def _noise_of_outputs(
    prepared: PreparedModel, inputs: Sequence[Tensor], device: torch.device
) -> NoiseMeter:
    """Returns the noise of the model's current outputs against those of the float model."""
    edges = EdgeValues(prepared, device, torch.device("cpu"))
    edges.enter(inputs)
    (block,) = find_blocks(prepared.graph, "network")
    edges.add_float(block)
    edges.add_quantized(block)
    return edges.noise(prepared.graph.outputs)


@contextmanager
def _placed(prepared: PreparedModel, device: str | torch.device | None) -> Iterator[torch.device]:
    """Moves a model to a device in evaluation mode, and restores device and mode afterwards."""
    home = prepared.device
    training = prepared.training
    place = home if device is None else _existing(device)
    prepared.to(place).eval()
    try:
        yield place
    finally:
        prepared.to(home).train(training)


def _existing(device: str | torch.device) -> torch.device:
    """Returns a device that tensors can be on.

    Raises:
        UsageError: the device does not exist.
    """
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA raises the latter
        reason = str(error).partition("\n")[0]
        raise UsageError(f"cannot compute on the device {str(device)!r}: {reason}") from error
    return place


@contextmanager
def _repeatable() -> Iterator[None]:
    """Makes cuDNN compute in float32, with algorithms that are deterministic."""
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield
