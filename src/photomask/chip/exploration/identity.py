"""Identifies what a study explores, so that it is never continued with something else."""

import hashlib
import json
from collections.abc import Sequence
from typing import Self

from torch import Tensor

import photomask
from photomask.chip.exploration.evaluation import Evaluator
from photomask.chip.exploration.points import Metric
from photomask.chip.exploration.space import SearchSpace
from photomask.chip.graph import FloatGraph
from photomask.chip.training import TrainingSettings
from photomask.documents import Document

WORDS = {
    "model_sha256": "model",
    "data_sha256": "calibration data",
    "test_sha256": "held-out data",
    "space_sha256": "search space",
    "objectives": "objectives",
    "training": "settings of the training",
    "training_sha256": "training data",
    "photomask": "version of Photomask",
}
"""What differs, for messages, by field."""


class StudyIdentity(Document):
    """Identifies a study: its trials can be compared only if all of this is the same.

    Attributes:
        model_sha256: the hash of the captured model: its operations and its weights.
        data_sha256: the hash of the calibration data.
        test_sha256: the hash of the held-out data and their labels.
        space_sha256: the hash of the search space, with all presets and files that it names.
        objectives: the metrics that the study improves.
        training: the settings of the training, or None.
        training_sha256: the hash of the training data; empty without a training.
        photomask: the version of this package.
    """

    model_sha256: str
    data_sha256: str
    test_sha256: str
    space_sha256: str
    objectives: tuple[Metric, ...]
    training: TrainingSettings | None
    training_sha256: str
    photomask: str

    @classmethod
    def of(cls, evaluator: Evaluator, space: SearchSpace, objectives: tuple[Metric, ...]) -> Self:
        """Returns the identity of the study of a model."""
        training = evaluator.training
        hashed = "" if training is None else _hash([*training.inputs, training.labels])
        return cls(
            model_sha256=_model_hash(evaluator.graph),
            data_sha256=_hash(evaluator.inputs),
            test_sha256=_hash([*evaluator.test_inputs, evaluator.labels]),
            space_sha256=_space_hash(space),
            objectives=objectives,
            training=None if training is None else training.settings,
            training_sha256=hashed,
            photomask=photomask.__version__,
        )

    def differences(self, other: "StudyIdentity") -> list[str]:
        """Returns what differs from another identity, in words."""
        return [
            words for name, words in WORDS.items() if getattr(self, name) != getattr(other, name)
        ]


def _model_hash(graph: FloatGraph) -> str:
    nodes = [
        (node.name, node.operation.kind, node.inputs, sorted(node.constants.items()), node.shape)
        for node in graph.nodes
    ]
    names = sorted(graph.constants)
    text = json.dumps([nodes, graph.outputs, names])
    return hashlib.sha256(
        (text + _hash([graph.constants[name] for name in names])).encode()
    ).hexdigest()


def _space_hash(space: SearchSpace) -> str:
    """Returns the hash of a space in which every name is replaced by what it names."""
    body = space.resolved().model_dump(mode="json")
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _hash(tensors: Sequence[Tensor]) -> str:
    """Returns the SHA-256 of the shapes, dtypes and elements of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
