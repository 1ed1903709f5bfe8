"""Products computed tile by tile are the oracle's."""

import itertools

import numpy as np
import pytest
from tests.chip.cost.tiling_cases import machine, program_of
from tests.chip.operators.operator_cases import Source, convolution, linear, matmul

from photomask.chip.cost.products import Product, product_of
from photomask.chip.cost.tiling import Tiling, tile
from photomask.chip.operators import Convolution, Linear, Matmul
from photomask.chip.operators.weights import effective_weight


def run_tiles(case, product: Product, tiling: Tiling) -> np.ndarray:
    """Computes a convolution, linear layer or matrix product of one sample tile by tile."""
    operator, x = case.operator, case.inputs[0][:1]
    fill = 0
    if isinstance(operator, Matmul):
        (za, zb), b = operator.zero_points, case.inputs[1][:1]
        shape = np.broadcast_shapes(x.shape[:-2], b.shape[:-2])
        x = np.broadcast_to(x - za, (*shape, *x.shape[-2:])).reshape(-1, *x.shape[-2:])
        w = np.broadcast_to(b - zb, (*shape, *b.shape[-2:])).reshape(-1, *b.shape[-2:])
        x, w = x.transpose(0, 2, 1)[:, :, None], w.transpose(0, 2, 1)[..., None, None]
    elif isinstance(operator, Linear):
        w = effective_weight(case.parameters)[None, :, :, None, None]
        x = x.reshape(-1, x.shape[-1]).T[None, :, None]
    else:
        w, fill = effective_weight(case.parameters), operator.padding_value
        w = w.reshape(product.groups, -1, *w.shape[1:])
        if len(operator.stride) == 1:
            w, x = w[..., None, :], x[..., None, :]
        x = x.reshape(product.groups, -1, *x.shape[2:])
    rows, columns = product.rows, product.columns
    total = np.zeros(
        (product.groups, product.channels_out, rows.output, columns.output), dtype=np.int64
    )
    for part in tiling.tiles():
        for o, i in itertools.product(part.channels_out, part.channels_in):
            for p, q in itertools.product(part.rows, part.columns):
                for k, m in itertools.product(part.kernel_rows, part.kernel_columns):
                    r = p * rows.stride + k * rows.dilation - rows.padding
                    c = q * columns.stride + m * columns.dilation - columns.padding
                    inside = 0 <= r < rows.input and 0 <= c < columns.input
                    value = x[part.group, i, r, c] if inside else fill
                    total[part.group, o, p, q] += w[part.group, o, i, k, m] * value
    return total


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("make", [convolution, linear, matmul])
def test_sums_of_the_tiles_are_the_oracle_s(make, seed: int):
    case = make(Source(seed))
    program = program_of(case)
    step = program.steps[0]
    accelerator = machine(3, 3, 40 + seed, 50 + seed, 70 + seed)
    product = product_of(program, step, accelerator)
    assert product is not None
    macs = program.multiply_accumulates()[step.name]
    assert product.multiply_accumulates == macs
    total = run_tiles(case, product, tile(program, accelerator)["step"])
    one = [value[:1] for value in case.inputs]
    expected = case.operator.run_numpy(one, program.parameters(step))
    bias = case.parameters.get("bias", np.zeros(1, dtype=np.int64))
    if isinstance(case.operator, Convolution):
        found = total.reshape(expected.shape) + bias.reshape(-1, *(1,) * (expected.ndim - 2))
    else:
        found = np.moveaxis(total[:, :, 0], 1, 2).reshape(expected.shape) + bias
    assert np.array_equal(found, expected)
