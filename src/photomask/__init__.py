"""Photomask decides before a model runs how to compute it more cheaply, and measures the effect.

`photomask.chip` converts a float model into an integer-only program, with all files that a hardware
team needs to verify it. `photomask.attention` makes the prefill of vision-language models sparse,
by a plan for each attention head. Importing this package imports neither PyTorch, triton nor
transformers.
"""

import logging

from photomask.errors import (
    BrokenDependencyError,
    CaptureError,
    DataError,
    DocumentError,
    EngineError,
    ExportError,
    FormError,
    LayoutError,
    MissingDependencyError,
    OperatorError,
    OrderError,
    PhotomaskError,
    PlanError,
    PruningError,
    QuantizerError,
    RecipeError,
    TargetError,
    TrainingError,
    UnsupportedOperatorError,
    UsageError,
)

__version__ = "0.2.0"

__all__ = [
    "BrokenDependencyError",
    "CaptureError",
    "DataError",
    "DocumentError",
    "EngineError",
    "ExportError",
    "FormError",
    "LayoutError",
    "MissingDependencyError",
    "OperatorError",
    "OrderError",
    "PhotomaskError",
    "PlanError",
    "PruningError",
    "QuantizerError",
    "RecipeError",
    "TargetError",
    "TrainingError",
    "UnsupportedOperatorError",
    "UsageError",
    "__version__",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
