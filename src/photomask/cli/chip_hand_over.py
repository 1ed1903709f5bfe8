"""`photomask chip export`, `estimate`, `simulate`, `import`: programs for others' tools."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from photomask.cli.console import messages

Export = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `convert` wrote.")]
AcceleratorOption = Annotated[
    str, typer.Option(metavar="NAME", help="A preset (reference, edge, …), or a JSON file.")
]
Format = Literal["c", "onnx", "qdq", "qonnx", "deeploy", "rtl"]
PLACES: dict[Format, str] = {
    "c": "c",
    "onnx": "network.onnx",
    "qdq": "network.qdq.onnx",
    "qonnx": "network.qonnx.onnx",
    "deeploy": "deeploy",
    "rtl": "rtl",
}
"""Where a format goes inside an export, unless told otherwise."""


def export(
    folder: Export,
    format: Annotated[Format, typer.Option(help="What to write.")],
    place: Annotated[
        Path | None,
        typer.Option("--output", metavar="PATH", help="Where it goes. Default: inside DIR."),
    ] = None,
    weights: Annotated[
        Literal["arrays", "binary"],
        typer.Option(help="C: weights in the source, or in a file that is loaded."),
    ] = "arrays",
    accelerator: AcceleratorOption = "reference",
) -> None:
    """Write a program for other tools: a C project, an ONNX model, or RTL with its testbench.

    c: a C11 project that checks itself. onnx: integers alone, bit-exact. qdq, qonnx: for tools that
    rescale in floating point. deeploy: its dialect. rtl: the reference design, ready to simulate.

    Example: photomask chip export out/resnet20 --format c
    """
    from photomask.chip import IntegerProgram
    from photomask.chip.forms.c import export_c
    from photomask.chip.forms.deeploy import export_deeploy
    from photomask.chip.forms.memory import golden_inputs

    program, path = IntegerProgram.load(folder), place or folder / PLACES[format]
    if format == "c":
        export_c(program, path, golden_inputs(folder), weights=weights)
    elif format == "rtl":
        from photomask.chip.cost import load_accelerator
        from photomask.chip.forms.rtl import export_rtl

        machine = load_accelerator(accelerator)
        export_rtl(program, path, golden_inputs(folder), accelerator=machine)
    elif format == "deeploy":
        export_deeploy(program, path, golden_inputs(folder))
    else:
        from photomask.chip.forms.onnx import integer_model
        from photomask.chip.forms.onnx_builder import save_onnx
        from photomask.chip.forms.qdq import qdq_model
        from photomask.chip.forms.qonnx import qonnx_model

        make = {"onnx": integer_model, "qdq": qdq_model, "qonnx": qonnx_model}[format]
        save_onnx(make(program), path)
    messages().print(f"written to {path}")


def estimate(
    folder: Export,
    accelerator: AcceleratorOption = "reference",
    document: Annotated[
        Path | None, typer.Option("--json", metavar="FILE.json", help="Write it as a document.")
    ] = None,
) -> None:
    """Estimate cycles, utilization, traffic and energy of a program on an accelerator.

    Example: photomask chip estimate out/resnet20 --accelerator edge
    """
    from photomask.chip import IntegerProgram
    from photomask.chip.cost import estimate as estimate_program
    from photomask.chip.cost import load_accelerator
    from photomask.documents import write_file

    machine = load_accelerator(accelerator)
    report = estimate_program(IntegerProgram.load(folder), machine)
    typer.echo(str(report))
    if document is not None:
        write_file(document, report.render().encode())


def simulate(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `convert` or `export` wrote.")
    ],
    accelerator: AcceleratorOption = "reference",
    engine: Annotated[
        Literal["verilator", "cocotb"],
        typer.Option(help="Verilator alone, or the export's own cocotb test on it."),
    ] = "verilator",
) -> None:
    """Simulate a program on the reference design in RTL, and compare every integer.

    The design runs the network's golden samples and then the conformance vectors, which prove how
    it rounds, shifts and saturates; a fault of these is named.

    An RTL export in DIR/rtl is used as it is, so that another array may stand in it; where there is
    none, it is written first. The last line is JSON. Exit status 1 on a mismatch.

    Example: photomask chip simulate out/resnet20
    """
    from photomask.chip.forms.rtl import simulate as simulate_design

    report = simulate_design(_rtl_export(folder, accelerator), engine=engine)
    typer.echo(str(report))
    names = ("mismatches", "rtl_cycles", "model_cycles")
    rounding = {"rounding_proven": report.rounding_proven}
    typer.echo(json.dumps({name: getattr(report, name) for name in names} | rounding))
    raise typer.Exit(0 if report.passed else 1)


def _rtl_export(folder: Path, accelerator: str) -> Path:
    """Returns the RTL export that a folder is or holds; writes it where there is none."""
    from photomask.chip import IntegerProgram
    from photomask.chip.cost import load_accelerator
    from photomask.chip.forms.memory import golden_inputs
    from photomask.chip.forms.rtl import RtlDesign, export_rtl
    from photomask.chip.forms.rtl.design import DESIGN_FILE
    from photomask.errors import DocumentError

    if (folder / DESIGN_FILE).is_file():
        return folder
    program, rtl = IntegerProgram.load(folder), folder / PLACES["rtl"]
    if not (rtl / DESIGN_FILE).is_file():
        machine = load_accelerator(accelerator)
        export_rtl(program, rtl, golden_inputs(folder), accelerator=machine, samples=1)
    elif RtlDesign.load(rtl).program_sha256 != program.content_hash():
        raise DocumentError(f"{rtl} is of another program than {folder}; export it again")
    return rtl


def import_model(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="Quantized by another tool (QDQ).")
    ],
    output_folder: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Where the export goes.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Inputs of the golden vectors, as for convert. Default: random."
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="A preset, or a JSON file.")] = "asic",
    samples: Annotated[int, typer.Option(min=1, help="How many golden vectors.")] = 1,
) -> None:
    """Turn an ONNX model that another tool has quantized into an integer program, and export it.

    Example: photomask chip import resnet18.int8.onnx --output out/resnet18
    """
    import numpy as np

    from photomask.chip import load_target
    from photomask.chip.forms.memory import export as export_program
    from photomask.chip.onnx_import import import_qdq
    from photomask.cli.execution import golden_codes
    from photomask.cli.presentation import show_program
    from photomask.cli.sources import load_inputs

    program = import_qdq(model, load_target(target))
    if data is None:
        random = np.random.default_rng(0)
        edges = [program.edges[name] for name in program.inputs]
        golden = {
            edge.name: random.integers(
                edge.low, edge.high, (samples, *edge.shape[1:]), endpoint=True
            )
            for edge in edges
        }
    else:
        golden = golden_codes(program, load_inputs(data, samples))
    export_program(program, output_folder, golden, samples=samples)
    show_program(program)
    messages().print(f"written to {output_folder}")
