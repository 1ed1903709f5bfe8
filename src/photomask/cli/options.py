"""Arguments and options that several commands take: one name, one meaning, one text each.

Each one checks its value before PyTorch is imported, and completes the names that it can have.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from photomask.cli import checks
from photomask.cli.names import complete_device, completer

DATA_HELP = (
    "fashion-mnist, photographs, a .npy file, a .npz file with an array for each input by its "
    "name, a folder of pictures with preprocessing.json, or path/to/file.py:function."
)
"""What options that take data of the chip pipeline say they take."""

EngineName = Literal["torch", "numpy", "c", "onnx"]

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A network of the zoo (`photomask list models`), or path/to/file.py:function; either "
        "with @weights.safetensors behind it.",
        callback=checks.model,
        autocompletion=completer("models", files=True),
    ),
]
Export = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="A folder that `convert` wrote.", callback=checks.program_folder
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help=DATA_HELP,
        callback=checks.data,
        autocompletion=completer("data", files=True),
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="Y.npy",
        help="The right classes, integers. Default: those that the data holds.",
        callback=checks.present_file,
    ),
]
ExportFolder = Annotated[
    Path,
    typer.Option(
        "--output",
        metavar="DIR",
        help="Where the export goes.",
        callback=checks.output_folder("chip export"),
    ),
]
Recipe = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help="A preset (`photomask list recipes`), or a JSON file.",
        callback=checks.recipe,
        autocompletion=completer("recipes", files=True),
    ),
]
Target = Annotated[
    str,
    typer.Option(
        "--target",
        metavar="TARGET",
        help="A preset (`photomask list targets`), or a JSON file.",
        callback=checks.target,
        autocompletion=completer("targets", files=True),
    ),
]
ACCELERATOR_HELP = "A preset (`photomask list accelerators`), or a JSON file."
_ACCELERATOR = partial(
    typer.Option,
    "--accelerator",
    metavar="ACCELERATOR",
    callback=checks.accelerator,
    autocompletion=completer("accelerators", files=True),
)
Accelerator = Annotated[str, _ACCELERATOR(help=ACCELERATOR_HELP)]
AcceleratorOfReport = Annotated[
    str | None, _ACCELERATOR(help=f"Report the cycles on it as well. {ACCELERATOR_HELP}")
]
AcceleratorOfForm = Annotated[
    str | None, _ACCELERATOR(help=f"Form rtl: {ACCELERATOR_HELP} Default: reference.")
]
Encodings = Annotated[
    list[str] | None,
    typer.Option(
        "--encoding",
        metavar="ENCODING",
        help="How memory images are written: hex, bin, dec or npy; may be repeated. Default: hex.",
        callback=checks.encodings,
        autocompletion=lambda incomplete: [e for e in checks.ENCODINGS if e.startswith(incomplete)],
    ),
]
Compressions = Annotated[
    list[str] | None,
    typer.Option(
        "--compression",
        metavar="STORAGE",
        help="How memory images may store weights without their zeros: n:m, bitmap, run-length or "
        "blocks; may be repeated, and each weight gets the smallest. Default: all stay dense.",
        callback=checks.compressions,
        autocompletion=lambda incomplete: [
            name for name in checks.COMPRESSIONS if name.startswith(incomplete)
        ],
    ),
]
CalibrationSamples = Annotated[
    int | None,
    typer.Option(
        "--calibration-samples",
        metavar="N",
        min=1,
        help="How many samples to calibrate on. Default: all.",
    ),
]
GoldenSamples = Annotated[
    int,
    typer.Option("--golden-samples", metavar="N", min=1, help="How many golden vectors to write."),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, help="Of all that is random. Default: 0."),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Such as cpu or cuda:0. Default: a GPU if there is one.",
        callback=checks.device,
        autocompletion=complete_device,
    ),
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="REPORT.json",
        help="Write the report as a document.",
        callback=checks.output_file,
    ),
]
Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="REPORT.html",
        help="Write the report as a page with pictures.",
        callback=checks.html_file,
    ),
]
