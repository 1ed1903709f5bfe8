"""Checks the configuration when a server starts, and every request before it is scheduled.

A worker of vLLM cannot refuse a single request: an error in it ends the server. The front end can.
It has the token ids and the image spans of a request together, so the check stands there. vLLM has
no hook for it, therefore two methods of its `InputProcessor` are wrapped.
"""

from __future__ import annotations

import functools
from typing import Any

from photomask.attention.vllm.serving import (
    BACKEND,
    CONFIGURATION_KEY,
    check_architecture,
    check_server,
    find_plan,
    is_configured,
)
from photomask.attention.vllm.spans import Span, check_prompt
from photomask.errors import LayoutError, UsageError

_MARK = "_checks_requests_for_photomask"


def guard_requests(processor_class: Any) -> None:
    """Makes a class check what it constructs and what it processes. Twice does no more than once.

    Args:
        processor_class: vLLM's `InputProcessor`, or a class with its `__init__` and
            `process_inputs`.
    """
    if getattr(processor_class, _MARK, False):
        return
    construct, process = processor_class.__init__, processor_class.process_inputs

    @functools.wraps(construct)
    def check_and_construct(self: Any, vllm_config: Any, *args: Any, **options: Any) -> None:
        self.serves_plan = check_start(vllm_config)
        construct(self, vllm_config, *args, **options)

    @functools.wraps(process)
    def process_and_check(self: Any, *args: Any, **options: Any) -> Any:
        request = process(self, *args, **options)
        if self.serves_plan:
            check_request(self.vllm_config.model_config, request)
        return request

    processor_class.__init__ = check_and_construct
    processor_class.process_inputs = process_and_check
    setattr(processor_class, _MARK, True)


def check_start(vllm_config: Any) -> bool:
    """Checks the configuration of a server, and returns whether it serves a head plan.

    Args:
        vllm_config: the `VllmConfig`.

    Raises:
        UsageError: a plan is configured, but another attention back end is chosen, or the
            configuration does something that a plan cannot follow.
        PlanError: there is no plan, or it belongs to another architecture.
        DocumentError: the settings or the plan are not valid.
    """
    chosen = vllm_config.attention_config.backend
    if chosen is None or not chosen.is_overridden() or chosen.get_path() != BACKEND:
        if is_configured(vllm_config.additional_config):
            raise UsageError(
                f"--additional-config names a head plan under {CONFIGURATION_KEY!r}, but the "
                f"attention back end is {getattr(chosen, 'name', 'chosen by vLLM')}, which would "
                "ignore it; add --attention-backend CUSTOM"
            )
        return False
    model = vllm_config.model_config
    plan = find_plan(vllm_config.additional_config, model.model)
    check_architecture(plan, model.hf_config)
    check_server(vllm_config)
    return True


def check_request(model_config: Any, request: Any) -> None:
    """Checks that the layout of a request is certain.

    Args:
        model_config: vLLM's `ModelConfig`.
        request: vLLM's `EngineCoreRequest`.

    Raises:
        VLLMValidationError: it is not. vLLM answers this request with the status 400.
    """
    from vllm.exceptions import (  # pyright: ignore[reportMissingImports]
        VLLMValidationError,
    )

    spans = spans_of(request.mm_features or ())
    try:
        if request.prompt_token_ids is None or (request.resumable and spans):
            if not spans:
                return
            raise LayoutError(
                "a request with images must come with all of its token ids at once; embeddings and "
                "streamed inputs are not supported with a head plan"
            )
        window = getattr(model_config.hf_text_config, "sliding_window", None)
        check_prompt(model_config.hf_config, request.prompt_token_ids, spans, window)
    except LayoutError as error:
        raise VLLMValidationError(f"LayoutError: {error}") from error


def spans_of(features: Any) -> list[Span]:
    """Returns the image spans of a request, in ascending order.

    Args:
        features: the `MultiModalFeatureSpec`s of the request.
    """
    ranges = [each for feature in features for each in feature.mm_position.extract_embeds_range()]
    return sorted((first, last + 1) for first, last in ranges)
