"""Several integer networks against the float one, on the same images."""

import gc
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ours import Network, as_network, float_network, make_program
from peers import Peer
from photomask.report import NoiseMeter, Top1Meter
from rows import Results, Subject


class Comparison:
    """Measures implementations on one network, one after the other.

    Args:
        results: where rows go.
        what: the question.
        network: the network's name.
        model: the float network.
        calibration: images that everyone calibrates on.
        images: test images.
        labels: of the test images, where there are any.
        batch: test images at a time.
    """

    def __init__(
        self,
        results: Results,
        what: str,
        network: str,
        model: nn.Module,
        *,
        calibration: Tensor,
        images: Tensor,
        labels: Tensor | None = None,
        batch: int = 32,
    ):
        self.results = results
        self.what = what
        self.network = network
        self.model = model
        self.calibration = calibration
        self.images = images
        self.labels = labels
        self.batch = batch
        self.reference = torch.cat(list(self._scores(float_network(model))))
        if labels is not None:
            right = (self.reference.argmax(1) == labels).double().mean()
            subject = Subject(what, "float", network, package="torch")
            results.number(subject, "top1", 100 * float(right), "%", note=self._note)

    @property
    def _note(self) -> str:
        return f"{len(self.images)} images, {len(self.calibration)} for calibration"

    def _scores(self, run: Network) -> Iterator[Tensor]:
        for part in self.images.split(self.batch):
            yield run(part)

    def ours(self, recipe: str) -> None:
        """Measures an integer program of ours."""
        subject = Subject(self.what, f"photomask {recipe}", self.network)
        self._measure(
            subject, lambda: as_network(make_program(self.model, recipe, self.calibration))
        )

    def peer(self, peer: Peer) -> None:
        """Measures a peer; one that is missing or fails becomes a row that says so."""
        subject = Subject(self.what, peer.name, self.network, package=peer.package)
        if reason := peer.missing:
            self.results.skipped(subject, reason)
            return
        self._measure(subject, lambda: peer(self.model, self.calibration))

    def _measure(self, subject: Subject, quantize: Callable[[], Network]) -> None:
        noise, top1 = NoiseMeter(), Top1Meter()
        try:
            run = quantize()
            for index, scores in enumerate(self._scores(run)):
                part = slice(index * self.batch, (index + 1) * self.batch)
                noise.add(self.reference[part], scores)
                labels = None if self.labels is None else self.labels[part]
                top1.add(self.reference[part], scores, labels)
        except Exception as error:  # noqa: BLE001 - a peer may fail in any way; the row says how
            self.results.skipped(subject, f"{type(error).__name__}: {error}")
            return
        finally:
            gc.collect()
        if top1.found_top1 is not None:
            self.results.number(subject, "top1", top1.found_top1, "%", note=self._note)
        self.results.number(subject, "agreement", top1.agreement, "%", note=self._note)
        self.results.number(subject, "sqnr", noise.sqnr_db, "dB", note=self._note)
