"""`photomask demo`: a whole pipeline on a network and data that come with the package."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from photomask.cli import checks
from photomask.cli.commands import STATUSES, command
from photomask.cli.console import messages, output, progress

if TYPE_CHECKING:
    from photomask.attention import AttentionReport
    from photomask.chip import Report

app = typer.Typer(
    help="See a whole pipeline work, on what comes with the package.", no_args_is_help=True
)

MODEL = "resnet20"
CALIBRATION_IMAGES = 256
GOLDEN_SAMPLES = 2
SENSITIVITY_IMAGES = 32
"""Enough to rank the layers, in a few seconds."""

VISION_LANGUAGE_MODEL = "picture-questions"
CALIBRATION_PROMPTS = 48
HELD_OUT_PER_TASK = 12
CURVE_PROMPTS = 24
PICTURES = 16


@command(app)
def chip(
    output_folder: Annotated[
        Path,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Where export and report go.",
            callback=checks.demo_folder,
        ),
    ] = Path("out/demo"),
) -> None:
    """Convert a trained ResNet-20 to 8-bit integers, verify it on Fashion-MNIST, and export it.

    DIR then holds the export, which all `photomask chip` commands take, and report.html. The last
    line printed is one JSON object with what was measured.

    Example: photomask demo chip --output out/demo
    """
    started = time.perf_counter()
    from photomask.chip import (
        calibrate,
        convert,
        export,
        load_recipe,
        load_target,
        prepare,
        verify,
        write_html,
    )
    from photomask.cli.presentation import show_report
    from photomask.zoo import calibration_set, load, test_set

    say = messages().print
    say(f"capturing {MODEL}, calibrating on {CALIBRATION_IMAGES} training images")
    model, (images, _) = load(MODEL), calibration_set(CALIBRATION_IMAGES)
    prepared = prepare(model, load_recipe("w8a8"), images[:1])
    calibrate(prepared, images, progress=progress())
    program = convert(prepared, load_target("asic"))
    pictures, labels = test_set()
    say(f"verifying on {len(pictures):,} test images")
    report = verify(
        model,
        program,
        pictures,
        labels,
        prepared=prepared,
        accelerator="reference",
        sensitivity_samples=SENSITIVITY_IMAGES,
        oracle_samples=64,
        progress=progress(),
    )
    golden = program.quantize_input(pictures[:GOLDEN_SAMPLES])
    export(program, output_folder, golden)
    write_html(report, output_folder / "report.html")
    show_report(report)
    seconds = time.perf_counter() - started
    summary = _summary(report) | {"output": str(output_folder), "seconds": round(seconds, 1)}
    typer.echo(json.dumps(summary))
    raise typer.Exit(0 if report.passed else 1)


def _summary(report: "Report") -> dict[str, object]:
    """Returns what was measured, for other programs to read."""
    first, engine = report.outputs[0], report.engine
    return {
        "float_top1": first.float_top1,
        "integer_top1": first.integer_top1,
        "top1_agreement": first.agreement,
        "output_sqnr_db": round(first.sqnr_db, 2),
        "engine_mismatches": engine.mismatches,
        "integers_compared": engine.integers,
        "images": report.samples,
        "program_bytes": report.totals.integer_bytes,
        "passed": report.passed,
    }


@command(app)
def attention(
    output_folder: Annotated[
        Path,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Where plan and report go.",
            callback=checks.demo_place,
        ),
    ] = Path("out/demo-attention"),
) -> None:
    """Plan the heads of a small vision-language model and verify it on questions over pictures.

    DIR then holds the statistics, the plan, a few of the questions as a prompt file, and
    report.html. The last line printed is one JSON object with what was measured.

    Example: photomask demo attention --output out/demo-attention
    """
    started = time.perf_counter()
    from photomask.attention import calibrate, plan, verify, write_html
    from photomask.cli.vision_language import load_vision_language_model
    from photomask.documents import write_file
    from photomask.prompts import write_prompts
    from photomask.report import print_page
    from photomask.zoo import picture_questions

    say = messages().print
    say(f"calibrating {VISION_LANGUAGE_MODEL} on {CALIBRATION_PROMPTS} prompts")
    model, processor = load_vision_language_model(VISION_LANGUAGE_MODEL, "cpu")
    statistics = calibrate(
        model,
        processor,
        picture_questions.calibration_prompts(CALIBRATION_PROMPTS),
        save_to=output_folder / "statistics.safetensors",
        progress=progress(),
    )
    chosen = plan(statistics)
    chosen.save(output_folder / "plan.json")
    typer.echo(chosen)
    questions = picture_questions.held_out_prompts(HELD_OUT_PER_TASK, pictures=PICTURES)
    write_prompts(output_folder / "prompts.jsonl", questions[: len(picture_questions.TASKS)])
    say(f"verifying on {len(questions)} questions over {PICTURES} pictures each")
    report = verify(
        model,
        chosen,
        processor,
        questions,
        statistics=statistics,
        curve_prompts=CURVE_PROMPTS,
        progress=progress(),
    )
    write_file(output_folder / "report.json", report.render().encode())
    write_html(report, output_folder / "report.html")
    print_page(report.page(), output())
    seconds = time.perf_counter() - started
    summary = _attention_summary(report) | {
        "output": str(output_folder),
        "seconds": round(seconds, 1),
    }
    typer.echo(json.dumps(summary))
    raise typer.Exit(STATUSES[report.verdict])


def _attention_summary(report: "AttentionReport") -> dict[str, object]:
    """Returns what was measured, for other programs to read."""
    return {
        "dense_accuracy": round(report.dense_accuracy or 0.0, 2),
        "sparse_accuracy": round(report.sparse_accuracy or 0.0, 2),
        "worst_task_loss": round(report.worst_task_loss or 0.0, 2),
        "density": round(report.density, 4),
        "top1_agreement": round(report.agreement, 2),
        "first_token_divergence": round(report.divergence_mean, 5),
        "prompts": report.prompts,
        "passed": report.passed,
        "verdict": report.verdict,
    }
