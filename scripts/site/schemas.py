"""Hook of mkdocs: publishes the JSON schema of every document that is a file of its own.

A document is a class that derives from `photomask.documents.Document`. Those with a field
`schema_version` are files; a few files without one are named here.
"""

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

from addresses import ROOT, URLS
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from photomask.documents import Document

PAGE = "reference/schemas.md"
PACKAGE = ROOT / "src" / "photomask"
DEFINED = re.compile(r"^class \w+\(.*Document\):", re.MULTILINE)
"""What a module that defines a document holds; others may need packages that are not installed."""
FOLDER = "reference/schemas"
UNVERSIONED = {"CheckReport", "Preprocessing", "_Line"}
"""Classes of files that have no `schema_version`."""
NAMES = {
    "_Header": "attention-statistics",
    "_Line": "prompt",
    "_SavedPlan": "head-plan",
    "CheckpointDocument": "training-checkpoint",
    "ModelDocument": "prepared-model",
    "Report": "verification-report",
    "RunDocument": "reconstruction-checkpoint",
    "Thresholds": "verification-thresholds",
}
"""Classes whose schema is not called what they are called."""
INSIDE = {"HeadPlan"}
"""Classes with a `schema_version` that stand in a file only as a part of it."""


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the schemas, and the page that lists them."""
    documents = published()
    for name, document in documents.items():
        text = json.dumps(schema_of(name, document), indent=1, ensure_ascii=False) + "\n"
        files.append(File.generated(config, f"{FOLDER}/{name}.json", content=text))
    files.append(File.generated(config, PAGE, content=_page(documents)))


def published() -> dict[str, type[Document]]:
    """Returns the documents that are files, by the names of their schemas."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if DEFINED.search(path.read_text(encoding="utf-8")):
            importlib.import_module(
                ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            )
    found = {
        _name(document): document
        for document in _below(Document)
        if document.__name__ not in INSIDE
        and ("schema_version" in document.model_fields or document.__name__ in UNVERSIONED)
    }
    return dict(sorted(found.items()))


def _below(document: type[Document]) -> Iterator[type[Document]]:
    """Yields the package's classes that derive from one, however far."""
    for each in document.__subclasses__():
        if each.__module__.startswith("photomask."):
            yield each
            yield from _below(each)


def _name(document: type[Document]) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", document.__name__.removesuffix("Document"))
    return NAMES.get(document.__name__, words.lower())


def schema_of(name: str, document: type[Document]) -> dict[str, Any]:
    """Returns what is published of a document: its schema, with the address it stands at."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{URLS['Documentation']}{FOLDER}/{name}.json",
        **document.model_json_schema(),
    }


def version_of(document: type[Document]) -> str:
    """Returns the newest version of a document, or a dash if it has none."""
    field = document.model_fields.get("schema_version")
    return str(field.default) if field is not None else "–"


def _page(documents: dict[str, type[Document]]) -> str:
    """Returns the page that lists the schemas."""
    lines = [
        "# JSON schemas",
        "",
        "Every JSON document that Photomask reads or writes as a file has a schema "
        "([draft 2020-12](https://json-schema.org/draft/2020-12)). The schemas are made from the "
        "classes that read the files, so an editor can check a recipe or a target while you write "
        "it. Without this site, the schema of a class is `Target.model_json_schema()`. "
        "[File formats](files.md) says which file holds which document.",
        "",
        "A schema holds what can be said field by field. When a file is read, more is checked: "
        "that the fields fit each other, and that hashes are right.",
        "",
        "| Schema | Version | What the document is | Class |",
        "|---|---|---|---|",
    ]
    for name, document in documents.items():
        summary = (document.__doc__ or "").partition("\n\n")[0]
        where = f"`{document.__module__}.{document.__name__}`"
        cells = (f"[{name}](schemas/{name}.json)", version_of(document), summary, where)
        lines.append(f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |")
    return "\n".join([*lines, ""])
