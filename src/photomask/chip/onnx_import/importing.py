"""Imports the nodes of an ONNX file as a float graph, and converts it as every other model."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError

from photomask.chip.conversion.builder import Conversion, Scale
from photomask.chip.conversion.converters import convert_node
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.formats import IntFormat
from photomask.chip.graph import Node
from photomask.chip.graph.operations import Input, Pointwise
from photomask.chip.onnx_import import constants, layers, moving, pointwise
from photomask.chip.onnx_import.accumulators import with_fitting_sums
from photomask.chip.onnx_import.call import Call
from photomask.chip.onnx_import.graph import MOST_COPIES, GraphBuilder, Rescale, check_shape
from photomask.chip.onnx_import.lookups import TableFunction, convert_table
from photomask.chip.onnx_import.quantization import FORMATS, dequantize_linear, quantize_linear
from photomask.chip.onnx_import.reading import OWN_DOMAINS, ModelFile, describe, read_model
from photomask.chip.onnx_import.rounding import FileQuantizer
from photomask.chip.onnx_import.schemas import check_schema
from photomask.chip.onnx_import.tensors import TensorReader, shortened
from photomask.chip.onnx_import.values import (
    CannotImport,
    Codes,
    Dequantized,
    Real,
    Unknown,
    Value,
    elements_of,
)
from photomask.chip.placement import place
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.program import IntegerProgram
from photomask.chip.quantizers import PerChannel, Quantizer
from photomask.chip.recipe import Recipe
from photomask.chip.standing import Effect
from photomask.chip.target import Target, load_target
from photomask.documents import describe_validation
from photomask.errors import DocumentError, TargetError, UnsupportedOperatorError

if TYPE_CHECKING:
    from onnx import ModelProto

IMPORTERS: dict[str, Callable[[Call], Value | list[Value]]] = {
    "Add": layers.add,
    "AveragePool": layers.average_pool,
    "Cast": constants.cast,
    "Clip": pointwise.clip,
    "Concat": layers.concatenate,
    "Constant": constants.constant,
    "Conv": layers.convolution,
    "DequantizeLinear": dequantize_linear,
    "Div": layers.divide,
    "Dropout": moving.dropout,
    "Flatten": moving.flatten,
    "Gather": moving.gather,
    "Gelu": pointwise.gelu,
    "Gemm": layers.gemm,
    "GlobalAveragePool": layers.global_average_pool,
    "GlobalMaxPool": moving.global_max_pool,
    "Identity": moving.identity,
    "MatMul": layers.matmul,
    "MaxPool": moving.max_pool,
    "Mul": layers.multiply,
    "PRelu": pointwise.prelu,
    "Pad": moving.pad,
    "QuantizeLinear": quantize_linear,
    "ReduceMean": layers.reduce_mean,
    "ReduceSum": layers.reduce_sum,
    "Relu": pointwise.relu,
    "Reshape": moving.reshape,
    "Shape": constants.shape_of,
    "Slice": moving.slice_axes,
    "Softmax": layers.softmax,
    "Split": moving.split,
    "Squeeze": moving.squeeze,
    "Sub": layers.subtract,
    "Transpose": moving.transpose,
    "Unsqueeze": moving.unsqueeze,
    **dict.fromkeys(pointwise.FUNCTIONS, pointwise.function),
}
"""The functions that import nodes, by operator of ONNX's own domain."""
_MICROSOFT = {"DequantizeLinear", "QuantizeLinear", "Gelu"}
"""Operators that ONNX Runtime writes in its own domain, with the same meaning."""
_MOST_PROBLEMS = 20
MOST_TABLE_ENTRIES = 1 << 25
"""The most entries of all tables of functions together, as for 512 functions of 16-bit codes."""


