"""The transformer encoders that are measured: their data, and what is asked of their outputs."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from networks import images_for
from photomask import zoo
from photomask.errors import MissingDependencyError

TOKENS = 64
"""Of a snippet; the few longer ones are cut."""
TRAINING_SNIPPETS, TEST_SNIPPETS = 2000, 1000


@dataclass(frozen=True)
class Measure:
    """A number that says how well a network does, and with how many digits it is shown."""

    name: str
    unit: str = ""
    digits: int = 2


@dataclass(frozen=True)
class Encoder:
    """A float network, the data it is calibrated and tested on, and how outputs are judged.

    Attributes:
        name: of the network.
        model: in evaluation mode; one output.
        calibration: inputs, batches of one tensor for each input of the model.
        inputs: test data, one tensor for each input of the model.
        judge: from outputs for the first test data, and the float model's for the same, to numbers.
        batch: samples at a time.
        c_samples: of the test data that compiled C computes, which takes one at a time.
    """

    name: str
    model: nn.Module
    calibration: list[list[Tensor]]
    inputs: list[Tensor]
    judge: Callable[[Tensor, Tensor], dict[Measure, float]]
    batch: int = 8
    c_samples: int | None = field(default=None)


TOP1 = Measure("top1", "%")
CORRELATION = Measure("correlation with float, mean", digits=4)
LEAST_CORRELATION = Measure("correlation with float, least", digits=4)
PROBE = Measure("linear probe", "%", digits=1)
COSINE = Measure("cosine with float, mean", digits=4)
LEAST_COSINE = Measure("cosine with float, least", digits=4)
MEASURES = (TOP1, PROBE, COSINE, LEAST_COSINE, CORRELATION, LEAST_CORRELATION)


def vision_transformer(count: int) -> Encoder:
    """The zoo's own, on Fashion-MNIST."""
    images, labels = (tensor[:count] for tensor in zoo.test_set())

    def judge(scores: Tensor, _: Tensor) -> dict[Measure, float]:
        right = scores.argmax(dim=1) == labels[: len(scores)]
        return {TOP1: 100 * float(right.double().mean())}

    name = "vision_transformer"
    calibration = [[x] for x in zoo.calibration_set(512)[0].split(64)]
    return Encoder(name, zoo.load(name), calibration, [images], judge, batch=125)


def saliency_transformer(count: int) -> Encoder:
    """ViT-S/14 on crops of photographs: does the map of saliency stay where it was?"""
    name = "vit_small_saliency"
    calibration = [[x] for x in images_for(name, 32).split(8)]
    images = images_for(name, count, seed=1)

    def judge(maps: Tensor, expected: Tensor) -> dict[Measure, float]:
        pairs = zip(torch.sigmoid(maps), torch.sigmoid(expected), strict=True)
        found = torch.stack(
            [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in pairs]
        )
        return {CORRELATION: float(found.mean()), LEAST_CORRELATION: float(found.min())}

    return Encoder(name, zoo.load(name), calibration, [images], judge, batch=4, c_samples=8)


def sentence_encoder(count: int) -> Encoder:
    """all-MiniLM-L6-v2 on snippets of film reviews: can a linear probe still tell good from bad?

    The probe is trained on the embeddings of the first `count` of 3,000 snippets but the last
    third, and tested on that third; with the float model's embeddings, or with those it is given.
    """
    model, tokenizer = zoo.load_sentence_encoder()
    texts, ratings = zoo.review_snippets()
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()

    def encoded(chosen: list[int]) -> list[Tensor]:
        words = tokenizer(
            [texts[index] for index in chosen],
            padding="max_length",
            truncation=True,
            max_length=TOKENS,
            return_tensors="pt",
        )
        return [words["input_ids"], words["attention_mask"]]

    labels = (ratings > 0)[order[:count]]
    inputs = encoded(order[:count])
    calibration = encoded(order[-64:])

    def judge(vectors: Tensor, expected: Tensor) -> dict[Measure, float]:
        mask = inputs[1][: len(vectors)]
        found, reference = (zoo.sentence_embeddings(x, mask) for x in (vectors, expected))
        cosine = (found.double() * reference.double()).sum(dim=1)
        numbers = {COSINE: float(cosine.mean()), LEAST_COSINE: float(cosine.min())}
        if len(vectors) == count:
            numbers[PROBE] = 100 * _probe(found, labels)
        return numbers

    batches = [list(pair) for pair in zip(*(x.split(16) for x in calibration), strict=True)]
    return Encoder("all-MiniLM-L6-v2", model, batches, inputs, judge, batch=25, c_samples=64)


def _probe(embeddings: Tensor, labels: Tensor) -> float:
    """Returns the share of the last third that a linear classifier of the rest names rightly."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "zoo", "the linear probe") from error
    vectors, truth = embeddings.double().numpy(), labels.numpy()
    split = len(vectors) * TRAINING_SNIPPETS // (TRAINING_SNIPPETS + TEST_SNIPPETS)
    probe = LogisticRegression(max_iter=1000).fit(vectors[:split], truth[:split])
    return float(probe.score(vectors[split:], truth[split:]))


ENCODERS: dict[str, tuple[Callable[[int], Encoder], int]] = {
    "vision_transformer": (vision_transformer, 10_000),
    "vit_small_saliency": (saliency_transformer, 64),
    "all-MiniLM-L6-v2": (sentence_encoder, TRAINING_SNIPPETS + TEST_SNIPPETS),
}
"""How each is made, and the number of test samples of a full measurement."""
