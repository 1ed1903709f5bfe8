"""What ONNX's own schema says a node may have: more than that has a meaning nobody defined."""

from collections.abc import Sequence
from typing import Any

from photomask.chip.onnx_import.values import CannotImport, Integers, Value

_MICROSOFT_ATTRIBUTES = {"axis"}
"""Of the operators in ONNX Runtime's domain that the importer knows."""


def check_schema(node: Any, opset: int, own_domain: bool, values: Sequence[Value | None]) -> None:
    """Refuses attributes, inputs, outputs and types of integers that the operator does not have.

    Args:
        node: the `NodeProto`.
        opset: version of ONNX's own operators.
        own_domain: whether the operator is ONNX's own.
        values: what the node reads; None for an input that is left out.

    Raises:
        CannotImport: says which.
    """
    named = {attribute.name for attribute in node.attribute}
    if not own_domain:
        _require_known(named, _MICROSOFT_ATTRIBUTES)
        return
    from onnx import defs

    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError as error:
        raise CannotImport(f"operator set {opset} has no such operator") from error
    _require_known(named, set(schema.attributes))
    for found, most, what in (
        (node.input, schema.max_input, "inputs"),
        (node.output, schema.max_output, "outputs"),
    ):
        if len(found) > most:
            raise CannotImport(f"it has {len(found)} {what}; the operator has at most {most}")
    given = sum(1 for name in node.input if name)
    if given < schema.min_input:
        raise CannotImport(f"it has {given} inputs; the operator has at least {schema.min_input}")
    types = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
    for place, value in enumerate(values):
        expected = schema.inputs[min(place, len(schema.inputs) - 1)]  # the last may repeat
        allowed = types.get(expected.type_str, [expected.type_str])
        if isinstance(value, Integers) and f"tensor({value.kind.lower()})" not in allowed:
            raise CannotImport(
                f"its input {expected.name!r} is of type {value.kind}, which operator set {opset} "
                "does not allow there"
            )


def _require_known(named: set[str], known: set[str]) -> None:
    unknown = sorted(named - known)
    if unknown:
        raise CannotImport(
            f"the operator has no attribute {unknown[0][:40]!r} in this operator set"
        )
