"""The RTL skips tiles of zeros, and computes the oracle's integers without them."""

import numpy as np
import pytest
from tests.chip.forms.rtl.rtl_programs import NARROW
from tests.chip.forms.rtl.simulated import run
from tests.chip.forms.rtl.sparse_programs import tile_sparse

from photomask.chip.forms.rtl.descriptors import Operation
from photomask.chip.forms.rtl.lowering import lower
from photomask.chip.operators.weights import effective_weight


def occupied_tiles(weight: np.ndarray, groups: int, rows: int, columns: int) -> list[int]:
    """Counts the tiles with a weight that is not zero, for each block of outputs."""
    outputs, inputs = weight.shape[:2]
    kernel = int(np.prod(weight.shape[2:]))
    whole = np.zeros((outputs, inputs * groups, kernel), dtype=np.int64)
    for output in range(outputs):
        first = output // (outputs // groups) * inputs
        whole[output, first : first + inputs] = weight[output].reshape(inputs, kernel)
    return [
        sum(
            bool(whole[o : o + columns, i : i + rows, k].any())
            for i in range(0, inputs * groups, rows)
            for k in range(kernel)
        )
        for o in range(0, outputs, columns)
    ]


@pytest.mark.parametrize(("seed", "kept"), [(0, 0.5), (1, 0.2), (2, 0.1), (3, 0.0)])
def test_tiles_of_zeros_are_skipped_and_every_integer_is_right(seed, kept, build_once, tmp_path):
    program, codes = tile_sparse(seed, kept)
    report = run(program, codes, tmp_path / "rtl", NARROW, build_once(NARROW))
    layers = {layer.step: layer for layer in report.layers}
    loaded = 0
    for step in program.steps:
        if "weight" not in step.tensors:
            continue
        weight = effective_weight(program.parameters(step))
        tiles = occupied_tiles(weight, getattr(step.operator, "groups", 1), 4, 4)
        positions = int(np.prod(program.edges[step.output].shape[2:]))
        # Biases alone need no weights, unless the array has never held any.
        loads = sum(n or (not loaded and not sum(tiles[:block])) for block, n in enumerate(tiles))
        loaded += sum(tiles)
        passes = sum(max(1, n) for n in tiles)
        assert layers[step.name].passes == passes
        assert layers[step.name].rtl_cycles == 4 * loads + passes * (positions + 4 + 4 + 6)
    assert len(lower(program, NARROW).images.weights) == max(4 * loaded, 1)


def test_outputs_without_weights_are_their_biases():
    program, _ = tile_sparse(3, 0.0)
    products = [d for d in lower(program, NARROW).descriptors if d.operation is Operation.MATRIX]
    assert len(products) == 3 + 2 + 2 + 3
    assert not any(d.start_from_memory or d.input_height or d.padding_value for d in products)
    # Nothing was loaded before, so the registers of the array are unknown until the first pass.
    assert [d.keep_weights for d in products] == [0] * len(products)
