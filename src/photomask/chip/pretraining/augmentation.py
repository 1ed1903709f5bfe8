"""Random views of images: crops, flips, brightness, contrast, blur and erased rectangles."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.errors import DataError, UsageError

_ASPECT = math.log(4 / 3)
"""The logarithm of the largest ratio of a crop's sides."""


@dataclass(frozen=True)
class RandomViews:
    """Makes one random view of each image of a batch, on the device of the images.

    The images can have any number of channels and any size. All randomness comes from PyTorch's
    generator of the device, which the training loop seeds for every epoch.

    Args:
        smallest_area: the smallest share of the image that a crop shows. It is scaled back to the
            size of the image. 1 turns crops off.
        flip: True mirrors half of the images. Leave it out where left and right differ, as in
            digits.
        brightness: the largest number that is added to an image, in units of normalized values.
        contrast: the contrast is multiplied by a number from `1 - contrast` to `1 + contrast`.
        blur: the probability that an image is mixed with its blur over 3x3 pixels.
        erasing: the probability that a rectangle of up to a third of the area is covered with the
            mean of the image.

    Raises:
        UsageError: a number is outside its range.

    Source: Chen et al. 2020 (SimCLR), appendix A, arXiv:2002.05709, for crops, colours and blur;
    Zhong et al. 2017, arXiv:1708.04896, for erasing. Hue is left out, because grey images have
    none, and the blur is small, because images of 28x28 pixels are.
    """

    smallest_area: float = 0.3
    flip: bool = True
    brightness: float = 0.4
    contrast: float = 0.4
    blur: float = 0.3
    erasing: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not 0 < self.smallest_area <= 1:
            raise UsageError(
                f"smallest_area is a share of the image, above 0 and at most 1; found "
                f"{self.smallest_area:g}"
            )
        for name in ("contrast", "blur", "erasing"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"{name} must be between 0 and 1; found {value:g}")
        if not 0 <= self.brightness < float("inf"):
            raise UsageError(f"brightness must be 0 or more; found {self.brightness:g}")

    def __call__(self, images: Tensor) -> Tensor:
        """Returns a view of each image, float32 [samples, channels, height, width].

        Raises:
            DataError: the images have another number of axes, or are not floats.
        """
        if images.ndim != 4 or not images.is_floating_point():
            raise DataError(
                "views are made of images, floats [samples, channels, height, width]; found "
                f"{images.dtype} {list(images.shape)}. Give a function of your own for other data"
            )
        views = self._cropped(images)
        if self.brightness or self.contrast:
            views = self._recoloured(views)
        if self.blur:
            views = self._blurred(views)
        return self._erased(views) if self.erasing else views

    def _cropped(self, images: Tensor) -> Tensor:
        """Returns a random part of each image in the size of the image, mirrored or not."""
        if self.smallest_area == 1 and not self.flip:
            return images
        count, device = len(images), images.device
        area = _uniform(count, self.smallest_area, 1.0, device)
        aspect = _uniform(count, -_ASPECT, _ASPECT, device).exp()
        if self.smallest_area == 1:
            aspect = torch.ones_like(aspect)
        height = (area * aspect).sqrt().clamp(max=1)
        width = (area / aspect).sqrt().clamp(max=1)
        # The grid of `grid_sample` runs from -1 to 1, so a crop of height h lies within 1 - h of 0.
        down = (1 - height) * _uniform(count, -1.0, 1.0, device)
        right = (1 - width) * _uniform(count, -1.0, 1.0, device)
        sign = torch.ones_like(width)
        if self.flip:
            sign = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
        zero = torch.zeros_like(width)
        rows = torch.stack([sign * width, zero, right, zero, height, down], dim=1)
        grid = F.affine_grid(rows.reshape(count, 2, 3), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _recoloured(self, images: Tensor) -> Tensor:
        """Returns images with another contrast around their mean, and another brightness."""
        count, device = len(images), images.device
        factor = _uniform(count, 1 - self.contrast, 1 + self.contrast, device)
        shift = _uniform(count, -self.brightness, self.brightness, device)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return (images - mean) * _for_images(factor) + mean + _for_images(shift)

    def _blurred(self, images: Tensor) -> Tensor:
        """Returns images of which some are mixed with their blur by the filter [1 2 1] / 4."""
        count, channels, device = *images.shape[:2], images.device
        row = torch.tensor([0.25, 0.5, 0.25], device=device)
        kernel = torch.outer(row, row).expand(channels, 1, 3, 3)
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        blurred = F.conv2d(padded, kernel, groups=channels)
        chosen = torch.rand(count, device=device) < self.blur
        share = torch.rand(count, device=device) * chosen
        return torch.lerp(images, blurred, _for_images(share))

    def _erased(self, images: Tensor) -> Tensor:
        """Returns images of which some have a rectangle in their mean value."""
        count, _, height, width = images.shape
        device = images.device
        area = _uniform(count, 0.02, 1 / 3, device)
        aspect = _uniform(count, -_ASPECT, _ASPECT, device).exp()
        rows = _inside(height, (area * aspect).sqrt())
        columns = _inside(width, (area / aspect).sqrt())
        chosen = torch.rand(count, device=device) < self.erasing
        covered = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return torch.where(covered[:, None], mean, images)


def _uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    return torch.rand(count, device=device) * (high - low) + low


def _for_images(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)


def _inside(size: int, share: Tensor) -> Tensor:
    """Marks a run of a share of `size` positions in each row, at a random place, [count, size]."""
    positions = torch.arange(size, device=share.device)
    length = (share * size).round().clamp(1, size)
    start = (torch.rand_like(share) * (size - length + 1)).floor()
    return (positions >= start[:, None]) & (positions < (start + length)[:, None])