@float32_by_default()
def import_qdq(
    source: "str | os.PathLike[str] | ModelProto", target: "Target | str | Path"
) -> IntegerProgram:
    """Converts an ONNX model that another tool has quantized to an integer program.

    Weights, zero points, scales and biases are those of the file. Only the rescaling changes: each
    ratio of scales becomes the nearest multiplier and shift of the target. The codes of each edge
    then differ by at most 1 from those of ONNX Runtime, which rescales in floating point.

    Args:
        source: the path of a file, or a model in memory without external data.
        target: the target of the program, the name of a preset, or the path of a file.

    Returns:
        A program whose inputs are the codes of the file's inputs (`quantize_input` makes them),
        and whose outputs are the codes of the file's outputs.

    Raises:
        DocumentError: the file is damaged, contradicts itself or is too large.
        UnsupportedOperatorError: operators are not supported or values are not quantized; the
            message names all of them.
        TargetError: the target cannot hold what the program needs.
        UsageError: the source is neither a path nor a model.
        MissingDependencyError: the package onnx is not installed.
    """
    target = load_target(target)
    file = read_model(source)
    walk = _Walk(file)
    walk.run()
    prepared = _prepared(walk.builder, walk.outputs())
    _check_tables(prepared, file.name)
    conversion = Conversion(prepared, target)
    exact = np.errstate(over="raise", invalid="raise", divide="raise")
    with prepared.standing.call("import_qdq", Effect.LOADS, prepared), torch.no_grad(), exact:
        for node in prepared.graph.nodes:
            _convert(conversion, prepared, node, walk.builder.weights.get(node.name))
        return IntegerProgram(
            target=target,
            inputs=prepared.graph.inputs,
            outputs=prepared.graph.outputs,
            edges=list(conversion.edges.values()),
            steps=conversion.steps,
            tensors=conversion.tensors,
            formats=conversion.formats,
            provenance={
                "imported_from": file.name,
                "producer": shortened(f"{file.model.producer_name} {file.model.producer_version}"),
            },
        )


def _check_tables(prepared: PreparedModel, where: str) -> None:
    codes = (
        1 << prepared.activation_quantizer(node.inputs[0]).format.bits
        for node in prepared.graph.nodes
        if isinstance(node.operation, Pointwise)
    )
    if (entries := sum(codes)) > MOST_TABLE_ENTRIES:
        raise UnsupportedOperatorError(
            f"{where}: its functions of one number need tables of {entries} entries together; at "
            f"most {MOST_TABLE_ENTRIES} are supported. Give their inputs fewer bits"
        )


def _convert(
    conversion: Conversion, prepared: PreparedModel, node: Node, weight: Dequantized | None
) -> None:
    try:
        if weight is not None:
            fitting = with_fitting_sums(conversion, node, weight)
            _set_weight(prepared.weight_quantizer(node.name), fitting)
            if fitting is not weight:
                prepared.set_constant(node.name, "weight", torch.from_numpy(fitting.real()))
        if isinstance(node.operation, TableFunction):
            convert_table(conversion, node, node.operation)
        elif isinstance(node.operation, Rescale):
            x, y = conversion.scale_of(node.inputs[0]), conversion.scale_of(node.name)
            ratio = np.full(1, x.scale / y.scale)
            conversion.requantize(node, node.inputs[0], ratio, y, offset=-x.zero_point)
        else:
            convert_node(conversion, node)
    except ValidationError as error:
        raise TargetError(f"{node.source}: {describe_validation(error)}") from error
    except (ArithmeticError, ValueError, IndexError, TypeError, RuntimeError) as error:
        raise TargetError(f"{node.source} has no integer form: {error}") from error


