"""The output channels of layers with weights, one by one."""

import numpy as np

from photomask.chip.operators import Family
from photomask.chip.program import IntegerProgram, Step
from photomask.chip.verification.documents import ChannelReport
from photomask.chip.verification.tallies import ChannelTally


def channel_tally(program: IntegerProgram, node: str) -> ChannelTally | None:
    """Returns what counts the channels of a node's output; None for a node without weights."""
    step = _weighted(program, node)
    if step is None:
        return None
    return ChannelTally(axis=1 if step.operator.family is Family.MAP else -1)


def channel_report(
    program: IntegerProgram, node: str, tally: ChannelTally | None
) -> ChannelReport | None:
    """Returns what is known of the channels of a node.

    Args:
        program: the program.
        node: of the float model.
        tally: what was counted of its output; None for a node without weights.
    """
    step = _weighted(program, node)
    if step is None or tally is None:
        return None
    codes = program.tensors[step.tensors["weight"]]
    rows = codes.reshape(len(codes), -1)
    x, sums = program.edges[step.inputs[0]], program.edges[step.output]
    scales = np.broadcast_to(np.array(sums.scale) / x.scale[0], len(rows))
    return ChannelReport(
        weight_scale=tuple(scales.tolist()),
        weight_low=tuple(rows.min(axis=1).tolist()),
        weight_high=tuple(rows.max(axis=1).tolist()),
        sqnr_db=tuple(tally.sqnr_db.tolist()),
        saturated=tuple(tally.saturation.tolist()),
        constant=tally.constant,
    )


def _weighted(program: IntegerProgram, node: str) -> Step | None:
    """Returns the step of a node that has weights."""
    steps = program.links.of_node(node)
    return next((step for step in steps if "weight" in step.tensors), None)
