"""What a plan remembers: how it was decided, on which prompts, and with which versions."""

from __future__ import annotations

import datetime
from importlib import metadata
from typing import Annotated, Literal

import torch
from pydantic import Field

import photomask
from photomask.documents import Document

_Fraction = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0)]


class HandDecision(Document):
    """The record that somebody chose the patterns by hand."""

    rule: Literal["hand"] = "hand"

    def describe(self) -> str:
        """Returns the rule in one line."""
        return "chosen by hand"


class BudgetDecision(Document):
    """The record that `plan` decided the patterns within a budget.

    Attributes:
        budget: the limit of the lost output.
        lost_output: the lost output that is predicted for the plan on the calibration prompts.
    """

    rule: Literal["budget"] = "budget"
    budget: _Fraction
    lost_output: _Fraction

    def describe(self) -> str:
        """Returns the rule in one line."""
        return f"budget {self.budget:g} of lost output, {self.lost_output:.4g} spent"


class VoteDecision(Document):
    """The record that prompts voted for the cheapest pattern that keeps enough attention.

    Attributes:
        alpha: the share of the attention mass that a pattern may lose, for the first and the last
            layer. It changes linearly with depth between them.
        gamma_sink: the fraction of the prompts for which the sink pattern must suffice.
        gamma_intra_image: the same fraction for the intra-image pattern.
        gamma_both: the same fraction for the pattern with both.
    """

    rule: Literal["votes"] = "votes"
    alpha: tuple[_Fraction, _Fraction]
    gamma_sink: _Fraction
    gamma_intra_image: _Fraction
    gamma_both: _Fraction

    def describe(self) -> str:
        """Returns the rule in one line."""
        first, last = self.alpha
        return (
            f"votes of prompts, alpha {first:g} to {last:g}, gamma sink {self.gamma_sink:g}, "
            f"intra-image {self.gamma_intra_image:g}, both {self.gamma_both:g}"
        )


class PatternRecall(Document):
    """The mean attention mass that each sparse pattern would keep.

    The mean is taken over layers, heads and prompts.
    """

    sink: _Fraction
    intra_image: _Fraction
    intra_image_sink: _Fraction


class CalibrationSummary(Document):
    """The calibration prompts of a plan, and the figures of the plan on them.

    Attributes:
        prompts: the number of prompts that were measured.
        fewest_images: the number of images of the prompt with the fewest.
        most_images: the number of images of the prompt with the most.
        tasks: the number of prompts of each task.
        density: the share of the dense model's pairs of query and key that the plan visits.
        recall: the attention mass that each sparse pattern would keep.
        statistics_sha256: the content hash of the statistics.
    """

    prompts: Annotated[int, Field(ge=1)]
    fewest_images: _Count
    most_images: _Count
    tasks: dict[str, _Count]
    density: _Fraction
    recall: PatternRecall
    statistics_sha256: str


class Provenance(Document):
    """The versions and the date with which a plan was made.

    It is information for people. The content hash of the plan does not cover it.
    """

    photomask: str
    torch: str
    transformers: str | None
    date: str

    @classmethod
    def here(cls) -> Provenance:
        """Returns the installed versions and today's date."""
        try:
            transformers = metadata.version("transformers")
        except metadata.PackageNotFoundError:
            transformers = None
        return cls(
            photomask=photomask.__version__,
            torch=str(torch.__version__),
            transformers=transformers,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )


AnyDecision = HandDecision | BudgetDecision | VoteDecision
"""How a plan was decided."""
