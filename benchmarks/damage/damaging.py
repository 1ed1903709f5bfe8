"""Damages files: bits, bytes, JSON fields, tensor headers and elements, files of others."""

import copy
import json
import random
import struct
from collections.abc import Sequence
from typing import Any

from .specimen import Files

EXTREMES: tuple[Any, ...] = (
    0, -1, 1, 2, 7, 63, 64, 255, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30,
    10**4999, 0.5, -0.5, 1e-320, 1e300, 1e400, -0.0, float("nan"), "", "x", "\0", "\ud800",
    "../../etc/passwd", "/dev/zero", "é" * 3, "0" * 64, [], {}, [[]], [0], ["x"], None, True, False,
)  # fmt: skip
"""Values that a field is set to."""
BYTES = (b"\0", b"\xff", b'"', b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"9", b"-", b"e99")


def damage(draw: random.Random, files: Files, fixed: Sequence[str], others: Sequence[bytes]):
    """Returns damaged files and what was done to them.

    Args:
        draw: decides.
        files: good ones.
        fixed: names of files that stay as they are.
        others: files of other specimens, to swap and splice.
    """
    damaged, ways = dict(files), []
    names = [name for name in files if name not in fixed]
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        name = draw.choice(names)
        ways_of = [bytewise, bytewise]
        if damaged[name][:1] in (b"{", b"["):
            ways_of += [jsonwise] * 4
        elif name.endswith(".safetensors"):
            ways_of += [headerwise, headerwise, elementwise, elementwise]
        elif name.endswith((".hex", ".txt")):
            ways_of += [digitwise] * 3
        elif name.endswith(".onnx"):
            ways_of += [fieldwise] * 4
        way, content = draw.choice(ways_of)(draw, damaged[name], others)
        damaged[name] = content
        ways.append(f"{name}: {way}")
    return damaged, ways


