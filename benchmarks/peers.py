"""Other quantizers on the same float network and the same calibration images.

Each turns a float module and images into a function from images to scores. A peer that is not
installed is skipped with a row that says so: `pip install 'photomask[bench]'` brings them all.
"""

import contextlib
import copy
import importlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from networks import stand_in_for_torchvision_operators
from ours import Network

BATCH = 32
"""Calibration images at a time, for everyone."""


@dataclass(frozen=True)
class Peer:
    """Another quantizer, with one way to set it up.

    Attributes:
        name: of the implementation, in the rows.
        package: its distribution.
        modules: what it imports; a timing imports them before the clock starts.
        install: the line that installs it.
        quantize: from a float module (which it may change) and calibration images to a network.
    """

    name: str
    package: str
    modules: tuple[str, ...]
    install: str
    quantize: Callable[[nn.Module, Tensor], Network]

    @property
    def missing(self) -> str | None:
        """Says how to install what is not there; None if it is."""
        for name in self.modules:
            if importlib.util.find_spec(name.partition(".")[0]) is None:
                return f"not installed: {self.install}"
        return None

    def load(self) -> None:
        """Imports everything it needs."""
        stand_in_for_torchvision_operators()
        with quiet():
            for name in self.modules:
                importlib.import_module(name)

    def __call__(self, model: nn.Module, images: Tensor) -> Network:
        """Quantizes a copy of a model."""
        self.load()
        with quiet():
            return self.quantize(copy.deepcopy(model).eval(), images)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the peers' warnings, log lines and prints out of the tables."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


