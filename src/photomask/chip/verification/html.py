"""Writes a verification report as one self-contained page."""

from dataclasses import replace
from pathlib import Path

from photomask.chip.cost.estimates import HardwareReport
from photomask.chip.verification.hardware_section import hardware_sections
from photomask.chip.verification.pictures import figures_of
from photomask.chip.verification.report import Report
from photomask.errors import UsageError
from photomask.report import write_page


def write_html(report: Report, path: str | Path, *, hardware: HardwareReport | None = None) -> None:
    """Writes the page that tells a person what verification found, with pictures.

    The file holds everything it shows and appears whole or not at all.

    Args:
        report: what `verify` returned.
        path: where to; an earlier file is replaced.
        hardware: what the same program costs on an accelerator, as `estimate` returned it; by
            default what the report itself holds, where `verify` was given an accelerator.

    Raises:
        UsageError: `hardware` is of another program.
        MissingDependencyError: jinja2 or matplotlib is not installed.
        ExportError: the disk refused the file.
    """
    page = report.page(figures_of(report))
    hardware = hardware or report.hardware
    sections = list(page.sections)
    if hardware is not None:
        if hardware.program_sha256 != report.program_sha256:
            raise UsageError(
                f"the estimate is of program {hardware.program_sha256[:16]}, the report of "
                f"{report.program_sha256[:16]}; estimate the program that was verified"
            )
        sections += hardware_sections(hardware)
    origin = report.origin()
    sections += [origin] if origin is not None else []
    write_page(replace(page, sections=sections), Path(path))
