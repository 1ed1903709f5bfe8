"""Peers at any width: the same float network, data, steps and loss as ours.

Layers have weights of the asked width, one scale for each output channel; the first and the last
layer have 8 bits, as ours do. Peers quantize activations where their flow does it by itself.
"""

import copy
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from few_bit_other_peers import Trainer, UnavailableError, mct, nncf, onnxruntime
from peers import BATCH, dataclass_replace, quiet


def brevitas(
    model: nn.Module, images: Tensor, weight_bits: int, activation_bits: int, train: Trainer | None
) -> nn.Module:
    """Brevitas' graph flow: equalisation, calibration, then bias correction or training.

    Its flow keeps all activations at one width, which sums need, and has no rule for `torch.relu`.
    So what is added has 8 bits, as with ours, and layers narrow what they read.
    """
    from brevitas.graph import quantize as flow
    from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
    from brevitas.quant.scaled_int import Int8WeightPerChannelFloat, Uint8ActPerTensorFloat

    model = copy.deepcopy(model).eval()
    graph = flow.preprocess_for_quantize(model, trace_model=True, equalize_iters=20)
    layers = [m for m in graph.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    kept = {id(layers[0]), id(layers[-1])}
    few = {
        "weight_quant": Int8WeightPerChannelFloat,
        "weight_bit_width": lambda module: 8 if id(module) in kept else weight_bits,
    }
    if activation_bits < 8:
        # All but the first read what a ReLU made, some of them averaged.
        first = id(layers[0])
        few["input_quant"] = lambda module: None if id(module) == first else Uint8ActPerTensorFloat
        few["input_bit_width"] = lambda module: 8 if id(module) in kept else activation_bits
    maps = dict(flow.COMPUTE_LAYER_MAP)
    for kind in (nn.Conv2d, nn.Linear):
        layer, options = maps[kind]
        maps[kind] = layer, options | few
    quantized = flow.quantize(graph, compute_layer_map=maps).eval()
    device = images.device
    quantized = quantized.to(device)
    with torch.no_grad(), calibration_mode(quantized):
        for part in images.split(BATCH):
            quantized(part)
    if train is not None:
        train(quantized)
        return quantized.eval()
    with torch.no_grad(), bias_correction_mode(quantized):
        for part in images.split(BATCH):
            quantized(part)
    return quantized.eval()


def torchao(
    model: nn.Module, images: Tensor, weight_bits: int, activation_bits: int, train: Trainer | None
) -> nn.Module:
    """PyTorch's PT2E flow with the XNNPACK quantizer, its ranges narrowed to the width."""
    from torchao.quantization.pt2e import MinMaxObserver, move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import (
        convert_pt2e,
        prepare_pt2e,
        prepare_qat_pt2e,
    )
    from torchao.testing.pt2e._xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    def config(weight: int, activation: int) -> Any:
        found = get_symmetric_quantization_config(
            is_per_channel=True,
            is_qat=train is not None,
            act_qmin=-(2 ** (activation - 1)),
            act_qmax=2 ** (activation - 1) - 1,
            weight_qmin=1 - 2 ** (weight - 1),
            weight_qmax=2 ** (weight - 1) - 1,
        )
        if train is not None:
            return found
        observed = {
            name: dataclass_replace(
                getattr(found, name),
                observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=2**-12),
            )
            for name in ("input_activation", "output_activation")
        }
        return dataclass_replace(found, **observed)

    model = copy.deepcopy(model).train(train is not None)
    names = [n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    batch = torch.export.Dim("batch", min=2, max=4096)
    exported = torch.export.export(model, (images[:2],), dynamic_shapes=({0: batch},)).module()
    quantizer = XNNPACKQuantizer().set_global(config(weight_bits, activation_bits))
    for name in (names[0], names[-1]):
        quantizer.set_module_name(name, config(8, 8))
    make = prepare_pt2e if train is None else prepare_qat_pt2e
    prepared = make(exported, quantizer)
    if train is not None:
        train(prepared)
        move_exported_model_to_eval(prepared)
        return convert_pt2e(prepared)
    with torch.no_grad():
        for part in images.split(BATCH):
            prepared(part)
    return convert_pt2e(prepared)


class Flow(NamedTuple):
    """A peer.

    Attributes:
        quantize: from float module, calibration images, bits of weights and of activations, and
            what trains, to a function of images.
        package: its distribution.
        modules: what it imports.
        install: the line that installs it.
    """

    quantize: Callable[[nn.Module, Tensor, int, int, Trainer | None], Callable[[Tensor], Any]]
    package: str
    modules: tuple[str, ...]
    install: str = "pip install 'photomask[bench]'"


FLOWS = {
    "Brevitas": Flow(brevitas, "brevitas", ("brevitas",)),
    "torchao PT2E": Flow(torchao, "torchao", ("torchao",)),
    "ONNX Runtime": Flow(onnxruntime, "onnxruntime", ("onnx", "onnxruntime", "onnxscript")),
    # Needs torchvision besides, which its distribution does not ask for, and wants
    # older packages than the rest, so it goes into an environment of its own.
    "Sony MCT": Flow(
        mct,
        "model-compression-toolkit",
        ("model_compression_toolkit", "torchvision"),
        "pip install model-compression-toolkit torchvision, in an environment of its own",
    ),
    "NNCF": Flow(nncf, "nncf", ("nncf", "torchao")),
}
"""By name."""


def quantized_by(
    name: str,
    model: nn.Module,
    images: Tensor,
    weight_bits: int,
    activation_bits: int,
    train: Trainer | None,
) -> Callable[[Tensor], Tensor]:
    """Returns a peer's quantized network as a function of images.

    Raises:
        UnavailableError: it is not installed, or has no such width or no training.
    """
    flow = FLOWS[name]
    if any(importlib.util.find_spec(module) is None for module in flow.modules):
        raise UnavailableError(f"not installed: {flow.install}")
    with quiet():
        network = flow.quantize(model, images, weight_bits, activation_bits, train)

    def run(batch: Tensor) -> Tensor:
        with torch.no_grad():
            found = network(batch)
        return found if isinstance(found, Tensor) else found.value

    return run
