"""`photomask attention`: from a vision-language model to a plan for its heads, and the proof."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from photomask.cli import checks
from photomask.cli.commands import STATUSES, command
from photomask.cli.console import messages, output, progress
from photomask.cli.names import completer
from photomask.cli.options import Device, Html, Json
from photomask.dependencies import require_package
from photomask.errors import UsageError

app = typer.Typer(
    help="Vision-language model → head plan → sparse prefill, and what it does to the answers.",
    no_args_is_help=True,
)

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="picture-questions, a local folder, or an id of the model hub.",
        callback=checks.vision_language_model,
        autocompletion=completer("vision-language-models", files=True),
    ),
]
Prompts = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="PROMPTS",
        help="Prompts: a file of JSON lines, or picture-questions, which come with the package.",
        callback=checks.prompts,
        autocompletion=completer("prompts", files=True),
    ),
]


def _check_plan(given: str) -> str:
    """Checks that a plan is there; what may be a name on the hub is left to the library."""
    if os.path.isfile(given) or os.path.isdir(given):
        return given
    from photomask.hub import is_hub_name

    if not is_hub_name(given):
        raise UsageError(
            f"no file {given}: expected a plan file, a folder that holds one, or a name on the hub"
        )
    require_package("huggingface-hub", "attention", "a plan on the hub")
    return given


Plan = Annotated[
    str,
    typer.Argument(
        metavar="PLAN",
        help="What `plan` wrote, a folder that holds a plan, or a name on the model hub.",
        callback=_check_plan,
    ),
]
StatisticsFile = Annotated[
    Path,
    typer.Argument(
        metavar="STATISTICS",
        help="A file that `calibrate` wrote.",
        callback=checks.present_file,
    ),
]


@command(app)
def calibrate(
    model: Model,
    data: Prompts,
    output_file: Annotated[
        Path,
        typer.Option(
            "--output",
            metavar="STATISTICS",
            help="Where the statistics go.",
            callback=checks.output_file,
        ),
    ],
    device: Device = None,
) -> None:
    """Measure, head by head, where image tokens look and what each pattern would lose.

    One dense pass a prompt. Run it again after an interruption: prompts that were measured are
    kept. Under `accelerate launch`, the processes share the prompts.

    A line of PROMPTS: {"content": [{"image": "a.png"}, {"text": "What is this?"}]}

    Example: photomask attention calibrate picture-questions --data picture-questions
    --output out/statistics.safetensors
    """
    from photomask.attention import calibrate as measure
    from photomask.cli.vision_language import load_prompts, load_vision_language_model

    questions = load_prompts(data, held_out=False)
    network, processor = load_vision_language_model(model, device)
    found = measure(network, processor, questions, save_to=output_file, progress=progress())
    typer.echo(found)
    messages().print(f"written to {output_file}")


PlanOutput = Annotated[
    Path,
    typer.Option(
        "--output",
        metavar="PLAN.json",
        help="Where the plan goes.",
        callback=checks.output_file,
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--budget",
        metavar="SHARE",
        min=0,
        max=1,
        help="How much of the model's output may be lost, 0 to 1.",
    ),
]
Alpha = Annotated[
    float,
    typer.Option(
        "--alpha",
        metavar="SHARE",
        min=0,
        max=1,
        help="With --votes: attention mass that a pattern may lose.",
    ),
]
Gamma = Annotated[
    float,
    typer.Option(
        "--gamma",
        metavar="SHARE",
        min=0,
        max=1,
        help="With --votes: share of the prompts that must agree.",
    ),
]


@command(app)
def plan(
    statistics: StatisticsFile,
    output_file: PlanOutput,
    budget: Budget = None,
    kv_groups: Annotated[
        bool, typer.Option("--kv-groups", help="One pattern for all heads that share keys.")
    ] = False,
    votes: Annotated[
        bool, typer.Option("--votes", help="Let the prompts vote, as BlindSight does; no budget.")
    ] = False,
    alpha: Alpha = 0.1,
    gamma: Gamma = 0.95,
) -> None:
    """Decide what every head sees, within a budget, and print the map.

    Needs no model: it can be repeated with other budgets.

    Example: photomask attention plan out/statistics.safetensors --output out/plan.json
    """
    if votes and (budget is not None or kv_groups):
        raise UsageError("--votes decides without a budget and head by head; leave the others out")
    from photomask.attention import DEFAULT_BUDGET, AttentionStatistics, plan_by_votes
    from photomask.attention import plan as decide

    found = AttentionStatistics.load(statistics)
    if votes:
        chosen = plan_by_votes(
            found, alpha=alpha, gamma_sink=gamma, gamma_intra_image=gamma, gamma_both=gamma
        )
    else:
        limit = DEFAULT_BUDGET if budget is None else budget
        chosen = decide(found, budget=limit, kv_groups=kv_groups)
    chosen.save(output_file)
    typer.echo(chosen)
    messages().print(f"written to {output_file}")


@command(app)
def verify(
    model: Model,
    plan_source: Plan,
    data: Prompts,
    statistics: Annotated[
        Path | None,
        typer.Option(
            "--statistics",
            metavar="STATISTICS",
            help="What `calibrate` wrote: adds attention masses, and accuracy over budgets.",
            callback=checks.present_file,
        ),
    ] = None,
    mean_loss: Annotated[
        float,
        typer.Option("--mean-loss", metavar="POINTS", help="Accuracy that the mean may lose."),
    ] = 0.8,
    task_loss: Annotated[
        float,
        typer.Option("--task-loss", metavar="POINTS", help="Accuracy that a task may lose."),
    ] = 2.0,
    device: Device = None,
    json: Json = None,
    html: Html = None,
) -> None:
    """Answer held-out prompts with the dense and with the sparse model, and compare.

    Exit status: 0 if every check passed, 1 if one failed, 3 if none failed but some could not be
    decided, as for want of questions.

    Example: photomask attention verify picture-questions out/plan.json
    --data picture-questions --html out/report.html
    """
    from photomask.attention import AttentionStatistics, HeadPlan, write_html
    from photomask.attention import verify as compare
    from photomask.cli.vision_language import load_prompts, load_vision_language_model
    from photomask.documents import write_file
    from photomask.report import print_page

    chosen = HeadPlan.from_pretrained(plan_source)
    found = AttentionStatistics.load(statistics) if statistics is not None else None
    questions = load_prompts(data, held_out=True)
    network, processor = load_vision_language_model(model, device)
    report = compare(
        network,
        chosen,
        processor,
        questions,
        statistics=found,
        mean_loss_limit=mean_loss,
        task_loss_limit=task_loss,
        progress=progress(),
    )
    report = report.with_command(shlex.join(["photomask", *sys.argv[1:]]))
    print_page(report.page(), output())
    if json is not None:
        write_file(json, report.render().encode())
    if html is not None:
        write_html(report, html)
    raise typer.Exit(STATUSES[report.verdict])


@command(app)
def show(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PLAN",
            help="A plan: a file, a folder or a name on the model hub. Or a file of statistics.",
            callback=_check_plan,
        ),
    ],
) -> None:
    """Show a plan as a map of layers and heads, or what statistics say.

    Example: photomask attention show out/plan.json
    """
    from photomask.attention import AttentionStatistics, HeadPlan

    path = Path(source)
    is_plan = path.suffix == ".json" or not path.is_file()
    typer.echo(HeadPlan.from_pretrained(source) if is_plan else AttentionStatistics.load(path))


def _check_task(given: str) -> str:
    """Checks the name of a task of lmms-eval."""
    from photomask.lmms_eval import check_task_name

    return check_task_name(given)


@command(app)
def lmms_task(
    data: Prompts,
    folder: Annotated[
        Path,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Where the task goes. lmms-eval takes it as --include_path.",
            callback=checks.output_folder("lmms-eval task"),
        ),
    ],
    name: Annotated[
        str,
        typer.Option(
            "--name",
            metavar="NAME",
            help="What lmms-eval takes as --tasks.",
            callback=_check_task,
        ),
    ],
) -> None:
    """Make a task of prompts for lmms-eval, which compares the answers of any model with theirs.

    Example: photomask attention lmms-task --data picture-questions --output out/task
    --name picture_questions
    """
    from photomask.cli.vision_language import load_prompts
    from photomask.lmms_eval import write_task

    questions = load_prompts(data, held_out=True)
    write_task(folder, name, questions)
    messages().print(f"{len(questions)} prompts written to {folder}")


@command(app, name="serve-check")
def serve_check(
    model: Model,
    plan_file: Annotated[
        Path,
        typer.Argument(
            metavar="PLAN.json", help="What `plan` wrote.", callback=checks.present_file
        ),
    ],
) -> None:
    """Say whether this vLLM, a model and a plan fit, and how to start the server.

    Loads the weights on the CPU, because a server compares only the architecture with the plan.

    Exit status: 0 if everything fits, 1 if something does not.

    Example: photomask attention serve-check ./model out/plan.json
    """
    from photomask.attention import HeadPlan
    from photomask.attention.vllm import check_serving
    from photomask.cli.vision_language import ZOO_MODEL, load_vision_language_model
    from photomask.zoo.picture_questions.loading import FOLDER

    chosen = HeadPlan.load(plan_file)
    network, _ = load_vision_language_model(model, "cpu")
    folder = str(FOLDER) if model == ZOO_MODEL else model
    found = check_serving(network, chosen, folder, plan_file)
    typer.echo(found)
    raise typer.Exit(STATUSES["passed" if found.fits else "failed"])
