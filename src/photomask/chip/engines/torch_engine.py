"""The fast engine: the oracle's integers, computed in whatever arithmetic is proven exact."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch

from photomask.chip.engines.numpy_engine import check_codes
from photomask.chip.operators import TorchFunction
from photomask.chip.program import IntegerProgram, Step


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
        self._last_use = {
            name: index for index, step in enumerate(program.steps) for name in step.inputs
        }

    def edges(self, inputs: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields every edge and its int64 codes in the order of computation, inputs first.

        Args:
            inputs: int64 codes by input name, batch first, on any device.

        Raises:
            DataError: an input is missing, not integer, out of its format or of another shape.
        """
        for name, value in self._carriers(inputs):
            yield name, value.to(torch.int64)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns the output edges as int64 codes."""
        wanted = set(self.program.outputs)
        return {
            name: value.to(torch.int64) for name, value in self._carriers(inputs) if name in wanted
        }

    def _carriers(self, inputs: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields edges in their carrier dtypes; each is dropped after its last use."""
        values: dict[str, torch.Tensor] = {}
        for name in self.program.inputs:
            codes = inputs.get(name)
            check_codes(self.program, name, None if codes is None else codes.cpu().numpy())
            value = inputs[name].to(self.device, torch.float32)
            if value.ndim == 4:
                value = value.contiguous(memory_format=torch.channels_last)
            values[name] = value
            yield name, value
        for index, (step, function) in enumerate(self._functions):
            with exact_arithmetic(self.device.type):
                value = function(*(values[name] for name in step.inputs))
            values[step.output] = value
            for name in step.inputs:
                if self._last_use[name] == index:
                    values.pop(name, None)
            yield step.output, value


@contextmanager
def exact_arithmetic(device_type: str) -> Iterator[None]:
    """Forbids what would round inside a float32 product: autocast, TF32 and bfloat16 passes."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device_type, enabled=False))
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        stack.callback(torch.set_float32_matmul_precision, precision)
        yield
