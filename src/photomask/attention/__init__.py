"""Sparse prefill for vision-language models, by a plan that is decided from data.

`calibrate` measures where the attention heads of a model look. `plan` decides what each head may
see. `convert` makes the prefill follow the plan. `verify` compares the answers of the converted
model with those of the original.
"""

from photomask.attention.calibration import calibrate
from photomask.attention.conversion import convert, is_sparse, unconvert
from photomask.attention.encoding import EncodedPrompt, encode
from photomask.attention.families import FAMILIES, Family, family_of, layout_of
from photomask.attention.head_plan import HeadPlan
from photomask.attention.identity import ModelIdentity, identify
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, Pattern, SinkRule
from photomask.attention.planning import (
    DEFAULT_BUDGET,
    SweepPoint,
    density,
    lost_output,
    plan,
    plan_by_votes,
    sweep,
)
from photomask.attention.plugin import prompt_layout
from photomask.attention.prefills import Prefill, PrefilledPrompt, last_prefill
from photomask.attention.statistics import AttentionStatistics
from photomask.attention.verification import (
    AttentionReport,
    CurvePoint,
    TaskResult,
    compare_reports,
    verify,
    write_html,
)

__all__ = [
    "DEFAULT_BUDGET",
    "FAMILIES",
    "AttentionReport",
    "AttentionStatistics",
    "CurvePoint",
    "DenseRule",
    "EncodedPrompt",
    "Family",
    "HeadPlan",
    "ModelIdentity",
    "Pattern",
    "Prefill",
    "PrefilledPrompt",
    "PromptLayout",
    "SinkRule",
    "SweepPoint",
    "TaskResult",
    "TokenKind",
    "calibrate",
    "compare_reports",
    "convert",
    "density",
    "encode",
    "family_of",
    "identify",
    "is_sparse",
    "last_prefill",
    "layout_of",
    "lost_output",
    "plan",
    "plan_by_votes",
    "prompt_layout",
    "sweep",
    "unconvert",
    "verify",
    "write_html",
]