class _Walk:
    """Imports the nodes of a file in order."""

    def __init__(self, file: ModelFile):
        graph = file.model.graph
        readers = Counter(name for node in graph.node for name in node.input)
        # An output is also read by the user of the program, so it must not merge with a node.
        readers.update([value.name for value in graph.output] * 2)
        quantizing = {
            name
            for node in graph.node
            if node.op_type == "QuantizeLinear"
            for name in node.input[:1]
        }
        self.file = file
        self.builder = GraphBuilder(file.name, readers, quantizing)
        self.reader = TensorReader(file.name, file.folder)
        self.values: dict[str, Value] = {}
        self.problems: list[str] = []
        self.batches: set[int] = set()

    def run(self) -> None:
        """Imports constants, inputs and nodes.

        Raises:
            UnsupportedOperatorError: nodes cannot be imported; the message names all of them.
        """
        graph = self.file.model.graph
        for tensor in graph.initializer:
            self.values[tensor.name] = constants.value_of(*self.reader.read(tensor))
            self.builder.budget += MOST_COPIES * elements_of(self.values[tensor.name])
        for value in graph.input:
            if value.name not in self.values:
                self.values[value.name] = self._input(value)
        for node in graph.node:
            self._import(node)
            if self.builder.budget < 0:
                break
        if self.problems:
            shown = self.problems[:_MOST_PROBLEMS]
            more = len(self.problems) - len(shown)
            raise UnsupportedOperatorError(
                f"{self.file.name} cannot become an integer program:\n  "
                + "\n  ".join(shown + [f"… and {more} more"] * bool(more))
            )

    def _input(self, value: Any) -> Value:
        """Adds an input, which may hold floating-point numbers or codes."""
        from onnx import TensorProto

        tensor = value.type.tensor_type
        where = f"{self.file.name}: input {shortened(value.name)!r}"
        kinds = TensorProto.DataType
        kind = kinds.Name(tensor.elem_type) if tensor.elem_type in kinds.values() else "unknown"
        shape = (1, *self._sizes(tensor, where))
        try:
            check_shape(shape)
            found = self.builder.emit(value.name, value.name, Input(), shape=shape)
        except CannotImport as error:
            raise DocumentError(f"{where}: {error}") from error
        if kind == "FLOAT":
            return found
        if kind not in FORMATS:
            raise DocumentError(f"{where} has the type {kind}; expected FLOAT or integer codes")
        self.builder.input_formats[found.node] = FORMATS[kind]
        return Codes(found.node)

    def _sizes(self, tensor: Any, where: str) -> list[int]:
        """Returns the sizes of an input's axes after the batch, which is axis 0."""
        dims = tensor.shape.dim
        if not tensor.HasField("shape"):
            raise DocumentError(
                f"{where} has no shape; state its rank, with the batch as the first axis and fixed "
                "sizes after it (onnx.shape_inference, or the exporter's options)"
            )
        if not dims:
            raise DocumentError(
                f"{where} has rank 0, so it has no batch; samples must lie along its first axis"
            )
        free = [at for at, d in enumerate(dims) if at and d.WhichOneof("value") != "dim_value"]
        if free:
            raise DocumentError(
                f"{where}: all axes but the batch, which is axis 0, must have a fixed size, but "
                f"axis {free[0]} of {len(dims)} has none. Give it one "
                "(onnxruntime.tools.make_dynamic_shape_fixed), or put the batch first"
            )
        if dims[0].WhichOneof("value") == "dim_value":
            self.batches.add(dims[0].dim_value)
        if len(self.batches) > 1 or min(self.batches, default=1) < 1:
            raise DocumentError(
                f"{where}: the batch, axis 0 of every input, is fixed to "
                f"{' and '.join(map(str, sorted(self.batches)))} samples; all inputs must have the "
                "same number of samples, at least 1, or leave it free"
            )
        return [d.dim_value for d in dims[1:]]

    def _import(self, node: Any) -> None:
        values = tuple(self.values[name] if name else None for name in node.input)
        call = Call(node, values, self.builder, self.reader, self.file.opset)
        results: Value | list[Value] = Unknown()
        if not any(isinstance(value, Unknown) for value in values):
            try:
                results = self._importer(node, values)(call)
                self._count_constants(results, values)
            except CannotImport as error:
                self.problems.append(f"{describe(node)}: {error}")
            except (ArithmeticError, IndexError, TypeError, ValueError) as error:
                self.problems.append(f"{describe(node)}: it contradicts itself: {error}")
        elif self._is_foreign(node):
            self.problems.append(f"{describe(node)}: it is outside the supported set")
        if not isinstance(results, list):
            results = [results]
        for position, name in enumerate(node.output):
            if name:
                self.values[name] = results[position] if position < len(results) else Unknown()
                if node.op_type == "QuantizeLinear":
                    self._check_declared(name)

    def _check_declared(self, name: str) -> None:
        """Checks that codes have the type that the graph declares, if it declares one."""
        from onnx import TensorProto

        value = self.values[name]
        found = self.builder.scale(value.node) if isinstance(value, Codes) else None
        graph = self.file.model.graph
        for declared in (*graph.value_info, *graph.output):
            number = declared.type.tensor_type.elem_type
            if found is None or declared.name != name or not number:
                continue
            kind = f"{'' if found.format.signed else 'U'}INT{found.format.bits}"
            if number != TensorProto.DataType.Value(kind):
                raise DocumentError(
                    f"{self.file.name}: the codes {shortened(name)!r} are {kind} by their zero "
                    f"point, but the graph declares type {number}"
                )

    def _count_constants(
        self, results: Value | list[Value], values: Sequence[Value | None]
    ) -> None:
        for result in results if isinstance(results, list) else [results]:
            if not any(result is value for value in values):
                self.builder.spend(elements_of(result))

    def _is_foreign(self, node: Any) -> bool:
        if node.domain in OWN_DOMAINS:
            return node.op_type not in IMPORTERS
        return node.domain != "com.microsoft" or node.op_type not in _MICROSOFT

    def _importer(
        self, node: Any, values: Sequence[Value | None]
    ) -> Callable[[Call], Value | list[Value]]:
        if self._is_foreign(node):
            raise CannotImport("it is outside the supported set")
        if not any(node.output):
            raise CannotImport("it has no output")
        check_schema(node, self.file.opset, node.domain in OWN_DOMAINS, values)
        return IMPORTERS[node.op_type]

    def outputs(self) -> list[str]:
        """Returns the float nodes whose codes are the file's outputs.

        Raises:
            UnsupportedOperatorError: an output is not quantized.
        """
        found = []
        for value in self.file.model.graph.output:
            result = self.values[value.name]
            if not isinstance(result, Codes) and not (isinstance(result, Real) and result.exact):
                raise UnsupportedOperatorError(
                    f"{self.file.name}: output {shortened(value.name)!r} is not quantized; it must "
                    "come from a QuantizeLinear, or from a DequantizeLinear after one"
                )
            found.append(result.node)
        return list(dict.fromkeys(found))


