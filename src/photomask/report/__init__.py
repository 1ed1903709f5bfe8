"""What every report is made of: measures, checks against thresholds, and pages.

A pipeline measures with `metrics`, judges with `Check`, and describes its findings as a `Page`,
which is shown in a terminal or written as one self-contained HTML file.
"""

from photomask.report.checks import Check, Verdict, check_section, joint_verdict
from photomask.report.drawing import Drawing, Ink, check_drawing, plain_axes
from photomask.report.html import write_page
from photomask.report.metrics import SQNR_LIMIT_DB, NoiseMeter, Top1Meter
from photomask.report.order import check_order, in_order
from photomask.report.page import Cell, Column, Figure, Page, Row, Section, Tone
from photomask.report.progress import Progress, show_progress, without_progress
from photomask.report.table import Shown, Table, table_of_fields
from photomask.report.terminal import print_page, render_text

__all__ = [
    "SQNR_LIMIT_DB",
    "Cell",
    "Check",
    "Column",
    "Drawing",
    "Figure",
    "Ink",
    "NoiseMeter",
    "Page",
    "Progress",
    "Row",
    "Section",
    "Shown",
    "Table",
    "Tone",
    "Top1Meter",
    "Verdict",
    "check_drawing",
    "check_order",
    "check_section",
    "in_order",
    "joint_verdict",
    "plain_axes",
    "print_page",
    "render_text",
    "show_progress",
    "table_of_fields",
    "without_progress",
    "write_page",
]
