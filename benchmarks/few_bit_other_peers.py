"""ONNX Runtime, Sony's MCT and NNCF at any width that they have; see `few_bit_peers`."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from networks import stand_in_for_torchvision_operators
from peers import BATCH, qdq_network, quantize_qdq

Trainer = Callable[[nn.Module], None]
"""Trains a module in place."""


class UnavailableError(RuntimeError):
    """A peer cannot do what is asked; the row says why."""


def onnxruntime(
    model: nn.Module, images: Tensor, weight_bits: int, activation_bits: int, train: Trainer | None
) -> Callable[[Tensor], Tensor]:
    """ONNX Runtime's static quantizer, min-max, QDQ; its codes have 8 or 4 bits, 2 it lacks.

    The quantized graph is run as it is written, unfused: see `peers.onnxruntime_static`.
    """
    from onnxruntime.quantization import QuantType

    kinds = {8: QuantType.QInt8, 4: QuantType.QInt4}
    if train is not None:
        raise UnavailableError("ONNX Runtime trains no quantized networks")
    if not {weight_bits, activation_bits} <= set(kinds):
        raise UnavailableError("its static quantizer has codes of 8 and of 4 bits, none narrower")

    def options_for(path: Path) -> dict[str, Any]:
        return {
            "per_channel": True,
            "activation_type": kinds[activation_bits],
            "weight_type": kinds[weight_bits],
            "extra_options": {"TensorQuantOverrides": _eight_bits_at_the_ends(path)},
        }

    return qdq_network(quantize_qdq(model, images, options_for))


def _eight_bits_at_the_ends(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns what keeps the first and the last layer, and what they read, at 8 bits."""
    import onnx
    from onnxruntime.quantization import QuantType

    graph = onnx.load(str(path)).graph
    producers = {name: node for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    found = {graph.output[0].name: [{"quant_type": QuantType.QInt8}]}
    for layer in (layers[0], layers[-1]):
        found[layer.input[1]] = [{"quant_type": QuantType.QInt8, "axis": 0}]
        name = layer.input[0]
        found[name] = [{"quant_type": QuantType.QInt8}]
        while name in producers and producers[name].op_type in ("Flatten", "Reshape"):
            name = producers[name].input[0]
            found[name] = [{"quant_type": QuantType.QInt8}]
    return found


def mct(
    model: nn.Module, images: Tensor, weight_bits: int, activation_bits: int, train: Trainer | None
) -> nn.Module:
    """Sony's MCT: thresholds by squared error, bias correction; or its straight-through training.

    The platform that it quantizes for has symmetric weights per channel and affine activations. All
    activations have the asked width but for the input, what the last layer reads, and the scores.
    """
    stand_in_for_torchvision_operators()
    import model_compression_toolkit as toolkit
    from model_compression_toolkit.core.common.network_editors.node_filters import (
        NodeNameFilter,
        NodeTypeFilter,
    )
    from model_compression_toolkit.core.pytorch.pytorch_device_config import set_working_device

    set_working_device(str(images.device))
    model = copy.deepcopy(model).eval()
    named = [n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    # A layer whose batch norm was folded has a longer name.
    first, last = (
        NodeNameFilter(name) | NodeNameFilter(f"{name}_bn")
        for name in (named[0].replace(".", "_"), named[-1].replace(".", "_"))
    )
    config = toolkit.core.CoreConfig()
    widths = config.bit_width_config
    kinds = {type(m) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    for kind in sorted(kinds, key=str):
        widths.set_manual_weights_bit_width(NodeTypeFilter(kind), weight_bits, "weight")
    widths.set_manual_weights_bit_width([first, last], 8, "weight")
    placeholder = next(iter(torch.fx.symbolic_trace(model).graph.nodes)).name
    read_last = NodeTypeFilter(nn.AdaptiveAvgPool2d)
    widths.set_manual_activation_bit_width([NodeNameFilter(placeholder), read_last, last], 8)
    options: dict[str, Any] = {
        "core_config": config,
        "target_platform_capabilities": _mct_platform(weight_bits, activation_bits),
    }

    def batches() -> Iterator[list[Tensor]]:
        for part in images.split(BATCH):
            yield [part]

    if train is None:
        return toolkit.ptq.pytorch_post_training_quantization(model, batches, **options)[0]
    begin = toolkit.qat.pytorch_quantization_aware_training_init_experimental
    end = toolkit.qat.pytorch_quantization_aware_training_finalize_experimental
    network = begin(model, batches, **options)[0].to(images.device)
    train(network)
    return end(network).eval()


def _mct_platform(weight_bits: int, activation_bits: int) -> Any:
    """Returns the platform of MCT's documentation with the widths that are needed, and 8 bits."""
    from model_compression_toolkit.target_platform_capabilities import (
        QuantizationConfigOptions,
        QuantizationMethod,
    )
    from model_compression_toolkit.target_platform_capabilities.constants import (
        KERNEL_ATTR,
        WEIGHTS_N_BITS,
    )
    from model_compression_toolkit.target_platform_capabilities.tpc_models.imx500_tpc.v1_0 import (
        tpc,
    )

    layer, _, other = tpc.get_op_quantization_configs()
    activations = sorted({8, activation_bits})

    def with_bits(config: Any, bits: int, weights: int | None = None) -> Any:
        kernel = {} if weights is None else {KERNEL_ATTR: {WEIGHTS_N_BITS: weights}}
        return config.clone_and_edit(
            attr_to_edit=kernel,
            activation_n_bits=bits,
            activation_quantization_method=QuantizationMethod.UNIFORM,
            supported_input_activation_n_bits=tuple(activations),
        )

    layers = {
        (weights, bits): with_bits(layer, bits, weights)
        for weights in sorted({8, weight_bits})
        for bits in activations
    }
    others = {bits: with_bits(other, bits) for bits in activations}
    base = layers[weight_bits, activation_bits]
    platform = tpc.generate_tpc(others[activation_bits], base, list(layers.values()), "few-bits")
    options = QuantizationConfigOptions(
        quantization_configurations=tuple(others.values()), base_config=others[activation_bits]
    )
    return platform.model_copy(update={"default_qco": options})


def nncf(
    model: nn.Module, images: Tensor, weight_bits: int, activation_bits: int, train: Trainer | None
) -> nn.Module:
    """NNCF's post-training quantization with fast bias correction; training goes on from there.

    It has one width for all, so below 8 bits the first and the last layer, and the pooling that the
    last one reads, stay in float. Below 8 bits its description of an NPU is the only one that has
    such widths; what that does not have either, NNCF refuses.
    """
    stand_in_for_torchvision_operators()
    import nncf as toolkit
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        QuantizationParameters,
    )

    _without_compiled_extensions()
    model = copy.deepcopy(model).eval()
    named = [n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    pools = [n for n, m in model.named_modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    ends = [f"{name.replace('.', '/')}/.*" for name in (named[0], named[-1], *pools)]
    few = min(weight_bits, activation_bits) < 8
    network = toolkit.quantize(
        model,
        toolkit.Dataset(list(images.split(BATCH))),
        subset_size=-(-len(images) // BATCH),
        target_device=toolkit.TargetDevice.NPU if few else toolkit.TargetDevice.ANY,
        ignored_scope=toolkit.IgnoredScope(patterns=ends) if few else None,
        advanced_parameters=AdvancedQuantizationParameters(
            weights_quantization_params=QuantizationParameters(num_bits=weight_bits),
            activations_quantization_params=QuantizationParameters(num_bits=activation_bits),
            batchwise_statistics=True,
        ),
    )
    if train is not None:
        train(network.train())
    return network.eval()


def _without_compiled_extensions() -> None:
    """Takes NNCF's own PyTorch reference of its quantizers, which it else compiles for minutes."""
    from nncf.torch.quantization import extensions
    from nncf.torch.quantization.reference import ReferenceQuantizedFunctions

    for name in ("QuantizedFunctionsCPU", "QuantizedFunctionsCUDA"):
        with contextlib.suppress(AttributeError):  # where there is no GPU, there is a stub
            getattr(extensions, name)._loaded_namespace = ReferenceQuantizedFunctions
