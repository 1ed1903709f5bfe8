"""Writes a verification report as one self-contained page."""

from pathlib import Path

from photomask.attention.verification.pictures import figures_of
from photomask.attention.verification.report import AttentionReport
from photomask.report import write_page


def write_html(report: AttentionReport, path: str | Path) -> None:
    """Writes the page that tells a person what a plan does to a model, with pictures.

    The file holds everything it shows and appears whole or not at all.

    Args:
        report: what `verify` returned.
        path: where to; an earlier file is replaced.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed.
        ExportError: the disk refused the file.
    """
    write_page(report.page(figures_of(report)), Path(path))
