"""Scales salient channels as AWQ does, so that weights of large inputs are rounded more finely."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from photomask.chip.calibration import batches_of
from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.equalization import Channel, rescalable, rescale
from photomask.chip.equalization.channels import SMALLEST
from photomask.chip.graph import Node
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.standing import Effect, changes
from photomask.chip.weight_rounding.products import as_matrices, output_error, second_moments
from photomask.documents import Document
from photomask.errors import DataError, UsageError
from photomask.report import Progress, Shown, Table, without_progress


class PlaceScaling(Document):
    """The scaling of one norm or layer, and the output error of the layers that read it."""

    maker: str
    readers: tuple[str, ...]
    strength: float
    """The exponent of the least error; 0 leaves everything unchanged."""
    before: float
    """The squared error `sum |(W - Wq) x|**2` over all readers before scaling."""
    after: float
    """The same error with scaled channels, which is never larger."""


class SalientReport(Shown, Document):
    """The report of `scale_salient_channels`."""

    places: tuple[PlaceScaling, ...]

    def shown(self) -> Table:
        """Returns a table with a row for each norm or layer."""
        rows = [("made by", "read by", "strength", "before", "after")]
        for place in self.places:
            rows.append(
                (
                    place.maker,
                    ", ".join(place.readers),
                    f"{place.strength:g}",
                    f"{place.before:.4g}",
                    f"{place.after:.4g}",
                )
            )
        return Table("squared error of outputs by rounded weights", rows)


@changes(Effect.REWRITES)
@float32_by_default()
def scale_salient_channels(
    prepared: PreparedModel,
    data: Data,
    *,
    steps: int = 20,
    progress: Progress = without_progress,
) -> SalientReport:
    """Multiplies the weights of channels with large inputs, and divides those inputs by the same.

    Channel `j` of the readers' weights is multiplied by `s_j = m_j**a / sqrt(max m**a * min m**a)`,
    where `m_j` is the mean magnitude of input `j`. The norm or layer that computes the channel is
    divided by the same factor, so the float outputs stay the same. The exponent `a` is the one of
    `0, 1/steps, …, 1` with the least squared error of the readers' outputs, with weights rounded to
    nearest by the recipe's quantizers. The exponent 0 changes nothing, so the error never grows.
    Only the rounding of weights is considered. The ranges of activations change too, so `calibrate`
    has to follow.

    Args:
        prepared: the model, which is changed in place and need not be calibrated.
        data: the data, as for `calibrate`.
        steps: the number of exponents above 0 that are tried, at least 1.
        progress: shows how many batches are done; `photomask.report.show_progress` draws a bar.

    Raises:
        DataError: there are no data, or they do not fit the model.
        OrderError: the weights are rounded already.
        UsageError: `steps` is below 1.

    Source: AWQ, Lin et al. 2024, equations 4 and 5, arXiv:2306.00978.
    """
    if steps < 1:
        raise UsageError(f"steps must be at least 1, found {steps}")
    found = rescalable(prepared)
    moments, sizes = _statistics(prepared, data, found, progress)
    reports = []
    with torch.no_grad():
        for place in found:
            own = {reader.name: moments[reader.name] for reader in place.readers}
            size = torch.stack([sizes[maker.name] for maker in place.makers]).mean(dim=0)
            errors, scales = [], []
            for step in range(steps + 1):
                scales.append(_scale(size, step / steps))
                errors.append(_error(prepared, place, own, scales[-1]))
            best = min(range(steps + 1), key=errors.__getitem__)
            if best:
                rescale(prepared, place, scales[best])
            reports.append(
                PlaceScaling(
                    maker=", ".join(maker.name for maker in place.makers),
                    readers=tuple(reader.name for reader in place.readers),
                    strength=best / steps,
                    before=errors[0],
                    after=errors[best],
                )
            )
    return SalientReport(places=tuple(reports))


def _scale(sizes: Tensor, strength: float) -> Tensor:
    """Returns the factor of each channel; the largest is the reciprocal of the smallest."""
    powers = sizes.clamp(min=SMALLEST) ** strength
    return powers / (powers.max() * powers.min()).sqrt()


def _error(
    prepared: PreparedModel, place: Channel, moments: dict[str, Tensor], scale: Tensor
) -> float:
    """Returns the squared output error of all readers with weights scaled and then rounded."""
    total = 0.0
    for reader in place.readers:
        weight = prepared.constants_of(reader)["weight"].detach()
        columns = scale.reshape(-1, *(1,) * (weight.ndim - 2))
        quantizer = copy.deepcopy(prepared.weight_quantizer(reader.name)).eval()
        quantizer.observe(weight * columns)
        quantizer.fit()
        difference = quantizer(weight * columns) / columns - weight
        total += float(output_error(as_matrices(reader, difference), moments[reader.name]).sum())
    return total


def _statistics(
    prepared: PreparedModel, data: Data, found: Sequence[Channel], progress: Progress
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns second moments of the readers' inputs, and mean magnitudes of the makers' outputs."""
    readers: dict[str, list[Node]] = {}
    for reader in (reader for place in found for reader in place.readers):
        readers.setdefault(reader.inputs[0], []).append(reader)
    moments: dict[str, Tensor] = {}
    sizes: dict[str, Tensor] = {}
    count = 0
    with torch.no_grad():
        for inputs in batches_of(prepared, data, progress, "measuring channels"):
            count += len(inputs[0])
            for node, value in prepared.graph.run(inputs, prepared.constants_of):
                if node.name not in readers:
                    continue
                reader = readers[node.name][0]
                axis = reader.operation.channels_in(value.ndim)
                others = [other for other in range(value.ndim) if other != axis]
                size = value.abs().double().sum(dim=others) / value.numel() * value.shape[axis]
                sizes[node.name] = sizes.get(node.name, torch.zeros(())) + size * len(inputs[0])
                for reader in readers[node.name]:
                    kernel = prepared.constants_of(reader)["weight"].shape[2:]
                    added = second_moments(reader, value, kernel)
                    moments[reader.name] = moments.get(reader.name, torch.zeros(())) + added
    if not count:
        raise DataError("scaling salient channels needs at least one sample, but there is none")
    return moments, {name: (size / count).float() for name, size in sizes.items()}
