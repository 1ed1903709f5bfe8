"""A plan beside the model that it was made for: answers, significance, density, pictures."""

from photomask.attention.verification.comparison import compare_reports
from photomask.attention.verification.documents import CurvePoint, TaskResult
from photomask.attention.verification.html import write_html
from photomask.attention.verification.report import AttentionReport
from photomask.attention.verification.verification import verify

__all__ = [
    "AttentionReport",
    "CurvePoint",
    "TaskResult",
    "compare_reports",
    "verify",
    "write_html",
]
