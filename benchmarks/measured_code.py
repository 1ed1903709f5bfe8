"""Which code a benchmark measured, so that a row can be told from the rows of later code.

A row holds a hash of the package's files that its script measures. Comments, docstrings and the
texts of errors do not count, because they change no figure.
"""

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "photomask"
CODE = (".py", ".sv", ".c", ".h")
QUANTIZATION = (
    *("chip/arithmetic.py", "chip/calibration.py", "chip/conversion", "chip/data.py"),
    *("chip/engines", "chip/formats.py", "chip/graph", "chip/observers", "chip/operators"),
    *("chip/placement.py", "chip/preparation.py", "chip/prepared_layer.py"),
    *("chip/prepared_model.py", "chip/program"),
    *("chip/quantized_computation.py", "chip/quantizers", "chip/recipe", "chip/sharing.py"),
    *(
        "chip/sites.py",
        "chip/sum_limits.py",
        "chip/target.py",
        "chip/units.py",
        "chip/zero_ranges.py",
    ),
)
"""From a float model to the integers of the oracle and of the torch engine."""
PROGRAMS = (
    "chip/arithmetic.py",
    "chip/engines",
    "chip/formats.py",
    "chip/operators",
    "chip/program",
)
SPARSE_PREFILL = (
    *("attention/intervals.py", "attention/kernels", "attention/layout.py"),
    *("attention/patterns.py", "attention/schedule.py", "attention/tables.py"),
    "attention/triton_tables.py",
)
SPARSE_MODELS = (
    *SPARSE_PREFILL,
    *("attention/conversion.py", "attention/families", "attention/head_plan.py"),
    "attention/plugin",
)
CALIBRATION = (
    *("attention/calibration.py", "attention/encoding.py", "attention/measuring.py"),
    *("attention/probing.py", "attention/sampling.py", "attention/statistics.py"),
)
MEASURED: dict[str, tuple[str, ...]] = {
    "accumulators": (*QUANTIZATION, "chip/accumulators.py", "chip/training"),
    "accuracy": QUANTIZATION,
    "c_speed": (*QUANTIZATION, "chip/forms/c"),
    "calibration_cost": (*SPARSE_MODELS, *CALIBRATION),
    "channel_pruning": (*QUANTIZATION, "chip/channel_pruning", "chip/training"),
    "engine_speed": PROGRAMS,
    "exactness": QUANTIZATION,
    "exploration": (
        *(*QUANTIZATION, "chip/cost", "chip/exploration", "chip/forms/memory/storages"),
        *("chip/pruning", "chip/sparsity.py", "chip/weight_masks.py"),
    ),
    "flow_time": (*QUANTIZATION, "chip/forms/memory"),
    "generality": QUANTIZATION,
    "head_plans": (*SPARSE_MODELS, *CALIBRATION, "attention/planning.py"),
    "language_model": (*QUANTIZATION, "chip/decoding", "chip/equalization"),
    "mobilenet_v2": QUANTIZATION,
    "planted_roundings": (*PROGRAMS, "chip/forms/memory", "chip/forms/rtl"),
    "prefill_attention": SPARSE_PREFILL,
    "pretraining": (*QUANTIZATION, "chip/pretraining", "chip/training"),
    "pruning": (
        *QUANTIZATION,
        *("chip/pruning", "chip/sparsity.py", "chip/training", "chip/weight_masks.py"),
    ),
    "quantizers": (*QUANTIZATION, "chip/reconstruction", "chip/training"),
    "random_programs": (*PROGRAMS, "chip/forms/c", "chip/forms/onnx"),
    "reconstruction": (*QUANTIZATION, "chip/reconstruction"),
    "rtl_simulation": (*QUANTIZATION, "chip/forms/rtl"),
    "sparse_c": (*PROGRAMS, "chip/forms/c"),
    "sparse_rtl": (
        *QUANTIZATION,
        *("chip/cost/accelerator.py", "chip/forms/rtl", "chip/pruning", "chip/sparsity.py"),
    ),
    "time_to_first_token": SPARSE_MODELS,
    "token_pruning": (*SPARSE_MODELS, *CALIBRATION, "attention/planning.py"),
    "vllm_first_token": (*SPARSE_MODELS, "attention/vllm"),
    "transformer_accuracy": (*QUANTIZATION, "chip/equalization", "chip/forms/c", "chip/forms/rtl"),
}
"""The files and folders of the package that each benchmark measures."""


@cache
def code_hash(what: str) -> str:
    """Returns ten digits of a hash of the code that a benchmark measures.

    Raises:
        KeyError: nobody said what the benchmark measures.
    """
    digest = hashlib.sha256()
    for name in MEASURED[what]:
        for file in _files(PACKAGE / name):
            digest.update(f"{file.relative_to(PACKAGE).as_posix()}\n".encode())
            digest.update(without_texts(file.read_text(encoding="utf-8"), file.suffix).encode())
    return digest.hexdigest()[:10]


def without_texts(text: str, suffix: str) -> str:
    """Returns what a source file does, without comments, docstrings and the texts of errors.

    Args:
        text: the source.
        suffix: of the file; `.py` is parsed, in other languages comments are cut out.
    """
    if suffix == ".py":
        return _written(_WithoutTexts().visit(ast.parse(text)))
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    return "\n".join(line for line in map(str.rstrip, text.splitlines()) if line)


class _WithoutTexts(ast.NodeTransformer):
    """Drops statements that are only a string, and what a `raise` says."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(exc=kind, cause=None)


def _written(node: object) -> str:
    """Writes a syntax tree alike in every version of Python; `ast.dump` writes it differently."""
    if isinstance(node, list):
        return f"[{','.join(map(_written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={_written(value)}"
        for name, value in ast.iter_fields(node)
        if value is not None and value != []
    ]
    return f"{type(node).__name__}({','.join(fields)})"


def _files(place: Path) -> list[Path]:
    """Returns the sources of a file or a folder.

    Raises:
        FileNotFoundError: the package has no such file or folder.
    """
    if place.is_file():
        return [place]
    found = sorted(file for file in place.rglob("*") if file.suffix in CODE)
    if not found:
        raise FileNotFoundError(f"{place}: benchmarks/measured_code.py names it")
    return found
