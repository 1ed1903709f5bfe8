"""`photomask chip search`: a width for each tensor, within a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from photomask.cli.console import messages
from photomask.cli.options import Data, Model, Recipe, Target

if TYPE_CHECKING:
    from photomask.chip import PreparedModel
    from photomask.chip.mixed_precision import Allocation, Costs, Sensitivities
    from photomask.zoo import Samples

Unit = Literal["weight-bits", "bit-operations", "cycles"]
ALLOCATION_FILE, RECIPE_FILE = "allocation.json", "recipe.json"


def search(
    model: Model,
    data: Data,
    output_folder: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Where allocation and recipe go.")
    ],
    as_uniform: Annotated[
        int | None,
        typer.Option(metavar="BITS", help="The budget is what this width costs everywhere."),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="N", help="The budget, in units of --cost.")
    ] = None,
    cost: Annotated[Unit, typer.Option(help="What the budget counts.")] = "weight-bits",
    recipe: Recipe = "w4a8",
    widths: Annotated[str, typer.Option(help="Of weights, with commas.")] = "2,3,4,6,8",
    activation_widths: Annotated[
        str, typer.Option(help="Of activations; by default they stay as they are.")
    ] = "",
    measure: Annotated[
        Literal["output_kl", "output_mse", "hessian"], typer.Option(help="What counts as an error.")
    ] = "output_kl",
    calibration_samples: Annotated[
        int, typer.Option(min=1, help="How many samples to measure on.")
    ] = 64,
    target: Target = "asic",
    accelerator: Annotated[
        str, typer.Option(metavar="NAME", help="For cycles: a preset, or a JSON file.")
    ] = "reference",
    picture: Annotated[
        Path | None, typer.Option(metavar="CURVE.svg", help="Draw the curve of all budgets.")
    ] = None,
) -> None:
    """Choose how many bits each layer gets, by what they cost the network's outputs.

    The folder holds the allocation with everything that was measured, and the recipe for convert.

    Example: photomask chip search resnet20 --data fashion-mnist --as-uniform 4 --output out
    """
    from photomask.chip import load_recipe, prepare
    from photomask.chip.mixed_precision import allocate, measure_sensitivity, uniform_cost
    from photomask.cli.sources import first_of, load_inputs
    from photomask.errors import UsageError
    from photomask.report import check_drawing
    from photomask.zoo import load_model

    if (budget is None) == (as_uniform is None):
        raise UsageError("give a budget: either --as-uniform BITS or --budget N")
    if picture is not None:
        check_drawing()
    bits = _widths(widths, "--widths")
    images = load_inputs(data, calibration_samples)
    prepared = prepare(load_model(model), load_recipe(recipe), first_of(images, 1))
    found = measure_sensitivity(
        prepared,
        images,
        weight_bits=bits,
        activation_bits=_widths(activation_widths, "--activation-widths"),
        measure=measure,
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
    with written_whole(folder, "width search") as staging:
        allocation.save(staging / ALLOCATION_FILE)
        save_recipe(allocation.recipe(prepared), staging / RECIPE_FILE)
    if picture is not None:
        save_pareto_curve(found, costs, pareto(found, costs), picture)
    typer.echo(str(allocation))
    messages().print(f"written to {folder}")


def _widths(text: str, option: str) -> tuple[int, ...]:
    from photomask.errors import UsageError

    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise UsageError(f"{option} takes whole numbers with commas, found {text!r}") from None


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
