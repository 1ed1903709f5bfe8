"""A plan beside the model that it was made for: answers, significance, density, pictures."""

from photomask.attention.verification.documents import AttentionReport, CurvePoint, TaskResult
from photomask.attention.verification.html import write_html
from photomask.attention.verification.presentation import page_of
from photomask.attention.verification.verification import verify

__all__ = [
    "AttentionReport",
    "CurvePoint",
    "TaskResult",
    "page_of",
    "verify",
    "write_html",
]
