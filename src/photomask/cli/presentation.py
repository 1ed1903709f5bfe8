"""How commands show what they found."""

import typer

from photomask.chip import IntegerProgram, Report
from photomask.chip.forms.memory import CheckReport
from photomask.cli.console import output
from photomask.report import print_page


def show_program(program: IntegerProgram) -> None:
    """Prints a program's steps, then what it needs."""
    target = program.target
    widest = [edge for edge in program.edges.values() if edge.role == "accumulator"]
    bits = [edge.interval.bits + (edge.low >= 0) for edge in widest]
    accumulators = f"{max(bits)} of {target.accumulator_bits} bits" if bits else "none"
    facts = {
        "multiplications": f"{sum(program.multiply_accumulates().values()):,} a sample",
        "constants": f"{program.weight_bytes():,.0f} bytes, packed",
        "accumulators": f"{accumulators}, proven",
        "multipliers": "none, shifts alone"
        if target.power_of_two_only
        else f"{target.multiplier_bits} bits, rounding {target.rounding}",
        "memory word": f"{target.memory_word_bits} bits, {target.first_lane} lane first",
        "made by": program.provenance.get("recipe", "").partition("\n")[0],
    }
    typer.echo(program)
    typer.echo()
    for name, value in facts.items():
        typer.echo(f"{name:<16} {value}")


def show_report(report: Report) -> None:
    """Prints a verification report as tables."""
    print_page(report.page(), output())


def show_check(report: CheckReport) -> None:
    """Prints one line of a check that passed, all of one that did not."""
    text = str(report)
    typer.echo(f"files: {text.splitlines()[-1]}" if report.passed else text)
