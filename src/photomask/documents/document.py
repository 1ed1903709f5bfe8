"""Strict, versioned JSON documents: targets, recipes, programs, manifests, reports.

A document refuses unknown fields, does not convert types silently, and never changes after it is
made.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from photomask.errors import DocumentError

MOST_VALUES = 3_000_000
"""The largest number of JSON values of a document. A program of a language model with 7 billion
parameters has about half as many. With this limit, refusing a document in which every value is
wrong takes less than 1 GB of memory."""

MOST_PROBLEMS = 10_000
"""The largest number of wrong fields with which an error names the first ones. To name one of
millions would take gigabytes of memory."""


class Document(BaseModel):
    """The base class of everything that is saved as JSON. It is frozen, typed and strict."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )

    @field_validator("schema_version", mode="before", check_fields=False)
    @classmethod
    def _is_a_version(cls, version: object) -> object:
        if isinstance(version, bool | float):  # both equal 1 where a literal 1 is expected
            raise ValueError(f"{version} is not a version; expected a whole number")
        return version

    @classmethod
    def parse(cls, text: str | bytes, origin: str) -> Self:
        """Reads a document.

        Args:
            text: the JSON text.
            origin: the place that the text came from. Errors name it.

        Raises:
            DocumentError: the text is not JSON, a field is missing, unknown, there twice or of the
                wrong type, or there are more than `MOST_VALUES` values.
        """
        content = text.encode("utf-8", "replace") if isinstance(text, str) else text
        values = sum(content.count(mark) for mark in (b",", b":", b"[", b"{"))
        if values > MOST_VALUES:
            raise DocumentError(
                f"{origin}: it holds up to {values:,} JSON values, but at most {MOST_VALUES:,} "
                "are read"
            )
        try:
            found = cls.model_validate_json(text)
            # If a field is there twice, the validator silently takes the last value.
            json.loads(text, object_pairs_hook=_refuse_twice, parse_int=len, parse_float=len)
        except ValidationError as error:
            raise DocumentError(f"{origin}: {describe_validation(error)}") from error
        except _TwiceError as error:
            raise DocumentError(f"{origin}: {error}") from None
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            raise DocumentError(f"{origin}: not a JSON document: {error}") from error
        return found

    def render(self) -> str:
        """Returns the document as indented JSON that ends with a newline."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


class _TwiceError(Exception):
    """The error that a field is there twice."""


def _refuse_twice(fields: list[tuple[str, object]]) -> None:
    """Checks the fields of one object of a document, and returns None to save memory.

    Raises:
        _TwiceError: a field is there twice. The error names the field.
    """
    if len({name for name, _ in fields}) < len(fields):
        counts = Counter(name for name, _ in fields)
        raise _TwiceError(f"the field {counts.most_common(1)[0][0]!r} is there twice")


class SealedDocument(Document):
    """A document that holds its own hash, so that an edited or damaged document is refused.

    Attributes:
        content_sha256: the SHA-256 of this document with this field empty, as JSON without spaces
            and with sorted keys.
    """

    content_sha256: str = ""

    def sealed(self) -> Self:
        """Returns the document with its content hash."""
        return self.model_copy(update={"content_sha256": self.computed_sha256()})

    def computed_sha256(self) -> str:
        """Returns the hash that `content_sha256` should hold."""
        body = self.model_dump(mode="json") | {"content_sha256": ""}
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def parse(cls, text: str | bytes, origin: str) -> Self:
        """Reads a document and checks its hash.

        Raises:
            DocumentError: the document is not valid, or it was altered after it was written.
        """
        found = super().parse(text, origin)
        if found.content_sha256 != found.computed_sha256():
            raise DocumentError(
                f"{origin}: altered: the document hashes to {found.computed_sha256()[:12]}…, but "
                f"its field content_sha256 says {found.content_sha256[:12]!r}; write it again"
            )
        return found


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns one line for each row, with aligned columns, for tables that `print` shows."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def describe_validation(error: ValidationError) -> str:
    """Returns a line that says which fields are wrong and what is wrong with them."""
    count = error.error_count()
    if count > MOST_PROBLEMS:
        return f"{count:,} fields are missing, unknown or of the wrong type"
    problems = [
        f"field {'.'.join(map(str, problem['loc'])) or '(document)'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    return "; ".join(problems[:8]) + ("; …" if count > 8 else "")
