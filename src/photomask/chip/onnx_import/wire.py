"""A look at the bytes of a protobuf file before its parser makes objects of them.

Two bytes can become an object of hundreds, so what a parser may allocate is bounded here by the
number of fields, their nesting and the length of packed numbers.
"""

from typing import Any

from photomask.errors import DocumentError

MOST_FIELDS = 1 << 18
MOST_NESTING = 16
MOST_PACKED_BYTES = 1 << 26
"""Numbers in typed fields take up to eight times their bytes; `raw_data` takes one time."""
_TEXT, _NUMBERS = "text", "numbers"
_VARINT = 0
_FIXED64 = 1
_BYTES = 2
_FIXED32 = 5


def check_wire(data: bytes, descriptor: Any, where: str) -> None:
    """Refuses bytes that are no message of this kind, or would make too many objects.

    Args:
        data: the whole file.
        descriptor: of the message that it should hold.
        where: the file, for errors.

    Raises:
        DocumentError: truncated, malformed, too deep or too many fields.
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
                raise DocumentError(f"{where}: more than {MOST_FIELDS} fields")
            key, at = _varint(data, at, end, where)
            if key < 8:
                raise DocumentError(f"{where} is no ONNX model: field number 0 at byte {at - 1}")
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
                raise DocumentError(f"{where} is no ONNX model: wire type {wire} at byte {at}")
            if at > end:
                raise DocumentError(f"{where} is truncated: a field ends {at - end} bytes beyond")


class _Kinds:
    """What a message's fields hold: text, numbers, or the descriptor of another message."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, tuple[Any, str]]] = {}

    def of(self, message: Any) -> dict[int, tuple[Any, str]]:
        """Returns kind and name by field number; opaque bytes are left out."""
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
    """Returns a number of up to ten bytes and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise DocumentError(f"{where} is truncated, or no ONNX model")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DocumentError(f"{where} is no ONNX model: a number of more than ten bytes at {at}")


def _check_text(content: bytes, name: str, where: str) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{where}: the text of a field {name} is not UTF-8") from error


def _check_packed(length: int, name: str, where: str) -> None:
    if length > MOST_PACKED_BYTES:
        raise DocumentError(
            f"{where}: {length} bytes of numbers in {name}; at most {MOST_PACKED_BYTES}, larger "
            "tensors go into raw_data"
        )
