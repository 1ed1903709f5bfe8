"""The plug-in for vLLM: an attention back end that follows a head plan in prefill.

vLLM loads it by the entry point `vllm.general_plugins`. All decisions are in modules that need
PyTorch only; `backend` holds the thin subclasses of vLLM's own classes.
"""

from photomask.attention.vllm.ranks import plan_of_rank
from photomask.attention.vllm.registration import TESTED_VERSIONS, register
from photomask.attention.vllm.serve_check import ServingCheck, ServingFact, check_serving
from photomask.attention.vllm.serving import PLAN_FILE
from photomask.attention.vllm.spans import check_prompt, layout_of_spans

__all__ = [
    "PLAN_FILE",
    "TESTED_VERSIONS",
    "ServingCheck",
    "ServingFact",
    "check_prompt",
    "check_serving",
    "layout_of_spans",
    "plan_of_rank",
    "register",
]
