"""Strict, versioned JSON documents: targets, recipes, programs, manifests, reports.

A document refuses unknown fields, converts no types silently and never changes after it is made.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from photomask.errors import DocumentError

MOST_VALUES = 3_000_000
"""JSON values of a document. A program of a 7-billion-parameter language model has about half as
many; a document in which every value is wrong then needs less than 1 GB to be refused."""

MOST_PROBLEMS = 10_000
"""Wrong fields up to which the first ones are named; naming one of millions costs gigabytes."""


class Document(BaseModel):
    """Base of everything that is saved as JSON: frozen, typed, no unknown fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )

    @field_validator("schema_version", mode="before", check_fields=False)
    @classmethod
    def _is_a_version(cls, version: object) -> object:
        if isinstance(version, bool | float):  # both equal 1 where a literal 1 is expected
            raise ValueError(f"{version} is no version")
        return version

    @classmethod
    def parse(cls, text: str | bytes, origin: str) -> Self:
        """Reads a document.

        Args:
            text: JSON.
            origin: where the text came from; named in errors.

        Raises:
            DocumentError: not JSON, a field missing, unknown, there twice or of the wrong type, or
                more than `MOST_VALUES` values.
        """
        content = text.encode("utf-8", "replace") if isinstance(text, str) else text
        values = sum(content.count(mark) for mark in (b",", b":", b"[", b"{"))
        if values > MOST_VALUES:
            raise DocumentError(
                f"{origin}: holds up to {values:,} JSON values, at most {MOST_VALUES:,} are read"
            )
        try:
            found = cls.model_validate_json(text)
            # The validator takes the last of two values of one field and does not tell.
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
    """A field is there twice."""


def _refuse_twice(fields: list[tuple[str, object]]) -> None:
    """Stands in for each object of a document; keeps nothing of it.

    Raises:
        _TwiceError: names the field that is there twice.
    """
    if len({name for name, _ in fields}) < len(fields):
        counts = Counter(name for name, _ in fields)
        raise _TwiceError(f"the field {counts.most_common(1)[0][0]!r} is there twice")


class SealedDocument(Document):
    """A document that holds its own hash, so that an edited or damaged one is refused.

    Attributes:
        content_sha256: of this document, this field empty, as JSON without spaces and with sorted
            keys.
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
            DocumentError: as for other documents; or it was altered after it was written.
        """
        found = super().parse(text, origin)
        if found.content_sha256 != found.computed_sha256():
            raise DocumentError(
                f"{origin}: altered: the document hashes to {found.computed_sha256()[:12]}…, its "
                f"field content_sha256 says {found.content_sha256[:12]!r}"
            )
        return found


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns one line a row, columns padded to line up, for what `print` shows as a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def describe_validation(error: ValidationError) -> str:
    """Says in one line which fields are wrong and what was found there."""
    count = error.error_count()
    if count > MOST_PROBLEMS:
        return f"{count:,} fields are missing, unknown or of the wrong type"
    problems = [
        f"field {'.'.join(map(str, problem['loc'])) or '(document)'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    return "; ".join(problems[:8]) + ("; …" if count > 8 else "")
