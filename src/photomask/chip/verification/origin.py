"""From what a report was made: data, recipe, versions."""

import hashlib
from collections.abc import Mapping, Sequence

from torch import Tensor

from photomask.chip.program import IntegerProgram
from photomask.chip.recipe import Recipe
from photomask.chip.recipe.documents import RecipeDocument
from photomask.chip.recipe.saving import recipe_document
from photomask.chip.target import Target
from photomask.documents import Document
from photomask.errors import RecipeError
from photomask.report import Fold, RunRecord, Section


class DataRecord(Document):
    """One tensor of the data that a report was made on.

    Attributes:
        name: of the program's input; or of its output, for the right classes of that.
        what: whether it is an input, or labels.
        shape: samples first.
        dtype: of the elements.
        sha256: of the elements as bytes, in row-major order.
    """

    name: str
    what: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str

    @classmethod
    def of(cls, name: str, what: str, tensor: Tensor) -> "DataRecord":
        """Returns the record of a tensor."""
        array = tensor.detach().cpu().contiguous().numpy()
        return cls(
            name=name,
            what=what,
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            sha256=hashlib.sha256(array.data).hexdigest(),
        )


def data_records(
    program: IntegerProgram, tensors: Sequence[Tensor], labels: Sequence[Tensor | None]
) -> tuple[DataRecord, ...]:
    """Returns a record for each input and for each output's labels."""
    inputs = zip(program.inputs, tensors, strict=True)
    given = zip(program.outputs, labels, strict=True)
    return (
        *(DataRecord.of(name, "input", x) for name, x in inputs),
        *(DataRecord.of(name, "labels", x) for name, x in given if x is not None),
    )


def recipe_record(recipe: Recipe) -> RecipeDocument | None:
    """Returns a recipe as a document; None where it has quantizers of the user's own."""
    try:
        return recipe_document(recipe)
    except RecipeError:
        return None


def origin_section(
    program_sha256: str,
    provenance: Mapping[str, str],
    target: Target,
    run: RunRecord,
    data: Sequence[DataRecord],
    recipe: RecipeDocument | None,
) -> Section:
    """Returns what is needed to make the report again.

    Args:
        program_sha256: the program's content hash.
        provenance: what the program says of how it was made.
        target: the numeric contract.
        run: when, where and with which versions.
        data: what was verified on.
        recipe: as a document, where the prepared model was at hand.
    """
    facts = [("program", program_sha256), ("target", target.name), *run.facts()]
    for record in data:
        shape = "×".join(map(str, record.shape))
        facts.append(
            (f"{record.what} {record.name}", f"{shape} {record.dtype}, SHA-256 {record.sha256}")
        )
    folds = [Fold(name.capitalize(), text) for name, text in provenance.items() if text]
    if recipe is not None:
        folds.append(Fold("Recipe as a document", recipe.render()))
    folds.append(Fold("Target as a document", target.render()))
    text = "What is needed to make this report again."
    return Section("Origin", text, facts=facts, folds=folds, in_terminal=False)
