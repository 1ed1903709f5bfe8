"""Checks the bytes of a protobuf file before its parser makes objects of them.

Two bytes can become an object of hundreds of bytes. The number of fields, their nesting and the
length of packed numbers are therefore limited here, which limits what the parser allocates.
"""

from typing import Any

from photomask.errors import DocumentError

MOST_FIELDS = 1 << 18
MOST_NESTING = 16
MOST_PACKED_BYTES = 1 << 26
"""The most bytes of packed numbers in one field.

Numbers in typed fields take up to eight times their bytes in memory, those in `raw_data` do not.
"""
_TEXT, _NUMBERS = "text", "numbers"
_VARINT = 0
_FIXED64 = 1
_BYTES = 2
_FIXED32 = 5


def check_wire(data: bytes, descriptor: Any, where: str) -> None:
    """Refuses bytes that are no message of a type, or that would make too many objects.

    Args:
        data: the bytes of the whole file.
        descriptor: the descriptor of the expected message.
        where: the name of the file, for errors.

    Raises:
        DocumentError: the bytes are truncated or malformed, or have too many or too deep fields.
    """
    kinds = _Kinds()
    waiting = [(0, len(data), descriptor, 1)]
    count = 0
    while waiting:
        at, end, message, depth = waiting.pop()
        if depth > MOST_NESTING:
            raise DocumentError(f"{where}: messages are nested more than {MOST_NESTING} deep")
        fields = kinds.of(message)
        while at < end:
            count += 1
            if count > MOST_FIELDS:
                raise DocumentError(f"{where} has more than {MOST_FIELDS} fields; that is too many")
            key, at = _varint(data, at, end, where)
            if key < 8:
                raise DocumentError(
                    f"{where} is no ONNX model: byte {at - 1} holds the field number 0"
                )
            wire = key & 7
            if wire == _VARINT:
                _, at = _varint(data, at, end, where)
            elif wire == _BYTES:
                length, at = _varint(data, at, end, where)
                held, name = fields.get(key >> 3, (None, ""))
                if held is _TEXT:
                    _check_text(data[at : min(end, at + length)], name, where)
                elif held is _NUMBERS:
                    _check_packed(length, name, where)
                elif held is not None and length:
                    waiting.append((at, at + length, held, depth + 1))
                at += length
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            else:
                raise DocumentError(
                    f"{where} is no ONNX model: byte {at} follows the unknown wire type {wire}"
                )
            if at > end:
                raise DocumentError(
                    f"{where} is truncated: a field ends {at - end} bytes after the end"
                )


class _Kinds:
    """Looks up what the fields of a message hold: text, numbers or another message."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, tuple[Any, str]]] = {}

    def of(self, message: Any) -> dict[int, tuple[Any, str]]:
        """Returns kind and name by field number, without fields of raw bytes."""
        if message.full_name not in self._known:
            self._known[message.full_name] = {
                field.number: (self._kind(field), field.name)
                for field in message.fields
                if field.type != field.TYPE_BYTES
            }
        return self._known[message.full_name]

    def _kind(self, field: Any) -> Any:
        if field.message_type is not None:
            return field.message_type
        return _TEXT if field.type == field.TYPE_STRING else _NUMBERS


def _varint(data: bytes, at: int, end: int, where: str) -> tuple[int, int]:
    """Returns a number of up to ten bytes, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise DocumentError(f"{where} is truncated, or no ONNX model")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DocumentError(
        f"{where} is no ONNX model: a number that ends after byte {at} has more than ten bytes"
    )


def _check_text(content: bytes, name: str, where: str) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{where}: the text of a field {name} is not UTF-8") from error


def _check_packed(length: int, name: str, where: str) -> None:
    if length > MOST_PACKED_BYTES:
        raise DocumentError(
            f"{where}: the field {name} holds {length} bytes of numbers; at most "
            f"{MOST_PACKED_BYTES} are read. Store larger tensors in raw_data"
        )
