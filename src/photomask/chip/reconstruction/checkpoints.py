"""Blocks that are done, on disk: a run that was interrupted goes on where it stopped."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from photomask.arrays import tensor_file
from photomask.chip.preparation import PreparedModel
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
    """What a run of reconstruction is made of; a checkpoint belongs to exactly one.

    Attributes:
        settings: how it is done.
        recipe: as it prints.
        model_sha256: of weights and scales before anything was learned.
        data_sha256: of all samples.
        blocks: names, in order.
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
    """Returns what identifies a run."""
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
    """What stands beside the tensors of a block.

    Attributes:
        run_sha256: content hash of the run that it belongs to.
        index: of the block.
        report: what came of it.
        tensors_sha256: of names, shapes, dtypes and elements of the tensors.
    """

    run_sha256: str
    index: int
    report: BlockReport
    tensors_sha256: str


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
        self.run = run
        if is_file(description):
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
        block = _Block(
            run_sha256=self.run.content_sha256,
            index=index,
            report=report,
            tensors_sha256=_hash_named(tensors),
        ).sealed()
        write_file(self._path(index), safetensors.torch.save(tensors, {"block": block.render()}))

    def load(self, index: int, expected: Learned) -> tuple[Learned, BlockReport] | None:
        """Returns a block that is done, or None.

        Args:
            index: of the block.
            expected: what the block has before it learns; names, shapes and dtypes must be these.

        Raises:
            DocumentError: its file is damaged or altered, or is another block's.
        """
        path = self._path(index)
        if not path.exists():
            return None
        try:
            return self._read(path, index, expected)
        except DocumentError as error:
            raise DocumentError(
                f"{path} is damaged ({error}): remove it, and the block is reconstructed again"
            ) from error

    def _read(self, path: Path, index: int, expected: Learned) -> tuple[Learned, BlockReport]:
        with tensor_file(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            text = (file.metadata() or {}).get("block", "")
        block = _Block.parse(text, str(path))
        if block.tensors_sha256 != _hash_named(tensors):
            raise DocumentError("the tensors are not those that were saved")
        if (block.run_sha256, block.index) != (self.run.content_sha256, index):
            raise DocumentError("it is of another block, or of another run")
        if block.report.name != self.run.blocks[index]:
            raise DocumentError(f"it reports on the block {block.report.name!r}")
        wanted = {
            f"{field}/{name}": tensor
            for field in FIELDS
            for name, tensor in getattr(expected, field).items()
        }
        if odd := sorted(set(tensors) ^ set(wanted)):
            raise DocumentError(f"{odd[0]!r} is not in both, the file and the block")
        for key, tensor in tensors.items():
            form, own = (tensor.dtype, tensor.shape), (wanted[key].dtype, wanted[key].shape)
            if form != own:
                raise DocumentError(f"{key} is {form[0]} {list(form[1])}, expected {own}")
            if not bool(torch.isfinite(tensor).all()):
                raise DocumentError(f"{key} holds NaN or infinity")
            if key.startswith("scales/") and not bool((tensor > 0).all()):
                raise DocumentError(f"{key} holds {float(tensor.min())}; scales are positive")
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


def _hash_named(tensors: Mapping[str, Tensor]) -> str:
    names = sorted(tensors)
    text = json.dumps(names) + _hash([tensors[name] for name in names])
    return hashlib.sha256(text.encode()).hexdigest()


def _hash(tensors: Sequence[Tensor]) -> str:
    """Returns the SHA-256 of tensors' shapes, dtypes and elements."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
