"""Adapts the training loop to float modules."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from photomask.chip.training.checkpoint import MODEL, read_tensors, write_tensors
from photomask.chip.training.data import TrainingData
from photomask.chip.training.documents import first_change
from photomask.chip.training.objective import Objective
from photomask.chip.training.optimization import float_parameter_groups
from photomask.chip.training.processes import Processes
from photomask.chip.training.settings import Schedule
from photomask.chip.training.trainee import Trainee
from photomask.documents import SealedDocument, read_text
from photomask.errors import TrainingError


class FloatModelDocument(SealedDocument):
    """Describes the float module that the tensors of a checkpoint belong to.

    Attributes:
        training: what the module was trained for.
        tensors: a line for each tensor: its name, its dtype and its shape.
        tensors_sha256: the SHA-256 of the tensor file beside the document.
    """

    schema_version: Literal[1] = 1
    training: str
    tensors: tuple[str, ...]
    tensors_sha256: str


class FloatTrainee(Trainee):
    """A float module, whose outputs a loss compares.

    Args:
        module: the module that learns.
        loss: returns the loss of a batch, [], from its inputs and labels.
        schedule: the schedule.
        description: what is trained.
    """

    remedy = "try a lower learning rate, or a warm-up"

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[list[Tensor], Tensor | None], Tensor],
        schedule: Schedule,
        description: str,
    ):
        self.module = module
        self.schedule = schedule
        self.description = description
        self._loss = loss

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns weights and biases, each with its learning rate and decay."""
        return float_parameter_groups(self.module, self.schedule)

    def objective(self, device: torch.device) -> Objective:
        """Returns the function that computes the loss of a batch."""
        bfloat16, loss = self.schedule.bfloat16, self._loss

        def objective(inputs: list[Tensor], labels: Tensor | None) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                return loss(inputs, labels)

        return objective

    def statistics(self) -> list[Tensor]:
        """Returns the running statistics of batch norms."""
        return [x for x in self.module.buffers() if x.is_floating_point()]

    def finish(self, data: TrainingData, processes: Processes) -> None:
        """Puts the module into evaluation mode."""
        self.module.eval()

    def last_in_order(self, parameters: list[str]) -> str:
        """Returns the parameter that was defined last, which models usually use last."""
        return parameters[-1]

    @torch.no_grad()
    def first_bad_place(self, inputs: Sequence[Tensor]) -> str:
        """Computes a batch again, and names the first module whose output is not finite."""
        for number, x in enumerate(inputs):
            if x.is_floating_point() and not bool(torch.isfinite(x).all()):
                return f"the first tensor that is not finite is input {number} of the batch"
        found: list[str] = []

        def watch(name: str, module: nn.Module) -> Any:
            def look(_: nn.Module, __: Any, output: Any) -> None:
                bad = isinstance(output, Tensor) and not bool(torch.isfinite(output).all())
                if bad and not any(module.children()):
                    found.append(f"{name} ({type(module).__name__})")

            return module.register_forward_hook(look)

        hooks = [watch(name, module) for name, module in self.module.named_modules()]
        try:
            self._loss(list(inputs), None)
        finally:
            for hook in hooks:
                hook.remove()
        if found:
            return f"the first output that is not finite is that of {found[0]}"
        return "the outputs of all modules are finite; check the loss"

    def write(self, folder: Path) -> SealedDocument:
        """Writes the pair of files of the module, and returns the document."""
        state = self.module.state_dict()
        document = FloatModelDocument(
            training=self.description,
            tensors=tuple(_lines(state)),
            tensors_sha256=write_tensors(state, folder / f"{MODEL}.safetensors"),
        ).sealed()
        (folder / f"{MODEL}.json").write_text(document.render(), encoding="utf-8")
        return document

    def read(self, folder: Path) -> tuple[SealedDocument, dict[str, Tensor]]:
        """Returns the checked content of the pair of files of the module.

        Raises:
            DocumentError: a file is missing, damaged or altered.
            TrainingError: the files belong to another module or method.
        """
        path = folder / f"{MODEL}.json"
        document = FloatModelDocument.parse(read_text(path), str(path))
        if document.training != self.description:
            raise TrainingError(
                f"{folder} is the checkpoint of another training: it was {document.training}, but "
                f"here it is {self.description}; choose another folder"
            )
        tensors = read_tensors(folder / f"{MODEL}.safetensors", document.tensors_sha256)
        expected = _lines(self.module.state_dict())
        for lines in (list(document.tensors), _lines(tensors)):
            if lines != expected:
                raise TrainingError(
                    f"{folder} belongs to another model: {first_change(lines, expected)}"
                )
        return document, tensors

    def put(self, document: SealedDocument, tensors: Mapping[str, Tensor], folder: Path) -> None:
        """Puts the content of the files into the module."""
        self.module.load_state_dict(cast(dict[str, Tensor], tensors))


def _lines(tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted(
        f"{name}: {str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
        for name, x in tensors.items()
    )
