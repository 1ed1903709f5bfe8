"""Brevitas' accumulator-aware quantizers on a network of ours; see `accumulators.py`."""

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from few_bit_other_peers import Trainer, UnavailableError
from peers import BATCH, quiet

PEERS = {
    "A2Q": "Int8AccumulatorAwareWeightQuant",
    "A2Q+": "Int8AccumulatorAwareZeroCenterWeightQuant",
}
"""Brevitas' classes by the name in the rows."""
ENDS = 6
"""Bits of the first and the last layer, as ours have."""


def quantized_by(
    method: str, model: nn.Module, images: Tensor, bits: int, train: Trainer
) -> Callable[[Tensor], Tensor]:
    """Returns a trained network of Brevitas' graph flow as a function of images.

    What sums add has 6 bits, and layers narrow what they read to 4, as with ours.

    Raises:
        UnavailableError: Brevitas is not installed.
    """
    if importlib.util.find_spec("brevitas") is None:
        raise UnavailableError("not installed: pip install 'photomask[bench]'")
    with quiet():
        network = _quantized(method, model, images, bits)
        train(network.train())
    network = network.eval()

    def run(batch: Tensor) -> Tensor:
        with torch.no_grad():
            found = network(batch)
        return found if isinstance(found, Tensor) else found.value

    return run


def _quantized(method: str, model: nn.Module, images: Tensor, bits: int) -> nn.Module:
    """Returns the calibrated network with accumulator-aware weights and its batch norms."""
    import brevitas.quant
    from brevitas.graph import quantize as flow
    from brevitas.graph.calibrate import calibration_mode
    from brevitas.quant.scaled_int import Uint8ActPerTensorFloat

    quantizer: Any = getattr(brevitas.quant, PEERS[method]).let(accumulator_bit_width=bits)
    model = copy.deepcopy(model).eval()
    graph = flow.preprocess_for_quantize(model, trace_model=True, equalize_iters=0, merge_bn=False)
    layers = [m for m in graph.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    ends = {id(layers[0]), id(layers[-1])}
    # All but the first read what a ReLU made, some of them averaged.
    options = {
        "weight_quant": quantizer,
        "weight_bit_width": lambda module: ENDS if id(module) in ends else 4,
        "input_quant": lambda module: (
            None if id(module) == id(layers[0]) else Uint8ActPerTensorFloat
        ),
        "input_bit_width": lambda module: ENDS if id(module) in ends else 4,
    }
    maps = dict(flow.COMPUTE_LAYER_MAP)
    for kind in (nn.Conv2d, nn.Linear):
        layer, usual = maps[kind]
        maps[kind] = layer, usual | options
    quantized = flow.quantize(graph, compute_layer_map=maps).eval().to(images.device)
    with torch.no_grad(), calibration_mode(quantized):
        for part in images.split(BATCH):
            quantized(part)
    return quantized
