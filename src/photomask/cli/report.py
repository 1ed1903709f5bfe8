"""`photomask report`: reports that `verify` wrote with --json, shown again and compared."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from photomask.cli import checks
from photomask.cli.commands import command
from photomask.cli.console import messages, output
from photomask.cli.options import Html, Json
from photomask.errors import DocumentError, UsageError

if TYPE_CHECKING:
    from photomask.attention import AttentionReport
    from photomask.chip import Report
    from photomask.report import Comparison

    AnyReport = Report | AttentionReport | Comparison

app = typer.Typer(
    help="Reports of both pipelines: show them again, compare two, take their tables as CSV.",
    no_args_is_help=True,
)

KINDS = {
    "photomask comparison": frozenset({"groups", "headline"}),
    "chip report": frozenset({"program_sha256", "layers", "engine"}),
    "attention report": frozenset({"plan", "tasks", "density"}),
}
"""Fields that tell what a document is."""

ReportFile = Annotated[
    Path,
    typer.Argument(
        metavar="REPORT.json",
        help="What `verify --json` or `compare --json` wrote.",
        callback=checks.present_file,
    ),
]


@command(app)
def compare(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="A.json", help="What `verify --json` wrote.", callback=checks.present_file
        ),
    ],
    second: Annotated[
        Path,
        typer.Argument(metavar="B.json", help="Another one.", callback=checks.present_file),
    ],
    json: Json = None,
    html: Html = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="DIR",
            help="Write the tables as CSV files.",
            callback=checks.output_place,
        ),
    ] = None,
) -> None:
    """Compare two reports: verdicts, accuracy, layers, sizes, times, provenance.

    Both must be of one pipeline and of one model. What was measured on different data is shown
    without a change. The exit status is 0 whatever differs.

    Example: photomask report compare out/w8a8.json out/w4a8.json --html out/comparison.html
    """
    from photomask.documents import write_file
    from photomask.report import print_page, write_csv, write_page

    found = _compared(first, second)
    page = found.page()
    print_page(page, output())
    if json is not None:
        write_file(json, found.render().encode())
    if html is not None:
        write_page(page, html)
    if csv is not None:
        write_csv(page, csv)


@command(app)
def show(report: ReportFile) -> None:
    """Print a report as `verify` printed it.

    Example: photomask report show out/report.json
    """
    from photomask.report import print_page

    print_page(_load(report).page(), output())


@command(app)
def html(
    report: ReportFile,
    output_file: Annotated[
        Path,
        typer.Option(
            "--output",
            metavar="REPORT.html",
            help="Where the page goes.",
            callback=checks.html_file,
        ),
    ],
) -> None:
    """Write a report as one page with pictures, which needs no network.

    Example: photomask report html out/report.json --output out/report.html
    """
    from photomask import attention, chip
    from photomask.report import write_page

    found = _load(report)
    if isinstance(found, chip.Report):
        chip.write_html(found, output_file)
    elif isinstance(found, attention.AttentionReport):
        attention.write_html(found, output_file)
    else:
        write_page(found.page(), output_file)
    messages().print(f"written to {output_file}")


@command(app)
def csv(
    report: ReportFile,
    folder: Annotated[
        Path,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Where the files go.",
            callback=checks.output_place,
        ),
    ],
) -> None:
    """Write every table of a report as a CSV file.

    Example: photomask report csv out/report.json --output out/tables
    """
    from photomask.report import write_csv

    for name in write_csv(_load(report).page(), folder):
        typer.echo(folder / name)


def _compared(first: Path, second: Path) -> "Comparison":
    """Compares two reports of one kind.

    Raises:
        UsageError: they are of two kinds, or of two models.
    """
    from photomask import attention, chip

    before, after = _load(first), _load(second)
    names = (str(first), str(second))
    if isinstance(before, chip.Report) and isinstance(after, chip.Report):
        return chip.compare_reports(before, after, names=names)
    both_attention = isinstance(before, attention.AttentionReport)
    if both_attention and isinstance(after, attention.AttentionReport):
        return attention.compare_reports(before, after, names=names)
    raise UsageError(
        f"{first} is a {_kind_of(before)} and {second} a {_kind_of(after)}; compare two chip "
        "reports or two attention reports"
    )


def _kind_of(report: "AnyReport") -> str:
    fields = type(report).model_fields.keys()
    return next(kind for kind, own in KINDS.items() if own <= fields)


def _load(path: Path) -> "AnyReport":
    """Reads a report of any kind.

    Raises:
        DocumentError: the file is absent, or holds none.
    """
    from json import loads

    from photomask.documents import read_text

    text = read_text(path)
    try:
        fields = set(loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise DocumentError(f"{path}: not a JSON document: {error}") from error
    kind = next((kind for kind, own in KINDS.items() if own <= fields), None)
    if kind == "photomask comparison":
        from photomask.report import Comparison

        return Comparison.parse(text, str(path))
    if kind == "chip report":
        from photomask.chip import Report

        return Report.parse(text, str(path))
    if kind == "attention report":
        from photomask.attention import AttentionReport

        return AttentionReport.parse(text, str(path))
    raise DocumentError(
        f"{path}: is no report; expected what `photomask chip verify --json`, `photomask attention "
        "verify --json` or `photomask report compare --json` wrote"
    )
