"""The RTL is lint-clean, documented, and knows the same numbers as the Python beside it."""

import csv
import re
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from tests.chip.forms.rtl.rtl_programs import NARROW, WIDE, machine, parameters
from tests.house.sources import ROOT

from photomask.chip.forms.rtl.export import source_names
from photomask.chip.forms.rtl.simulator import TOP, parameter_flags, verilator_command
from photomask.chip.sparsity import NofM

RTL = Path(str(resources.files("photomask.chip.forms.rtl") / "sources"))
ODD = machine(3, 2, weight_bits=2, activation_bits=4, accumulator_bits=20)
SPARSE = [
    machine(rows, columns, sparse=NofM(kept=kept, group=group))
    for rows, columns, kept, group in ((8, 8, 2, 4), (2, 4, 1, 4), (6, 2, 3, 5), (8, 8, 8, 16))
]


@pytest.mark.parametrize(
    "accelerator",
    [NARROW, WIDE, ODD, machine(1, 1), machine(32, 16), *SPARSE],
    ids=lambda a: a.name,
)
def test_verilator_has_nothing_to_warn_of(accelerator):
    command, environment = verilator_command()
    done = subprocess.run(
        [
            *command,
            *("--lint-only", "-Wall", "--timing", "--timescale", "1ns/1ns"),
            *("--top-module", TOP),
            *parameter_flags(parameters(accelerator)),
            *(str(RTL / name) for name in source_names()),
        ],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", source_names())
def test_a_file_says_what_it_does_and_when(name: str):
    text = (RTL / name).read_text()
    header = text[: re.search(r"^(module|package) ", text, re.M).start()]  # type: ignore[union-attr]
    assert header.startswith("// ")
    assert len(header) > 200
    if not name.endswith("_package.sv") and name != "testbench.sv":
        assert "Timing:" in header
    assert re.search(rf"^(module|package) {name.removesuffix('.sv')}\b", text, re.M)
    long = [line for line in text.splitlines() if len(line) > 100]
    assert not long


def test_every_waiver_is_explained():
    for name in source_names():
        for line in (RTL / name).read_text().splitlines():
            if "lint_off" in line:
                assert re.search(r"\*/  // \w+", line), f"{name}: {line}"


def test_the_page_names_the_ports_of_the_array():
    page = (ROOT / "docs" / "reference" / "rtl.md").read_text(encoding="utf-8")
    ports = (RTL / "systolic_array.sv").read_text().partition(") (")[2].partition(");")[0]
    names = re.findall(r"(?:input|output)\s+logic\s+(?:\[[^]]*\])?\s*(\w+)", ports)
    assert len(names) == 9
    assert all(f"`{name}`" in page for name in names)


def test_the_page_states_what_the_benchmark_found():
    page = (ROOT / "docs" / "reference" / "rtl.md").read_text(encoding="utf-8")
    with (ROOT / "benchmarks" / "results" / "rtl_simulation.csv").open(encoding="utf-8") as file:
        newest = {(row["network"], row["metric"]): row["value"] for row in csv.DictReader(file)}
    metrics = (
        "integers compared",
        "mismatches",
        "RTL cycles",
        "formula's cycles",
        "tiles and passes",
    )
    for network in sorted({network for network, _ in newest}):
        cells = " | ".join(f"{int(float(newest[network, metric])):,}" for metric in metrics)
        assert f"| {cells} |" in page, network
