"""Says whether the installed vLLM, a model and a plan fit, before a server starts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from photomask.attention.families import Family, family_of
from photomask.attention.head_plan import HeadPlan
from photomask.attention.vllm.ranks import plan_of_rank
from photomask.attention.vllm.registration import TESTED_VERSIONS, check_version
from photomask.attention.vllm.serving import CONFIGURATION_KEY, NAME
from photomask.errors import PhotomaskError, PlanError, UsageError
from photomask.report import Shown, Table

MOST_RANKS = 16
"""The largest tensor parallel size that a check names."""


@dataclass(frozen=True)
class ServingFact:
    """One thing that must fit.

    Attributes:
        name: what must fit.
        found: what was found.
        problem: why it does not fit, and what to do; empty if it fits.
    """

    name: str
    found: str
    problem: str = ""


@dataclass(frozen=True)
class ServingCheck(Shown):
    """Whether vLLM, a model and a plan fit. `print(check)` shows it.

    Attributes:
        facts: what was checked.
        command: the command that starts the server.
    """

    facts: tuple[ServingFact, ...]
    command: str

    @property
    def fits(self) -> bool:
        """Whether nothing is wrong."""
        return not any(fact.problem for fact in self.facts)

    def shown(self) -> Table:
        """Returns a row for each fact, and the command if everything fits."""
        rows = [("", "found", "fits")]
        rows += [(fact.name, fact.found, "no" if fact.problem else "yes") for fact in self.facts]
        problems = [f"{fact.name}: {fact.problem}" for fact in self.facts if fact.problem]
        return Table(
            "vLLM, model and plan", rows, problems or ["start the server with", self.command]
        )


def check_serving(model: Any, plan: HeadPlan, name: str, plan_file: Path) -> ServingCheck:
    """Checks that a server of the installed vLLM can run a model by a plan.

    The server itself compares the architecture with the plan, but not the weights, because vLLM
    fuses and divides them. This function compares both.

    Args:
        model: the model, from transformers, with its weights.
        plan: the plan.
        name: the folder of the model, or its id on the hub.
        plan_file: the file of the plan.

    Raises:
        UsageError: the model has no text tower.
    """
    facts = (_vllm(), _family(model), _identity(model, plan), _ranks(plan))
    return ServingCheck(facts, serving_command(name, plan_file, family_or_none(model)))


def serving_command(name: str, plan_file: Path, family: Family | None) -> str:
    """Returns the command that serves a model by a plan.

    Args:
        name: the folder of the model, or its id on the hub.
        plan_file: the file of the plan.
        family: the family of the model, if it is known.
    """
    settings = json.dumps({CONFIGURATION_KEY: {"plan": str(plan_file.absolute())}})
    command = ["vllm", "serve", name, "--attention-backend", NAME, "--additional-config", settings]
    command += ["--hf-overrides", '{"is_mm_prefix_lm": true}']
    if family is not None and family.bidirectional:
        command += ["--no-enable-prefix-caching", "--no-enable-chunked-prefill"]
    return shlex.join(command)


def family_or_none(model: Any) -> Family | None:
    """Returns the family of a model, or None if no family has its type."""
    try:
        return family_of(model.config)
    except UsageError:
        return None


def _vllm() -> ServingFact:
    """Checks the version of vLLM, without importing it."""
    try:
        version = metadata.version("vllm")
    except metadata.PackageNotFoundError:
        wanted = " or ".join(TESTED_VERSIONS)
        return ServingFact(
            "vLLM", "none", f"it is not installed; pip install 'photomask[vllm]' ({wanted})"
        )
    return ServingFact("vLLM", version, _problem(lambda: check_version(version)))


def _family(model: Any) -> ServingFact:
    """Checks that the family of the model is known."""
    found = family_or_none(model)
    name = found.name if found is not None else str(model.config.model_type)
    return ServingFact("family", name, _problem(lambda: family_of(model.config)))


def _identity(model: Any, plan: HeadPlan) -> ServingFact:
    """Checks that architecture and weights are those of the plan."""
    found = f"weights {plan.model.fingerprint[:12]} of {plan.model.model_type}"
    return ServingFact("plan", found, _problem(lambda: plan.check(model)))


def _ranks(plan: HeadPlan) -> ServingFact:
    """Says over how many GPUs the heads of a layer can be divided."""
    sizes = []
    for ranks in range(1, MOST_RANKS + 1):
        try:
            plan_of_rank(plan, 0, ranks)
        except PlanError:
            continue
        sizes.append(str(ranks))
    return ServingFact("tensor parallel size", ", ".join(sizes))


def _problem(check: Callable[[], object]) -> str:
    """Returns the message of the error that a check raises, or an empty text."""
    try:
        check()
    except PhotomaskError as error:
        return str(error)
    return ""