def _prepared(builder: GraphBuilder, outputs: Sequence[str]) -> PreparedModel:
    """Returns the graph as a prepared model whose quantizers have the file's scales."""
    graph = builder.finish(outputs)
    for name in graph.inputs:
        if builder.scale(name) is None:
            raise UnsupportedOperatorError(
                f"{builder.file}: input {name!r} is not quantized, as no QuantizeLinear reads it"
            )
    recipe = Recipe(
        name="of the imported file",
        weight=FileQuantizer(8, symmetric=False, granularity=PerChannel()),
        activation=FileQuantizer(8, symmetric=False),
    )
    prepared = PreparedModel(place(graph, recipe))
    for site in prepared.sites:
        if (scale := builder.scale(site.name)) is None:
            raise UnsupportedOperatorError(
                f"{builder.file}: {site.name!r} is not quantized, as no QuantizeLinear reads it"
            )
        _set(prepared.activation_quantizer(site.name), scale)
    return prepared


def _set(quantizer: Quantizer, scale: Scale) -> None:
    real = torch.tensor(scale.scale, dtype=torch.float32)
    quantizer.set_parameters(scale.format, real, torch.tensor(scale.zero_point))


def _set_weight(quantizer: Quantizer, weight: Dequantized) -> None:
    """Sets scales per output channel, and signed codes without zero points where these fit."""
    channels = len(weight.codes)
    scale = torch.from_numpy(np.broadcast_to(weight.scale, channels).copy())
    centred = weight.centred()
    signed = IntFormat(bits=weight.format.bits, signed=True)
    if signed.low <= centred.min() and centred.max() <= signed.high:
        quantizer.set_parameters(signed, scale, torch.zeros(channels, dtype=torch.int64))
    else:
        zero_point = torch.from_numpy(np.broadcast_to(weight.zero_point, channels).copy())
        quantizer.set_parameters(weight.format, scale, zero_point)
