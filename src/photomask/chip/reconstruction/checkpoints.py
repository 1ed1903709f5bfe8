"""Saves finished blocks, so that an interrupted reconstruction continues where it stopped."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from photomask.arrays import tensor_file
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.reconstruction.documents import BlockReport, ReconstructionSettings
from photomask.chip.reconstruction.learner import Learned
from photomask.documents import SealedDocument, is_file, read_text, write_file
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


class RunDocument(SealedDocument):
    """Identifies a run of reconstruction; a checkpoint belongs to exactly one run.

    Attributes:
        settings: the settings of the reconstruction.
        recipe: the recipe as printed.
        model_sha256: the SHA-256 of weights and scales before anything was learned.
        data_sha256: the SHA-256 of all samples.
        blocks: the names of the blocks, in order.
    """

    schema_version: Literal["2"] = "2"
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
    """Returns the document that identifies a run."""
    return RunDocument(
        settings=settings,
        recipe=str(prepared.recipe),
        model_sha256=_hash(
            [t for name, t in prepared.state_dict().items() if not name.startswith("standing.")]
        ),
        data_sha256=_hash(inputs),
        blocks=tuple(blocks),
    ).sealed()


class _Block(SealedDocument):
    """Describes the saved tensors of a block.

    Attributes:
        run_sha256: the content hash of the run that the block belongs to.
        index: the index of the block.
        report: the report of the block.
        tensors_sha256: the SHA-256 of the tensors' names, shapes, dtypes and elements.
    """

    run_sha256: str
    index: int
    report: BlockReport
    tensors_sha256: str


class Checkpoints:
    """A folder with one file for each finished block.

    Args:
        folder: the folder, which is created if it does not exist.
        run: the run that the blocks belong to.

    Raises:
        UsageError: the folder belongs to another run, whose differences are named, or holds other
            files.
        DocumentError: the description of the run is damaged.
    """

    def __init__(self, folder: Path, run: RunDocument):
        self.folder = folder
        description = folder / RUN_FILE
        self.run = run
        if is_file(description):
            _refuse_another(
                RunDocument.parse(read_text(description), str(description)), run, folder
            )
            return
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file, but a checkpoint is a folder; choose another")
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(
                f"{folder} is not empty and holds no checkpoint; choose another folder"
            )
        write_file(description, run.render().encode())

    def save(self, index: int, learned: Learned, report: BlockReport) -> None:
        """Writes a block; the file appears only once it is complete."""
        tensors = {
            f"{field}/{name}": tensor.detach().cpu().contiguous()
            for field in FIELDS
            for name, tensor in getattr(learned, field).items()
        }
        block = _Block(
            run_sha256=self.run.content_sha256,
            index=index,
            report=report,
            tensors_sha256=_hash_named(tensors),
        ).sealed()
        write_file(self._path(index), safetensors.torch.save(tensors, {"block": block.render()}))

    def load(self, index: int, expected: Learned) -> tuple[Learned, BlockReport] | None:
        """Returns a finished block, or None where it is not finished.

        Args:
            index: the index of the block.
            expected: the state of the block before it learns. The saved tensors must have the same
                names, shapes and dtypes.

        Raises:
            DocumentError: the file is damaged or altered, or belongs to another block.
        """
        path = self._path(index)
        if not path.exists():
            return None
        try:
            return self._read(path, index, expected)
        except DocumentError as error:
            raise DocumentError(
                f"{path} is damaged ({error}); remove it, and the block is reconstructed again"
            ) from error

    def _read(self, path: Path, index: int, expected: Learned) -> tuple[Learned, BlockReport]:
        with tensor_file(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            text = (file.metadata() or {}).get("block", "")
        block = _Block.parse(text, str(path))
        if block.tensors_sha256 != _hash_named(tensors):
            raise DocumentError("the tensors are not those that were saved")
        if (block.run_sha256, block.index) != (self.run.content_sha256, index):
            raise DocumentError("it belongs to another block or to another run")
        if block.report.name != self.run.blocks[index]:
            raise DocumentError(
                f"it holds the block {block.report.name!r}, expected {self.run.blocks[index]!r}"
            )
        wanted = {
            f"{field}/{name}": tensor
            for field in FIELDS
            for name, tensor in getattr(expected, field).items()
        }
        if odd := sorted(set(tensors) ^ set(wanted)):
            raise DocumentError(
                f"the tensors of the file and of the block differ, first in {odd[0]!r}"
            )
        for key, tensor in tensors.items():
            form, own = (tensor.dtype, tensor.shape), (wanted[key].dtype, wanted[key].shape)
            if form != own:
                raise DocumentError(f"{key} is {form[0]} {list(form[1])}, expected {own}")
            if not bool(torch.isfinite(tensor).all()):
                raise DocumentError(f"{key} holds NaN or infinity")
            if key.startswith("scales/") and not bool((tensor > 0).all()):
                raise DocumentError(f"{key} holds {float(tensor.min())}, but scales are positive")
        parts = {
            field: {
                key.partition("/")[2]: tensor
                for key, tensor in tensors.items()
                if key.startswith(f"{field}/")
            }
            for field in FIELDS
        }
        return Learned(parts["weights"], parts["biases"], parts["scales"]), block.report

    def _path(self, index: int) -> Path:
        return self.folder / f"block-{index:04d}.safetensors"


def _refuse_another(found: RunDocument, run: RunDocument, folder: Path) -> None:
    """Raises an error if a checkpoint belongs to another run, and names each difference."""
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
            f"the checkpoint in {folder} belongs to another run, which differs in: "
            f"{'; '.join(differences)}. Choose another folder, or repeat that run"
        )


def _hash_named(tensors: Mapping[str, Tensor]) -> str:
    names = sorted(tensors)
    text = json.dumps(names) + _hash([tensors[name] for name in names])
    return hashlib.sha256(text.encode()).hexdigest()


def _hash(tensors: Sequence[Tensor]) -> str:
    """Returns the SHA-256 of the shapes, dtypes and elements of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
