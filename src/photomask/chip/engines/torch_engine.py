"""The fast engine: the oracle's integers, computed in whatever arithmetic is proven exact."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from photomask.chip.arithmetic import carrier
from photomask.chip.operators import TorchFunction
from photomask.chip.program import IntegerProgram, Step
from photomask.chip.program.codes import Inputs, codes_by_name
from photomask.chip.program.oracle import check_inputs


class TorchEngine:
    """Runs a program on a CPU or a GPU.

    Each operator picks its arithmetic from the program's proven intervals when the engine is made:
    float32 below 2**24, float64 below 2**53, int64 above.
    """

    def __init__(self, program: IntegerProgram, device: str | torch.device = "cpu"):
        self.program = program
        self.device = torch.device(device)
        self._functions: list[tuple[Step, TorchFunction]] = [
            (
                step,
                step.operator.compile_torch(
                    [program.edges[name].interval for name in step.inputs],
                    program.parameters(step),
                    self.device,
                ),
            )
            for step in program.steps
        ]

    def edges(self, inputs: Inputs) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields every edge and its int64 codes in the order of computation, inputs first.

        Args:
            inputs: int64 codes, batch first, on any device, by input name; or alone, for a program
                with one input.

        Raises:
            DataError: an input is missing, not integer, out of its format or of another shape.
        """
        carriers = self._carriers(inputs)
        while True:
            with exact_arithmetic(self.device.type):
                edge = next(carriers, None)
            if edge is None:
                return
            yield edge[0], edge[1].to(torch.int64)

    def run(self, inputs: Inputs) -> dict[str, torch.Tensor]:
        """Returns the output edges by name as int64 codes; takes what `edges` takes."""
        wanted = set(self.program.outputs)
        with exact_arithmetic(self.device.type):
            values = {name: value for name, value in self._carriers(inputs) if name in wanted}
            return {name: values[name].to(torch.int64) for name in self.program.outputs}

    def _carriers(self, inputs: Inputs) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields edges in their carrier dtypes; each is dropped after its last use."""
        given = codes_by_name(self.program, inputs)
        check_inputs(self.program, {name: codes.cpu().numpy() for name, codes in given.items()})
        values: dict[str, torch.Tensor] = {}
        for name in self.program.inputs:
            value = given[name].to(self.device, carrier(self.program.edges[name].interval))
            if value.ndim == 4:
                value = value.contiguous(memory_format=torch.channels_last)
            values[name] = value
            yield name, value
        for index, (step, function) in enumerate(self._functions):
            value = function(*(values[name] for name in step.inputs))
            values[step.output] = value
            for name in step.inputs:
                if self.program.links.last_reads[name] == index:
                    values.pop(name, None)
            yield step.output, value


@contextmanager
def exact_arithmetic(device_type: str) -> Iterator[None]:
    """Forbids what would round inside a float32 product.

    That is autocast, the TF32 and bfloat16 modes of cuBLAS and oneDNN, and NNPACK, whose
    convolutions go through Winograd and Fourier transforms.
    """
    onednn: Any = torch.backends.mkldnn
    backends = (onednn.conv, onednn.matmul, torch.backends.cuda.matmul)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(torch.backends.nnpack.flags(enabled=False))
        for backend in backends:
            stack.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
            backend.fp32_precision = "ieee"
        yield
