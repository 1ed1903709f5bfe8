"""The files of an RTL export: their hashes, and a check of which files have changed."""

from pathlib import Path

from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER
from photomask.chip.forms.file_records import FileRecord
from photomask.chip.forms.rtl.design import DESIGN_FILE, RtlDesign
from photomask.documents import is_file, sha256_of
from photomask.errors import DocumentError

RTL_FOLDER = "rtl"
PROGRAM_FOLDER = "program"
INPUTS_FOLDER = "inputs"
GOLDEN_FOLDER = "golden"
COCOTB_FILE = "test_design.py"
DATA_FOLDERS = (PROGRAM_FOLDER, INPUTS_FOLDER, GOLDEN_FOLDER, CONFORMANCE_FOLDER)
"""The folders that a design is run with and compared with. Only the export writes to them."""
SHOWN_FILES = 8
"""An error message lists at most this many changed files."""


def file_records(folder: Path) -> tuple[FileRecord, ...]:
    """Returns the size and hash of every file of a folder except `design.json` at its top."""
    return tuple(
        FileRecord.of(folder, path.relative_to(folder).as_posix())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / DESIGN_FILE
    )


def changed_files(folder: Path, design: RtlDesign) -> tuple[str, ...]:
    """Returns the files of an export that have changed, each with what happened to it.

    SystemVerilog files may change, because another array may stand in the export. The README and
    the Makefile may change, too.

    Raises:
        DocumentError: a golden vector, memory image, descriptor table, initial memory content or
            conformance vector has changed. A comparison with it would say nothing about the design.
    """
    changes: dict[str, str] = {}
    for record in design.files:
        path = folder / record.path
        if not is_file(path):
            changes[record.path] = "missing"
        elif sha256_of(path) != record.sha256:
            changes[record.path] = "changed"
    known = {record.path for record in design.files}
    for path in sorted((folder / RTL_FOLDER).glob("*.sv")) if design.files else []:
        name = path.relative_to(folder).as_posix()
        if name not in known:
            changes[name] = "added"
    data = [name for name in changes if name.partition("/")[0] in DATA_FOLDERS]
    if data:
        named = ", ".join(f"{name} ({changes[name]})" for name in data[:SHOWN_FILES])
        more = f" and {len(data) - SHOWN_FILES} more" if len(data) > SHOWN_FILES else ""
        raise DocumentError(
            f"{folder}: files that the design is compared with are not as they were exported: "
            f"{named}{more}. This says nothing about the design; restore the files, or export the "
            "program again"
        )
    return tuple(f"{name} ({change})" for name, change in changes.items())
