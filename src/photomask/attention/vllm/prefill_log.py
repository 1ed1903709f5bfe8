"""Reports what each prefill with images computed, by log lines and Prometheus counters."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from photomask.attention.head_plan import HeadPlan
from photomask.attention.patterns import DenseRule, Pattern
from photomask.attention.prefills import count_pairs
from photomask.attention.vllm.steps import ImageRequest

_LOG = logging.getLogger("photomask.attention.vllm")

COUNTERS = {
    "prefills": "Chunks of prompts with tokens of images that followed a head plan.",
    "visible_pairs": "Pairs of query and key that the heads saw in these chunks.",
    "causal_pairs": "Pairs of query and key that dense heads would have seen in these chunks.",
}
"""The counters and what they count. Their names begin with `photomask_` and end with `_total`."""


class PrefillLog:
    """Reports chunks of prompts that follow a plan."""

    def __init__(self, plan: HeadPlan, rules: Mapping[int, DenseRule]):
        """Prepares the reports of some layers.

        Args:
            plan: the plan of the whole model.
            rules: what a dense head sees, by the number of each layer.
        """
        self._plan = plan
        self._rules = rules
        self._counters = _counters()
        self._sparse = sum(
            any(pattern is not Pattern.DENSE for pattern in plan.patterns[layer]) for layer in rules
        )

    def report(self, request: ImageRequest, kernels: Sequence[str]) -> None:
        """Reports a request of a step. Counting its pairs waits for the device.

        Args:
            request: the request.
            kernels: the names of the functions that computed the first sparse layer.
        """
        if not self._counters and not _LOG.isEnabledFor(logging.INFO):
            return
        calls = {layer: request.call(rule) for layer, rule in self._rules.items()}
        visible, causal = (int(pairs.sum()) for pairs in count_pairs(self._plan, calls))
        _LOG.info(
            "prefill of tokens %d to %d with %d images: density %.3f, %d of %d layers sparse, %s",
            request.query_start,
            request.layout.tokens - 1,
            request.layout.image_counts[0],
            visible / causal,
            self._sparse,
            len(self._rules),
            " and ".join(dict.fromkeys(kernels)),
        )
        for name, number in (
            ("prefills", 1),
            ("visible_pairs", visible),
            ("causal_pairs", causal),
        ):
            if name in self._counters:
                self._counters[name].inc(number)


@functools.cache
def _counters() -> dict[str, Any]:
    """Returns the counters of this process by name; none if there is no prometheus_client.

    vLLM's `/metrics` shows those of other processes if PROMETHEUS_MULTIPROC_DIR is set.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        return {}
    client = importlib.import_module("prometheus_client")
    return {name: client.Counter(f"photomask_{name}", what) for name, what in COUNTERS.items()}
