"""Strict JSON documents, readers with limits, and outputs that appear whole or not at all."""

from photomask.documents.document import (
    Document,
    SealedDocument,
    aligned,
    describe_validation,
)
from photomask.documents.reading import (
    DOCUMENT_BYTES,
    TENSOR_BYTES,
    check_regular,
    file_of_name,
    is_file,
    is_folder,
    opened,
    read_bytes,
    read_text,
    sha256_of,
)
from photomask.documents.record import RECORD_FILE, OutputRecord, refuse_foreign
from photomask.documents.writing import write_file, written_whole
from photomask.documents.yaml import quoted_yaml

__all__ = [
    "DOCUMENT_BYTES",
    "RECORD_FILE",
    "TENSOR_BYTES",
    "Document",
    "OutputRecord",
    "SealedDocument",
    "aligned",
    "check_regular",
    "describe_validation",
    "file_of_name",
    "is_file",
    "is_folder",
    "opened",
    "quoted_yaml",
    "read_bytes",
    "read_text",
    "refuse_foreign",
    "sha256_of",
    "write_file",
    "written_whole",
]
