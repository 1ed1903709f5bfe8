"""Writes the C function that fills the constants from a file in memory."""

from photomask.chip.forms.c.constants import HEADER_BYTES, MAGIC, Constants
from photomask.chip.forms.c.text import indent


def loader(name: str, program_sha256: str, constants: Constants) -> list[str]:
    """Returns the definition of `<name>_load`, and of the flag that it sets."""
    octets = [f"0x{byte:02x}" for byte in bytes.fromhex(program_sha256)]
    rows = [", ".join(octets[start : start + 16]) for start in (0, 16)]
    magic = MAGIC.decode()
    copied = f"memcpy(&constants, bytes + {HEADER_BYTES}, {constants.size});"
    body = [
        "static const unsigned char program[32] = {",
        f"    {rows[0]},",
        f"    {rows[1]},",
        "};",
        "const unsigned char *const bytes = file;",
        "const uint16_t one = 1;",
        "uint32_t low = 0, high = 0;",
        f'if (size < {HEADER_BYTES} || memcmp(bytes, "{magic}", {len(MAGIC)}) != 0) {{',
        "    return 1;",
        "}",
        f"if (memcmp(bytes + {len(MAGIC)}, program, sizeof program) != 0) {{",
        "    return 2;",
        "}",
        f"if (size != {HEADER_BYTES + constants.size}) {{",
        "    return 3;",
        "}",
        f"for (size_t i = {HEADER_BYTES}; i < size; i++) {{",
        "    low += bytes[i];",
        "    high += low;",
        "}",
        "if (word(bytes + 48) != low || word(bytes + 52) != high) {",
        "    return 4;",
        "}",
        "if (*(const unsigned char *)&one != 1) {",
        "    return 5;",
        "}",
        *([copied] if constants.size else []),
        "constants_loaded = 1;",
        "return 0;",
    ]
    return [
        "static uint32_t word(const unsigned char *bytes)",
        "{",
        "    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |",
        "           (uint32_t)bytes[3] << 24;",
        "}",
        "",
        "static int constants_loaded;",
        "",
        f"int {name}_load(const void *file, size_t size)",
        "{",
        *indent(body),
        "}",
        "",
    ]
