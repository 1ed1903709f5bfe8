"""What every report is made of: measures, checks against thresholds, and pages.

A pipeline measures with `metrics`, judges with `Check`, and describes its findings as a `Page`,
which is shown in a terminal or written as one self-contained HTML file.
"""

from photomask.report.anchors import row_anchor, section_anchor
from photomask.report.checks import Check, Verdict, check_section, joint_verdict, verdict_cell
from photomask.report.comparison import (
    Comparison,
    Difference,
    DifferenceGroup,
    check_differences,
    text_differences,
)
from photomask.report.csv_files import write_csv
from photomask.report.drawing import Drawing, check_drawing, plain_axes
from photomask.report.html import write_page
from photomask.report.metrics import SQNR_LIMIT_DB, NoiseMeter, Top1Meter
from photomask.report.order import check_order, in_order
from photomask.report.page import Cell, Column, Figure, Fold, Page, Row, Section, Tone
from photomask.report.progress import Progress, show_progress, without_progress
from photomask.report.run_record import RunRecord
from photomask.report.svg import Ink
from photomask.report.table import Shown, Table, table_of_fields
from photomask.report.terminal import print_page, render_text

__all__ = [
    "SQNR_LIMIT_DB",
    "Cell",
    "Check",
    "Column",
    "Comparison",
    "Difference",
    "DifferenceGroup",
    "Drawing",
    "Figure",
    "Fold",
    "Ink",
    "NoiseMeter",
    "Page",
    "Progress",
    "Row",
    "RunRecord",
    "Section",
    "Shown",
    "Table",
    "Tone",
    "Top1Meter",
    "Verdict",
    "check_differences",
    "check_drawing",
    "check_order",
    "check_section",
    "in_order",
    "joint_verdict",
    "plain_axes",
    "print_page",
    "render_text",
    "row_anchor",
    "section_anchor",
    "show_progress",
    "table_of_fields",
    "text_differences",
    "verdict_cell",
    "without_progress",
    "write_csv",
    "write_page",
]
