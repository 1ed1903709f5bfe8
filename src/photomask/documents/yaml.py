"""Writes texts into YAML, so that none of them can become anything but a text."""


def quoted_yaml(text: str) -> str:
    """Returns a text as a scalar of YAML in double quotes.

    Only printable characters of ASCII stand for themselves; every other one is escaped.
    """
    signs = [
        sign if sign.isascii() and sign.isprintable() and sign not in '"\\' else _escaped(sign)
        for sign in text
    ]
    return f'"{"".join(signs)}"'


def _escaped(sign: str) -> str:
    return f"\\U{ord(sign):08x}"
