"""Arguments and options that several commands take: one name, one meaning, one text each."""

from pathlib import Path
from typing import Annotated

import typer

DATA_HELP = (
    "fashion-mnist, photographs, a .npy file, a .npz file with an array for each input by its "
    "name, a folder of pictures with preprocessing.json, or path/to/file.py:function."
)
"""What options that take data of the chip pipeline say they take."""

RENAMED = {"--calibration": "--data", "--prompts": "--data"}
"""Options of earlier versions, and what they are called now."""

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name of the zoo, or path/to/file.py:function.")
]
Export = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `convert` wrote.")]
Data = Annotated[str, typer.Option("--data", metavar="DATA", help=DATA_HELP)]
Labels = Annotated[Path | None, typer.Option(metavar="Y.npy", help="The right classes, integers.")]
CalibrationSamples = Annotated[
    int | None, typer.Option(min=1, help="How many samples to calibrate on. Default: all.")
]
Recipe = Annotated[str, typer.Option(help="A preset, or a JSON file.")]
Target = Annotated[str, typer.Option(help="A preset, or a JSON file.")]
GoldenSamples = Annotated[int, typer.Option("--samples", min=1, help="How many golden vectors.")]
ExportFolder = Annotated[
    Path, typer.Option("--output", metavar="DIR", help="Where the export goes.")
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="Such as cpu or cuda:0. Default: a GPU if there is one."
    ),
]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="REPORT.json", help="Write the report as a document."),
]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="REPORT.html", help="Write the report with pictures."),
]
