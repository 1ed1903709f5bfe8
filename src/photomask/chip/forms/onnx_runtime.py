"""ONNX Runtime sessions that take integers, return integers, and can show the values inside."""

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from photomask.dependencies import OptionalPackage
from photomask.errors import EngineError

if TYPE_CHECKING:
    import onnx

NUMPY_TYPES = {f"tensor({name})": np.dtype(name) for name in ("int8", "uint8", "int32", "int64")}
"""The NumPy types of an integer model's inputs, by ONNX Runtime's names for them."""
ONLY_ERRORS = 3
"""The log level at which ONNX Runtime reports errors only."""
NEVER_SATURATE = ("session.x64quantprecision", "1")
"""The option that keeps products of int8 and uint8 from saturating on older x86 processors."""


def runtime_package(purpose: str) -> ModuleType:
    """Returns the package `onnxruntime`.

    Args:
        purpose: what needs the package; the error message says it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    with OptionalPackage("onnxruntime", "onnx", purpose):
        return importlib.import_module("onnxruntime")


class Session:
    """A model that ONNX Runtime has loaded and runs on a CPU."""

    def __init__(
        self,
        runtime: ModuleType,
        model: "onnx.ModelProto",
        *,
        threads: int = 1,
        optimized: bool = True,
    ):
        """Loads a model.

        Args:
            runtime: the package `onnxruntime`.
            model: the model to run.
            threads: how many threads ONNX Runtime uses inside an operator.
            optimized: whether ONNX Runtime may change the graph and fuse nodes.

        Raises:
            EngineError: ONNX Runtime refuses the model.
        """
        options: Any = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = ONLY_ERRORS
        if not optimized:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry(*NEVER_SATURATE)
        try:
            self._session: Any = runtime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EngineError(f"ONNX Runtime refuses the program: {error}") from error

    def run(self, names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the model's outputs by name.

        Args:
            names: outputs of the model, each named once.
            inputs: the model's inputs by name, in the model's types.

        Raises:
            EngineError: ONNX Runtime fails.
        """
        try:
            results = self._session.run(list(names), dict(inputs))
        except Exception as error:
            raise EngineError(f"ONNX Runtime cannot run the program: {error}") from error
        return dict(zip(names, results, strict=True))

    def run_integers(
        self, names: Sequence[str], codes: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns the model's outputs by name, as int64.

        Args:
            names: outputs of the model, each named once.
            codes: int64 codes for the model's inputs, by name.

        Raises:
            EngineError: the model has other inputs, or ONNX Runtime fails.
        """
        types = {value.name: value.type for value in self._session.get_inputs()}
        if set(types) != set(codes) or not set(types.values()) <= set(NUMPY_TYPES):
            raise EngineError(
                f"the model takes the inputs {types}, but got integers for {list(codes)}"
            )
        inputs = {name: value.astype(NUMPY_TYPES[types[name]]) for name, value in codes.items()}
        return {name: value.astype(np.int64) for name, value in self.run(names, inputs).items()}


def giving_every_value(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Returns a copy of the model whose outputs are all values that the model describes."""
    copy = type(model)()
    copy.CopyFrom(model)
    known = {value.name for value in (*copy.graph.input, *copy.graph.output)}
    copy.graph.output.extend(value for value in model.graph.value_info if value.name not in known)
    return copy