class Reader:
    """Calibration batches, as ONNX Runtime asks for them."""

    def __init__(self, name: str, images: Tensor):
        self._batches = iter([{name: batch.numpy()} for batch in images.split(BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        """Returns the next batch, or None after the last."""
        return next(self._batches, None)


def onnxruntime_static(
    model: nn.Module,
    images: Tensor,
    *,
    method: str = "MinMax",
    per_channel: bool = True,
    unsigned: bool = False,
    reduce_range: bool = False,
    exact: bool = True,
) -> Network:
    """ONNX Runtime's static quantizer: export, its own preprocessing, QDQ, int8.

    On processors without VNNI, ONNX Runtime's int8 kernels saturate sums of two products at 16
    bits, which costs MobileNetV2 half of its signal-to-noise ratio. That is the kernel's doing, not
    the quantizer's, so by default the quantized graph is run as it is written, unfused.

    Args:
        model: float, in evaluation mode.
        images: calibration images.
        method: of calibration.
        per_channel: a scale for each output channel of the weights.
        unsigned: uint8 activations instead of its default, int8.
        reduce_range: weights of 7 bits, its documentation's advice for such processors.
        exact: run quantize and dequantize as written; False takes its fused int8 kernels.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType

    options = {
        "per_channel": per_channel,
        "activation_type": QuantType.QUInt8 if unsigned else QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "reduce_range": reduce_range,
        "calibrate_method": getattr(CalibrationMethod, method),
    }
    return qdq_network(quantize_qdq(model, images, lambda _: options), exact=exact)


def quantize_qdq(
    model: nn.Module, images: Tensor, options_for: Callable[[Path], dict[str, Any]]
) -> bytes:
    """Returns the file of ONNX Runtime's static quantizer: export, its preprocessing, QDQ.

    Args:
        model: float, in evaluation mode.
        images: calibration images.
        options_for: of the quantizer, for the file that it reads.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as name:
        plain, ready, integer = (Path(name) / f"{n}.onnx" for n in ("float", "ready", "integer"))
        export_onnx(model, images[:2], plain)
        # Its symbolic shape inference is for transformers; graph optimisation folds batch norm.
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(ready),
            str(integer),
            Reader("images", images),
            quant_format=quantization.QuantFormat.QDQ,
            **options_for(ready),
        )
        return integer.read_bytes()


def qdq_network(content: bytes, *, exact: bool = True) -> Network:
    """Returns a quantized file as a function of images, as written or by its fused kernels."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": batch.cpu().numpy()})[0])

    return run


def export_onnx(model: nn.Module, example: Tensor, path: Path) -> None:
    """Writes a float model as ONNX with a free batch size."""
    torch.onnx.export(
        model,
        (example,),
        str(path),
        input_names=["images"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        opset_version=18,
        dynamo=True,
        verbose=False,
        external_data=False,
    )


def torchao_pt2e(model: nn.Module, images: Tensor, *, observer: str = "minmax") -> Network:
    """PyTorch's PT2E flow with the XNNPACK quantizer: int8, weights per channel.

    Args:
        model: float, in evaluation mode.
        images: calibration images.
        observer: of activations: "minmax", or "histogram", which is the quantizer's default.
    """
    from torchao.quantization.pt2e import MinMaxObserver
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.testing.pt2e._xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    batch = torch.export.Dim("batch", min=1, max=4096)
    exported = torch.export.export(model, (images[:2],), dynamic_shapes=({0: batch},))
    config = get_symmetric_quantization_config(is_per_channel=True)
    if observer == "minmax":
        # `replace` keeps dtype, range and scheme; only how the range is found changes.
        changed = {
            name: dataclass_replace(
                getattr(config, name),
                observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=2**-12),
            )
            for name in ("input_activation", "output_activation")
        }
        config = dataclass_replace(config, **changed)
    prepared = prepare_pt2e(exported.module(), XNNPACKQuantizer().set_global(config))
    with torch.no_grad():
        for part in images.split(BATCH):
            prepared(part)
    converted = convert_pt2e(prepared)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return converted(x)

    return run


def dataclass_replace(value: Any, **changes: Any) -> Any:
    """Returns a dataclass instance with some fields changed."""
    from dataclasses import replace

    return replace(value, **changes)


def brevitas_ptq(model: nn.Module, images: Tensor, *, bias_correction: bool = True) -> Network:
    """Brevitas' post-training flow: equalisation, calibration, optionally bias correction."""
    from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
    from brevitas.graph.quantize import COMPUTE_LAYER_MAP, preprocess_for_quantize, quantize
    from brevitas.quant.scaled_int import Int8WeightPerChannelFloat

    # Its default is one scale for a whole weight; everyone here has one for each output channel.
    layers = dict(COMPUTE_LAYER_MAP)
    for kind in (nn.Conv2d, nn.Linear):
        layer, options = layers[kind]
        layers[kind] = (layer, {**options, "weight_quant": Int8WeightPerChannelFloat})
    graph = preprocess_for_quantize(model, trace_model=True, equalize_iters=20)
    quantized = quantize(graph, compute_layer_map=layers).eval()
    with torch.no_grad(), calibration_mode(quantized):
        for part in images.split(BATCH):
            quantized(part)
    if bias_correction:
        with torch.no_grad(), bias_correction_mode(quantized):
            for part in images.split(BATCH):
                quantized(part)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            found = quantized(x)
        return found if isinstance(found, Tensor) else found.value

    return run


def aimet_ptq(model: nn.Module, images: Tensor) -> Network:
    """AIMET's QuantSim after batch-norm folding: int8, min-max."""
    from aimet_torch.batch_norm_fold import fold_all_batch_norms
    from aimet_torch.common.defs import QuantScheme
    from aimet_torch.quantsim import QuantizationSimModel

    fold_all_batch_norms(model, tuple(images[:1].shape), dummy_input=images[:1])
    simulation = QuantizationSimModel(
        model, images[:1], QuantScheme.min_max, default_param_bw=8, default_output_bw=8
    )

    def show(quantized: nn.Module, *_: Any) -> None:
        with torch.no_grad():
            for part in images.split(BATCH):
                quantized(part)

    simulation.compute_encodings(show)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return simulation.model(x)

    return run


def _onnxruntime(label: str, **options: Any) -> Peer:
    return Peer(
        f"ONNX Runtime {label}",
        "onnxruntime",
        ("onnx", "onnxscript", "onnxruntime", "onnxruntime.quantization"),
        "pip install onnx==1.20.1 onnxruntime onnxscript",
        partial(onnxruntime_static, **options),
    )


def _torchao(label: str, observer: str) -> Peer:
    return Peer(
        f"torchao PT2E {label}",
        "torchao",
        ("torchao", "torchao.testing.pt2e._xnnpack_quantizer"),
        "pip install torchao==0.18.0",
        partial(torchao_pt2e, observer=observer),
    )


def _brevitas(label: str, bias_correction: bool) -> Peer:
    return Peer(
        f"Brevitas {label}",
        "brevitas",
        ("brevitas", "brevitas.graph.quantize", "brevitas.graph.calibrate"),
        "pip install brevitas==0.13.4",
        partial(brevitas_ptq, bias_correction=bias_correction),
    )


AIMET = Peer(
    "AIMET min-max",
    "aimet-torch",
    ("aimet_torch", "aimet_torch.quantsim"),
    "pip install aimet-torch==2.42.0",
    aimet_ptq,
)
ONNXRUNTIME = (
    _onnxruntime("MinMax"),
    _onnxruntime("MinMax per tensor", per_channel=False),
    _onnxruntime("Percentile", method="Percentile"),
    _onnxruntime("Entropy", method="Entropy"),
    _onnxruntime("MinMax, its int8 kernels", unsigned=True, exact=False),
    _onnxruntime("7-bit weights, its int8 kernels", unsigned=True, exact=False, reduce_range=True),
)
TORCHAO = (_torchao("min-max", "minmax"), _torchao("histogram", "histogram"))
BREVITAS = (_brevitas("calibrated", False), _brevitas("bias-corrected", True))
PEERS = {peer.name: peer for peer in (*ONNXRUNTIME, *TORCHAO, *BREVITAS, AIMET)}
