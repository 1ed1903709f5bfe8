"""The models of lmms-eval, each with a head plan.

lmms-eval asks this module for a class by its name, such as `qwen2_5_vl_chat`. The class is made
then, so that only this model and what it needs is imported.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from photomask.attention import HeadPlan, convert
from photomask.dependencies import OptionalPackage
from photomask.errors import UsageError
from photomask.lmms_eval.registration import PREFIX, WRAPPERS


class WithPlan:
    """Converts the model of a wrapper of lmms-eval as soon as the wrapper has loaded it.

    A wrapper loads its model in its constructor, assigns it to `_model`, and only then hands it to
    Accelerate, which places it on the GPU of its process. The assignment is where the model is
    converted, so every process runs the plan.

    Attributes:
        plan: the plan.
    """

    def __init__(self, *, plan: Any = None, plan_revision: Any = None, **arguments: Any):
        """Loads the plan, and then the model.

        Args:
            plan: a plan file, a folder with a plan, or a name on the hub.
            plan_revision: the branch, tag or commit of a plan on the hub.
            **arguments: the arguments of the wrapper.

        Raises:
            UsageError: there is no plan, or Accelerate has replaced the converted model.
            DocumentError: the plan cannot be read.
            PlanError: the plan belongs to another model.
        """
        if plan is None:
            name = type(self).__name__
            raise UsageError(
                f"the model {PREFIX}{name} needs a plan: give --model_args pretrained=…,plan=FILE; "
                f"the dense model is lmms-eval's own --model {name}"
            )
        revision = None if plan_revision is None else str(plan_revision)
        self.plan = HeadPlan.from_pretrained(str(plan), revision=revision)
        super().__init__(**arguments)
        if self._model is not self._converted:
            raise UsageError(
                f"Accelerate has replaced the converted model by a {type(self._model).__name__}; "
                "a plan runs on one GPU or with one process for each GPU, but not with FSDP or "
                "DeepSpeed, which split the weights"
            )

    @property
    def _model(self) -> Any:
        """The model that answers."""
        return self._running

    @_model.setter
    def _model(self, model: Any) -> None:
        if not hasattr(self, "_converted"):
            model = convert(model, self.plan)
            self._converted = model
        self._running = model


def __getattr__(name: str) -> type:
    """Returns the class of a model, such as `qwen2_5_vl_chat`.

    Raises:
        AttributeError: there is no such model.
    """
    wrapper, _, kind = name.rpartition("_")
    if kind not in WRAPPERS.get(wrapper, ()):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _class_of(wrapper, kind)


@cache
def _class_of(wrapper: str, kind: str) -> type:
    """Returns the class of a model of lmms-eval with a plan.

    Raises:
        MissingDependencyError: lmms-eval is not installed.
        UsageError: this version of lmms-eval has no such model.
    """
    with OptionalPackage("lmms-eval", "'photomask[lmms-eval]'", f"the model {PREFIX}{wrapper}"):
        models = import_module("lmms_eval.models")
    is_simple = kind == "simple"
    dense = models.get_model(wrapper, force_simple=is_simple)
    if dense.is_simple is not is_simple:
        raise UsageError(
            f"this version of lmms-eval has no {kind} model {wrapper!r}; Photomask is tested with "
            "lmms-eval 0.7.3"
        )
    return type(wrapper, (WithPlan, dense), {"__doc__": dense.__doc__, "__module__": __name__})
