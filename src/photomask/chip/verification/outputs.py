"""The program's outputs beside the model's, over all samples."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.export import ExportedProgram

from photomask.chip.engines import TorchEngine
from photomask.chip.graph.float_model import FloatModel
from photomask.chip.program import IntegerProgram
from photomask.chip.verification.documents import OutputReport
from photomask.chip.verification.engines import quantized
from photomask.errors import DataError
from photomask.report import NoiseMeter, Progress, Top1Meter

LARGEST_BATCH = 64
BATCH_ELEMENTS = 1 << 19
"""Input elements of a batch; bounds the memory of a network's layers."""


class Reference:
    """The float model in evaluation mode and float32; the model that was given is not changed.

    Args:
        model: as it was given to `prepare`.
        names: of its inputs, by which it is called where its `forward` has such parameters.
    """

    def __init__(self, model: nn.Module | ExportedProgram, names: Sequence[str]):
        self.model = FloatModel(model, names)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns the model's output tensors, in order, on the CPU."""
        return [value.cpu() for value in self.model(inputs)]


def split(inputs: Sequence[Tensor], count: int | None = None) -> list[list[Tensor]]:
    """Splits inputs into batches of a size that fits the memory.

    Args:
        inputs: one tensor per input, samples at axis 0.
        count: how many samples; None takes all.
    """
    total = len(inputs[0]) if count is None else min(count, len(inputs[0]))
    elements = sum(x[0].numel() for x in inputs)
    size = max(1, min(LARGEST_BATCH, BATCH_ELEMENTS // max(1, elements)))
    return [
        [x[start : min(start + size, total)] for x in inputs] for start in range(0, total, size)
    ]


def check_outputs_fit(program: IntegerProgram, outputs: Sequence[Tensor]) -> None:
    """Refuses a model whose outputs are not those of the program.

    Raises:
        DataError: says what differs.
    """
    shapes = [tuple(value.shape[1:]) for value in outputs]
    expected = [program.edges[name].shape[1:] for name in program.outputs]
    if shapes != expected:
        raise DataError(
            f"the model's outputs have shapes {shapes} for one sample, the program's {expected}: "
            "the program was made from another model"
        )


def compare_outputs(
    program: IntegerProgram,
    engine: TorchEngine,
    reference: Reference,
    inputs: Sequence[Tensor],
    labels: Sequence[Tensor | None],
    first_output: Callable[[Tensor, Tensor, Tensor | None], None],
    progress: Progress,
) -> tuple[OutputReport, ...]:
    """Runs model and program on all samples and compares every output.

    Args:
        program: what to compare.
        engine: runs the program.
        reference: the float model.
        inputs: one tensor per input.
        labels: per output, the right classes [samples] or None.
        first_output: is called with each batch of the first output: the float values, what the
            integers stand for, and the right classes or None.
        progress: shows how far it is.
    """
    noise = [NoiseMeter() for _ in program.outputs]
    top1 = [Top1Meter() for _ in program.outputs]
    done = 0
    for batch in progress(split(inputs), "float and integer outputs"):
        expected = reference(batch)
        check_outputs_fit(program, expected)
        found = engine.run(quantized(program, batch))
        for position, name in enumerate(program.outputs):
            edge = program.edges[name]
            codes = found[name].cpu()
            value = expected[position]
            right = labels[position]
            chosen = None if right is None else right[done : done + len(value)]
            real = edge.dequantize(codes)
            noise[position].add(value, real)
            if position == 0:
                first_output(value, real, chosen)
            if is_classes(edge.shape):
                top1[position].add(value, codes, chosen)
        done += len(batch[0])
    return tuple(
        OutputReport(
            name=name,
            sqnr_db=noise[position].sqnr_db,
            float_top1=top1[position].reference_top1,
            integer_top1=top1[position].found_top1,
            agreement=top1[position].agreement if top1[position].samples else None,
        )
        for position, name in enumerate(program.outputs)
    )


def is_classes(shape: tuple[int, ...]) -> bool:
    """Tells whether an output holds one score for each of several classes."""
    return len(shape) == 2 and shape[1] > 1
