"""`photomask chip search`: a width for each tensor, within a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from photomask.cli import checks
from photomask.cli.console import messages, progress
from photomask.cli.options import Accelerator, Data, Model, Recipe, Target
from photomask.errors import UsageError

if TYPE_CHECKING:
    from photomask.chip import PreparedModel
    from photomask.chip.mixed_precision import Allocation, Costs, Sensitivities
    from photomask.zoo import Samples

Unit = Literal["weight-bits", "bit-operations", "cycles"]
ALLOCATION_FILE, RECIPE_FILE = "allocation.json", "recipe.json"
OUTPUT = "width search"


SearchFolder = Annotated[
    Path,
    typer.Option(
        "--output",
        metavar="DIR",
        help="Where allocation and recipe go.",
        callback=checks.output_folder(OUTPUT),
    ),
]
AsUniform = Annotated[
    int | None,
    typer.Option(
        "--as-uniform",
        metavar="BITS",
        min=2,
        max=16,
        help="The budget is what this width costs everywhere.",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option("--budget", metavar="N", min=1, help="The budget, in units of --cost."),
]
Cost = Annotated[
    Unit,
    typer.Option(
        "--cost",
        metavar="UNIT",
        help="What the budget counts: weight-bits, bit-operations or cycles.",
    ),
]
MeasuredSamples = Annotated[
    int,
    typer.Option(
        "--calibration-samples", metavar="N", min=1, help="How many samples to measure on."
    ),
]
Widths = Annotated[
    str,
    typer.Option(
        "--widths",
        metavar="BITS,…",
        help="Which widths weights may have.",
        callback=checks.widths("--widths"),
    ),
]
ActivationWidths = Annotated[
    str,
    typer.Option(
        "--activation-widths",
        metavar="BITS,…",
        help="Which widths activations may have. Default: they keep those of the recipe.",
        callback=checks.widths("--activation-widths"),
    ),
]
MeasureName = Annotated[
    Literal["output_kl", "output_mse", "hessian"],
    typer.Option(
        "--measure",
        metavar="MEASURE",
        help="What counts as an error: output_kl, output_mse or hessian.",
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option(
        "--picture",
        metavar="CURVE.svg",
        help="Draw the curve of all budgets.",
        callback=checks.drawing_file,
    ),
]


def search(
    model: Model,
    data: Data,
    output_folder: SearchFolder,
    as_uniform: AsUniform = None,
    budget: Budget = None,
    cost: Cost = "weight-bits",
    recipe: Recipe = "w4a8",
    target: Target = "asic",
    accelerator: Accelerator = "reference",
    calibration_samples: MeasuredSamples = 64,
    widths: Widths = "2,3,4,6,8",
    activation_widths: ActivationWidths = "",
    measure: MeasureName = "output_kl",
    picture: Picture = None,
) -> None:
    """Choose how many bits each layer gets, by what they cost the network's outputs.

    The folder holds the allocation with everything that was measured, and the recipe for convert.

    Example: photomask chip search resnet20 --data fashion-mnist --as-uniform 4 --output out
    """
    if (budget is None) == (as_uniform is None):
        raise UsageError("give a budget: either --as-uniform BITS or --budget N")
    from photomask.chip import load_recipe, prepare
    from photomask.chip.mixed_precision import allocate, measure_sensitivity, uniform_cost
    from photomask.cli.sources import first_of, load_inputs
    from photomask.zoo import load_model

    images = load_inputs(data, calibration_samples)
    example = first_of(images, 1)
    prepared = prepare(load_model(model), load_recipe(recipe), example, target=target)
    found = measure_sensitivity(
        prepared,
        images,
        weight_bits=_widths(widths),
        activation_bits=_widths(activation_widths),
        measure=measure,
        progress=progress(),
    )
    costs = _costs(cost, prepared, found, images, target, accelerator)
    limit = budget if as_uniform is None else uniform_cost(found, costs, as_uniform)
    allocation = allocate(prepared, found, costs, int(limit or 0))
    _write(allocation, prepared, output_folder, picture)


def _write(
    allocation: "Allocation", prepared: "PreparedModel", folder: Path, picture: Path | None
) -> None:
    from photomask.chip import save_recipe
    from photomask.chip.mixed_precision import pareto, save_pareto_curve
    from photomask.documents import written_whole

    found, costs = allocation.sensitivities, allocation.costs
    with written_whole(folder, OUTPUT) as staging:
        allocation.save(staging / ALLOCATION_FILE)
        save_recipe(allocation.recipe(prepared), staging / RECIPE_FILE)
    if picture is not None:
        save_pareto_curve(found, costs, pareto(found, costs), picture)
    typer.echo(str(allocation))
    messages().print(f"written to {folder}")


def _widths(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word.strip())


def _costs(
    unit: Unit,
    prepared: "PreparedModel",
    found: "Sensitivities",
    images: "Samples",
    target: str,
    accelerator: str,
) -> "Costs":
    from photomask.chip import load_target
    from photomask.chip.cost import load_accelerator
    from photomask.chip.mixed_precision import bit_operation_costs, cycle_costs, weight_bit_costs
    from photomask.cli.sources import first_of

    if unit == "weight-bits":
        return weight_bit_costs(prepared, found)
    if unit == "bit-operations":
        return bit_operation_costs(prepared, found)
    machine = load_accelerator(accelerator)
    return cycle_costs(prepared, found, first_of(images, 8), load_target(target), machine)
