"""Runs a program in PyTorch, in the fastest arithmetic that is proven to be exact."""

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
    """Runs a program on a CPU or a GPU, with the integers of the oracle.

    When the engine is made, each operator chooses its arithmetic by the program's proven intervals:
    float32 below 2**24, float64 below 2**53, and int64 above.
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
        """Yields every edge with its int64 codes in the order of computation, inputs first.

        Args:
            inputs: int64 codes with the batch at axis 0, on any device. They are a dictionary by
                input name, or one tensor for a program with one input.

        Raises:
            DataError: an input is missing, is not integer, exceeds its format or has a wrong shape.
        """
        carriers = self._carriers(inputs)
        while True:
            with exact_arithmetic(self.device.type):
                edge = next(carriers, None)
            if edge is None:
                return
            yield edge[0], edge[1].to(torch.int64)

    def run(self, inputs: Inputs) -> dict[str, torch.Tensor]:
        """Returns the output edges by name as int64 codes.

        Args:
            inputs: the inputs, as for `edges`.

        Raises:
            DataError: an input is missing, is not integer, exceeds its format or has a wrong shape.
        """
        wanted = set(self.program.outputs)
        with exact_arithmetic(self.device.type):
            values = {name: value for name, value in self._carriers(inputs) if name in wanted}
            return {name: values[name].to(torch.int64) for name in self.program.outputs}

    def _carriers(self, inputs: Inputs) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields edges in their carrier dtypes, and frees each after its last use."""
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
    """Switches off, inside a context, everything that rounds inside a float32 product.

    These are autocast, the TF32 and bfloat16 modes of cuBLAS and oneDNN, and NNPACK, whose
    convolutions use Winograd and Fourier transforms.
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
