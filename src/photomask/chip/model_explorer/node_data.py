"""What a report measured of each step, as values by which Model Explorer colours its nodes."""

import json
from collections.abc import Callable
from pathlib import Path

from photomask.chip.model_explorer.graphs import GRAPH
from photomask.chip.verification import Report
from photomask.chip.verification.step_documents import StepReport
from photomask.documents import write_file
from photomask.errors import UsageError

_Value = Callable[[StepReport], float | None]
_MEASURES: dict[str, tuple[str, _Value]] = {
    "sqnr_db": ("SQNR in dB", lambda step: step.sqnr_db),
    "cycles": ("cycles", lambda step: step.cycles),
    "bytes": ("bytes of the result", lambda step: step.output.bytes),
    "alive": (
        "bytes alive while the step runs",
        lambda step: step.live_activation_bytes,
    ),
}
"""By the name of the file: what it holds, and the value of a step."""


def write_node_data(report: Report, folder: str | Path) -> tuple[Path, ...]:
    """Writes a file of node data for each measure that the report has of the program's steps.

    ```bash
    model-explorer program.json --extensions=… --node_data_paths=sqnr_db.json,cycles.json
    ```

    Args:
        report: what `verify` returned of the program that is shown.
        folder: where the files go: `sqnr_db.json`, `bytes.json`, `alive.json` and, where the report
            was made with an accelerator, `cycles.json`.

    Returns:
        The files, in this order.

    Raises:
        UsageError: the report is of version 0.1, which had no steps.
        ExportError: the disk refused a file.
    """
    if not report.steps:
        raise UsageError("the report has no steps, version 0.1 made it: verify the program again")
    written = []
    for name, (title, value_of) in _MEASURES.items():
        values = {step.name: value_of(step) for step in report.steps}
        results = {name: {"value": value} for name, value in values.items() if value is not None}
        if results:
            ends = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#2f6690"}]
            data = {GRAPH: {"name": title, "results": results, "gradient": ends}}
            path = Path(folder) / f"{name}.json"
            write_file(path, (json.dumps(data, indent=1) + "\n").encode())
            written.append(path)
    return tuple(written)
