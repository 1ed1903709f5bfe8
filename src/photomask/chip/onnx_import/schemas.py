"""Checks nodes against ONNX's own schemas, because anything beyond them has no defined meaning."""

from collections.abc import Sequence
from typing import Any

from photomask.chip.onnx_import.values import CannotImport, Integers, Value

_MICROSOFT_ATTRIBUTES = {"axis"}
"""The attributes of the supported operators in ONNX Runtime's domain."""


def check_schema(node: Any, opset: int, own_domain: bool, values: Sequence[Value | None]) -> None:
    """Refuses attributes, inputs, outputs and integer types that an operator does not have.

    Args:
        node: the `NodeProto`.
        opset: the version of ONNX's own operators.
        own_domain: True if the operator is ONNX's own.
        values: the values of the inputs; None for an input that is absent.

    Raises:
        CannotImport: the node does not follow the schema; the message says where.
    """
    named = {attribute.name for attribute in node.attribute}
    if not own_domain:
        _require_known(named, _MICROSOFT_ATTRIBUTES)
        return
    from onnx import defs

    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError as error:
        raise CannotImport(f"operator set {opset} does not have this operator") from error
    _require_known(named, set(schema.attributes))
    for found, most, what in (
        (node.input, schema.max_input, "inputs"),
        (node.output, schema.max_output, "outputs"),
    ):
        if len(found) > most:
            raise CannotImport(f"it has {len(found)} {what}; the operator takes at most {most}")
    given = sum(1 for name in node.input if name)
    if given < schema.min_input:
        raise CannotImport(f"it has {given} inputs; the operator needs {schema.min_input} or more")
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
