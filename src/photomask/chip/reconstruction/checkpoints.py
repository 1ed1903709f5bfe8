"""Blocks that are done, on disk: a run that was interrupted goes on where it stopped."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
from torch import Tensor

from photomask.chip.preparation import PreparedModel
from photomask.chip.reconstruction.documents import BlockReport, ReconstructionSettings
from photomask.chip.reconstruction.learner import Learned
from photomask.documents import Document, read_text, write_file
from photomask.errors import DocumentError, UsageError

RUN_FILE = "run.json"
FIELDS = ("weights", "biases", "scales")
WORDS = {
    "settings": "settings",
    "recipe": "recipe",
    "model_sha256": "weights or calibrated scales of the model",
    "data_sha256": "data",
    "blocks": "blocks of the model",
}


class RunDocument(Document):
    """What a run of reconstruction is made of; a checkpoint belongs to exactly one.

    Attributes:
        settings: how it is done.
        recipe: as it prints.
        model_sha256: of weights and scales before anything was learned.
        data_sha256: of all samples.
        blocks: names, in order.
    """

    schema_version: Literal["1"] = "1"
    settings: ReconstructionSettings
    recipe: str
    model_sha256: str
    data_sha256: str
    blocks: tuple[str, ...]


def describe_run(
    prepared: PreparedModel,
    inputs: Sequence[Tensor],
    settings: ReconstructionSettings,
    blocks: Sequence[str],
) -> RunDocument:
    """Returns what identifies a run."""
    return RunDocument(
        settings=settings,
        recipe=str(prepared.recipe),
        model_sha256=_hash(list(prepared.state_dict().values())),
        data_sha256=_hash(inputs),
        blocks=tuple(blocks),
    )


class Checkpoints:
    """A folder with one file for each block that is done.

    Args:
        folder: made if it is not there.
        run: what the blocks belong to.

    Raises:
        UsageError: the folder belongs to another run, whose differences are named, or holds
            something else.
        DocumentError: its description is damaged.
    """

    def __init__(self, folder: Path, run: RunDocument):
        self.folder = folder
        description = folder / RUN_FILE
        if description.is_file():
            _refuse_another(
                RunDocument.parse(read_text(description), str(description)), run, folder
            )
            return
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; a checkpoint is a folder")
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(
                f"{folder} is not empty and holds no checkpoint; choose another folder"
            )
        write_file(description, run.render().encode())

    def save(self, index: int, learned: Learned, report: BlockReport) -> None:
        """Writes a block; the file appears whole or not at all."""
        tensors = {
            f"{field}/{name}": tensor.detach().cpu().contiguous()
            for field in FIELDS
            for name, tensor in getattr(learned, field).items()
        }
        content = safetensors.torch.save(tensors, {"report": report.render()})
        write_file(self._path(index), content)

    def load(self, index: int) -> tuple[Learned, BlockReport] | None:
        """Returns a block that is done, or None.

        Raises:
            DocumentError: its file is damaged.
        """
        path = self._path(index)
        if not path.is_file():
            return None
        tensors: dict[str, dict[str, Tensor]] = {field: {} for field in FIELDS}
        try:
            with safetensors.safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118 - a file, not a dictionary
                    field, _, name = key.partition("/")
                    tensors[field][name] = file.get_tensor(key)
                text = (file.metadata() or {})["report"]
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise DocumentError(
                f"{path} is damaged ({error}): remove it, and the block is reconstructed again"
            ) from error
        learned = Learned(tensors["weights"], tensors["biases"], tensors["scales"])
        return learned, BlockReport.parse(text, str(path))

    def _path(self, index: int) -> Path:
        return self.folder / f"block-{index:04d}.safetensors"


def _refuse_another(found: RunDocument, run: RunDocument, folder: Path) -> None:
    """Raises if a checkpoint's run is not this one; settings are named one by one."""
    differences = []
    for field, words in WORDS.items():
        theirs, ours = getattr(found, field), getattr(run, field)
        if theirs == ours:
            continue
        if field == "settings":
            old, new = theirs.model_dump(), ours.model_dump()
            differences += [f"{k} {old[k]} (now {new[k]})" for k in old if old[k] != new[k]]
        else:
            differences.append(words)
    if differences:
        raise UsageError(
            f"the checkpoint in {folder} is of another run, which differs in: "
            f"{'; '.join(differences)}. Choose another folder, or repeat that run"
        )


def _hash(tensors: Sequence[Tensor]) -> str:
    """Returns the SHA-256 of tensors' shapes, dtypes and elements."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