def bytewise(draw: random.Random, content: bytes, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Flips bits, cuts, splices, repeats, or puts another file in the place."""
    way = draw.choice(("flip", "flip", "cut", "splice", "repeat", "remove", "insert", "swap"))
    body = bytearray(content)
    size = len(body)
    first = draw.randrange(size + 1)
    last = min(size, first + draw.choice((1, 2, 4, 8, 64, 1024)))
    if way == "flip" and size:
        for _ in range(draw.choice((1, 1, 2, 8))):
            body[draw.randrange(size)] ^= 1 << draw.randrange(8)
    elif way == "cut":
        del body[draw.choice((0, first, max(0, size - 1), first)) :]
    elif way == "splice":
        other = draw.choice(others)
        start = draw.randrange(len(other) + 1)
        body[first:last] = other[start : start + draw.choice((1, 8, 64, 1024))]
    elif way == "repeat":
        body[first:first] = body[first:last]
    elif way == "remove":
        del body[first:last]
    elif way == "insert":
        body[first:first] = draw.choice(BYTES) * draw.choice((1, 1, 2, 1000, 100_000))
    elif way == "swap":
        body = bytearray(draw.choice(others))
    return way, bytes(body)


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            _places(value[key], found)
    return found


def edit(draw: random.Random, document: Any) -> str:
    """Changes a JSON document in place and says how."""
    places = _places(document, [])
    if not places:
        return "nothing"
    parent, key = draw.choice(places)
    value = parent[key]
    way = draw.choice(
        ("delete", "extreme", "extreme", "nudge", "nudge", "other", "nest", "add", "twice")
    )
    if way == "delete":
        del parent[key]
    elif way == "extreme":
        parent[key] = draw.choice(EXTREMES)
    elif way == "nudge":
        parent[key] = _nudged(draw, value)
    elif way == "other":
        parent[key] = copy.deepcopy(draw.choice(places)[0])
    elif way == "nest":
        for _ in range(draw.choice((1, 3, 100, 900))):
            value = [value]
        parent[key] = value
    elif way == "add" and isinstance(parent, dict):
        parent[draw.choice(("extra", "", "name", f"{key} "))] = copy.deepcopy(value)
    elif isinstance(parent, list):
        parent.insert(draw.randrange(len(parent) + 1), copy.deepcopy(value))
    return f"{way} at {key!r}"


def _nudged(draw: random.Random, value: Any) -> Any:
    """Returns a value of the same type that is close to it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        real = float(value) if abs(value) < 1 << 1000 else value  # a second edit meets the extremes
        return draw.choice((value + 1, value - 1, -value, value * 2, value // 2, real))
    if isinstance(value, float):
        return draw.choice((-value, value * 2, value + 1, value * 1e30, value * 1e-30))
    if isinstance(value, str):
        return draw.choice((value + "x", value[1:], value.upper(), value[::-1]))
    if isinstance(value, list):
        return draw.choice((value[1:], value[::-1], value + value, value[:1] * len(value)))
    if isinstance(value, dict):
        return dict(list(value.items())[1:])
    return 0


def _rendered(document: Any, indent: int | None) -> bytes:
    """Returns JSON; `ensure_ascii` keeps lone surrogates as escapes."""
    has_no_surrogate = "\\ud800" not in json.dumps(document)
    text = json.dumps(document, indent=indent, ensure_ascii=not has_no_surrogate)
    return (text + ("\n" if indent else "")).encode("utf-8", "surrogatepass")


def jsonwise(draw: random.Random, content: bytes, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Edits a field of a JSON document, or of one line of a file of JSON lines."""
    lines = content.split(b"\n")
    place = draw.randrange(len(lines)) if len(lines) > 2 and lines[1][:1] == b"{" else None
    text = content if place is None else lines[place]
    if draw.random() < 0.15:
        way, text = _field_twice(draw, text)
    else:
        try:
            document = json.loads(text)
            ways = [edit(draw, document) for _ in range(draw.choice((1, 1, 2)))]
            way, text = ", ".join(ways), _rendered(document, 1 if place is None else None)
        except (ValueError, RecursionError, TypeError):
            return bytewise(draw, content, others)
    if place is None:
        return way, text
    lines[place] = text
    return way, b"\n".join(lines)


def _field_twice(draw: random.Random, text: bytes) -> tuple[str, bytes]:
    """Writes one field once more, right behind an opening brace, with another value."""
    places = [place for place, mark in enumerate(text) if mark == ord("{")]
    if not places:
        return "nothing", text
    place = draw.choice(places)
    start = text.find(b'"', place)
    end = text.find(b'"', start + 1)
    key = text[start : end + 1] if 0 <= start < end else b'"name"'
    value = json.dumps(draw.choice((0, 1, "x", [], None, True))).encode()
    return f"{key!r} twice", text[: place + 1] + key + b": " + value + b", " + text[place + 1 :]


def headerwise(draw: random.Random, content: bytes, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Edits the header of a safetensors file, its length kept true."""
    try:
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        inner = header.get("__metadata__", {})
        key = draw.choice([*inner]) if inner and draw.random() < 0.7 else None
        if key is not None and str(inner[key])[:1] == "{":
            way, text = jsonwise(draw, inner[key].encode(), others)
            inner[key] = text.decode("utf-8", "replace")
        else:
            way = edit(draw, header)
        body = _rendered(header, None)
    except (ValueError, RecursionError, TypeError, AttributeError, struct.error):
        return bytewise(draw, content, others)
    if draw.random() < 0.1:
        way, body = _field_twice(draw, body)
    body += b" " * (-len(body) % 8)
    return f"header: {way}", struct.pack("<Q", len(body)) + body + content[8 + size :]


def elementwise(draw: random.Random, content: bytes, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Overwrites elements of the tensors of a safetensors file."""
    body = bytearray(content)
    start = min(8 + int.from_bytes(content[:8], "little"), len(body))
    if start >= len(body):
        return bytewise(draw, content, others)
    for _ in range(draw.choice((1, 1, 4))):
        place = draw.randrange(start, len(body)) & ~3
        pattern = draw.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\xc0\x7f", b"\0\0\x80\x7f",
                               b"\x80", b"\x7f", b"\x01", b"\0\0\x80\xbf"))  # fmt: skip
        body[place : place + len(pattern)] = pattern
    return "elements", bytes(body[: len(content)])


LOCATIONS = (
    "../outside.data", "/dev/zero", "/etc/passwd", "..\\outside.data", "", ".", "\0", "é",
    "./weights.data", "../model/weights.data", "model.onnx", "weights.data/",
)  # fmt: skip
"""Places that external data is said to lie in."""


def fieldwise(draw: random.Random, content: bytes, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Edits an ONNX model: where a tensor lies, its shape, type or elements, or a node."""
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    try:
        model = ModelProto.FromString(content)
        tensor = draw.choice(list(model.graph.initializer))
        node = draw.choice(list(model.graph.node))
    except (DecodeError, IndexError):
        return bytewise(draw, content, others)
    way = draw.choice(("place", "place", "place", "shape", "type", "elements", "node", "opset"))
    if way == "place":
        return f"{tensor.name}: {_moved(draw, tensor)}", model.SerializeToString()
    if way == "shape":
        tensor.dims[:] = draw.choice(([], [0], [-1], [2**40], [*tensor.dims, 1], tensor.dims[1:]))
    elif way == "type":
        tensor.data_type = draw.randrange(25)
    elif way == "elements" and tensor.raw_data:
        _, tensor.raw_data = elementwise(draw, bytes(8) + tensor.raw_data, others)
    elif way == "node" and node.input:
        place = draw.randrange(len(node.input))
        node.input[place] = draw.choice((tensor.name, "", node.output[0], node.input[0]))
    elif way == "opset":
        model.opset_import[0].version = draw.choice((0, 7, 13, 19, 20, 22, 99, -1, 2**40))
    return f"{way} of {tensor.name or node.name!r}", model.SerializeToString()


def _moved(draw: random.Random, tensor: Any) -> str:
    """Changes where a tensor says that its elements lie."""
    from onnx import TensorProto

    entries = {entry.key: entry for entry in tensor.external_data}
    key = draw.choice(("location", "offset", "length", "twice", "gone", "other"))
    if key == "location":
        value = draw.choice(LOCATIONS)
    else:
        number = int(entries[key].value) if key in entries else 0
        value = str(draw.choice((0, -1, number + 1, number - 1, number + 4, 2**31, 2**63, 10**30)))
        value = draw.choice((value, value, f" {value}", f"+{value}", "1e3", "x", ""))
    if key in ("twice", "other") or key not in entries:
        tensor.data_location = draw.choice((TensorProto.EXTERNAL, tensor.data_location))
        name = draw.choice(("location", "offset", "length", "checksum", ""))
        tensor.external_data.add(key=name, value=value)
    else:
        entries[key].value = value
    if key == "gone":
        del tensor.external_data[draw.randrange(len(tensor.external_data))]
    return f"{key} is {value[:20]!r}"


def digitwise(draw: random.Random, content: bytes, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Changes digits, or whole lines, of a file of words."""
    lines = content.split(b"\n")
    place = draw.randrange(len(lines))
    way = draw.choice(("digit", "digit", "line twice", "line gone", "comment", "x", "address"))
    line = bytearray(lines[place])
    if way in ("digit", "x") and line:
        line[draw.randrange(len(line))] = ord(
            draw.choice("0123456789abcdefF" if way != "x" else "xz_")
        )
        lines[place] = bytes(line)
    elif way == "line twice":
        lines.insert(place, lines[place])
    elif way == "line gone":
        del lines[place]
    elif way == "comment":
        lines.insert(place, draw.choice((b"// x", b"/* x", b"", b"  ", b"\r", b"*/")))
    elif way == "address":
        lines.insert(place, draw.choice((b"@0", b"@1", b"@ffffffffffffffff", b"@", b"@x")))
    return way, b"\n".join(lines)
