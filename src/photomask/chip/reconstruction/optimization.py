"""Trains the roundings, scales and biases of one block towards its float outputs."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from photomask.chip.quantizers.adaround import rounding_regularizer
from photomask.chip.reconstruction.blocks import Block
from photomask.chip.reconstruction.documents import ReconstructionSettings
from photomask.chip.reconstruction.edges import EdgeValues
from photomask.chip.reconstruction.learner import BlockLearner, Chance
from photomask.errors import QuantizerError
from photomask.report import NoiseMeter, Progress

CHECKED_EVERY = 100
"""The number of steps between two checks of the loss, because each waits for the device."""


class DivergedError(QuantizerError):
    """Raised when the loss of a block is not finite."""

    def __init__(self, step: int):
        super().__init__(f"the loss is not finite at step {step}")
        self.step = step


def optimize(
    learner: BlockLearner,
    edges: EdgeValues,
    before: Mapping[str, NoiseMeter],
    settings: ReconstructionSettings,
    seed: int,
    label: str,
    progress: Progress,
) -> None:
    """Trains a block's roundings, scales and biases against the float values of its exits.

        loss = mean over exits of mse / mse_before + regularization * undecided(beta)

    `mse_before` is the error with weights rounded to nearest, so that no learning rate depends on
    the magnitude of the values. `beta` falls linearly after the warm-up.

    Raises:
        DivergedError: the loss is not finite.
    """
    samples = len(next(iter(edges.float_values.values())))
    rows = batch_order(samples, settings.batch_size, settings.iterations, seed).to(edges.storage)
    scale_of_error = {
        edge: meter.noise / edges.float_values[edge].numel() for edge, meter in before.items()
    }
    exits = [edge for edge, error in scale_of_error.items() if error > 0]
    if not exits or not (learner.roundings or learner.owners):
        return
    largest = largest_edge(learner.block, edges) * rows.shape[1]
    chance = Chance(settings.keep_probability, largest, edges.device, seed)
    optimizer = make_optimizer(learner, settings)
    losses = torch.zeros(settings.iterations, device=edges.device)
    checked = 0
    for step in progress(range(settings.iterations), label):
        set_rates(optimizer, settings, step)
        values = entries_of(learner.block, edges, rows[step], chance)
        parts = learner.run(values, chance)
        loss = torch.zeros((), device=edges.device)
        for edge in exits:
            target = edges.rows_of(edges.float_values, edge, rows[step])
            error = (values[edge] - target).square().mean()
            loss = loss + error / (scale_of_error[edge] * len(exits))
        beta = beta_at(settings, step)
        if beta is not None and parts:
            loss = loss + settings.regularization * undecided(parts, beta)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses[step] = loss.detach()
        if (step + 1) % CHECKED_EVERY == 0 or step + 1 == settings.iterations:
            bad = (~losses[checked : step + 1].isfinite()).nonzero()
            if len(bad):
                raise DivergedError(checked + int(bad[0]))
            checked = step + 1


def undecided(parts: Sequence[Tensor], beta: float) -> Tensor:
    """Returns the regularizer per weight: 1 if all roundings are halfway, 0 if all are decided."""
    total = torch.stack([rounding_regularizer(part, beta) for part in parts]).sum()
    return total / sum(part.numel() for part in parts)


def beta_at(settings: ReconstructionSettings, step: int) -> float | None:
    """Returns the sharpness of the regularizer at a step, or None during the warm-up."""
    start = math.ceil(settings.warm_up * settings.iterations)
    if step < start:
        return None
    way = (step - start) / max(1, settings.iterations - start)
    return settings.beta_start + (settings.beta_end - settings.beta_start) * way


def batch_order(samples: int, batch: int, iterations: int, seed: int) -> Tensor:
    """Returns the shuffled sample indices of every step, [iterations, batch].

    No sample is repeated before all others were used.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = min(batch, samples)
    rounds = -(-iterations * batch // samples)
    order = [torch.randperm(samples, generator=generator) for _ in range(rounds)]
    return torch.cat(order)[: iterations * batch].reshape(iterations, batch)


def make_optimizer(
    learner: BlockLearner, settings: ReconstructionSettings
) -> torch.optim.Optimizer:
    """Returns an Adam optimizer with separate rates for roundings, scales and biases."""
    shifts = [rounding.shift for rounding in learner.roundings.values()]
    rates = [
        (shifts, settings.rounding_rate, False),
        ([learner.logarithms] if learner.owners else [], settings.scale_rate, True),
        (list(learner.biases.values()), settings.bias_rate, True),
    ]
    return torch.optim.Adam(
        [{"params": p, "lr": rate, "peak": rate, "falls": falls} for p, rate, falls in rates if p]
    )


def set_rates(
    optimizer: torch.optim.Optimizer, settings: ReconstructionSettings, step: int
) -> None:
    """Sets the learning rates of a step; those of scales and biases fall along half a cosine."""
    falling = 0.5 * (1 + math.cos(math.pi * step / settings.iterations))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * (falling if group["falls"] else 1.0)


def entries_of(block: Block, edges: EdgeValues, rows: Tensor, chance: Chance) -> dict[str, Tensor]:
    """Returns the values of a block's entries, quantized or, where dropped, float."""
    values = {}
    for edge in block.entries:
        values[edge] = edges.rows_of(edges.quantized_values, edge, rows)
        kept = chance.keep(values[edge])
        if kept is not None and values[edge].is_floating_point():
            plain = edges.rows_of(edges.float_values, edge, rows)
            values[edge] = torch.where(kept, values[edge], plain)
    return values


def largest_edge(block: Block, edges: EdgeValues) -> int:
    """Returns the number of elements, for one sample, of the largest edge of a block."""
    inside = [math.prod(node.shape) for node in block.nodes]
    return max([*inside, *(edges.float_values[edge][0].numel() for edge in block.entries)])
