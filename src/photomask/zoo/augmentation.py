"""Random crops, flips and erased rectangles for Fashion-MNIST, on the device of the images."""

import math

import torch
from torch import Tensor, nn

from photomask.zoo import fashion_mnist


def augment(images: Tensor, padding_pixels: int = 3, erasing_probability: float = 0.5) -> Tensor:
    """Returns images with a random crop, a random flip and an erased rectangle for each of them.

    Args:
        images: the normalised images, float32 [N, 1, 28, 28].
        padding_pixels: the largest distance that a crop moves, in pixels.
        erasing_probability: the probability that a rectangle is covered with noise.

    Returns:
        New images of the same shape, on the same device.

    Source: random erasing: Zhong et al. 2017, arXiv:1708.04896.
    """
    count, _, height, width = images.shape
    device, padding = images.device, padding_pixels
    black = -fashion_mnist.MEAN / fashion_mnist.STANDARD_DEVIATION
    padded = nn.functional.pad(images[:, 0], (padding,) * 4, value=black)
    rows = torch.arange(height, device=device).expand(count, height)
    columns = torch.arange(width, device=device).expand(count, width)
    flipped = torch.rand(count, 1, device=device) < 0.5
    columns_read = torch.where(flipped, width - 1 - columns, columns)
    columns_read = columns_read + torch.randint(2 * padding + 1, (count, 1), device=device)
    rows_read = rows + torch.randint(2 * padding + 1, (count, 1), device=device)
    which = torch.arange(count, device=device)[:, None, None]
    cropped = padded[which, rows_read[:, :, None], columns_read[:, None, :]]

    area = torch.empty(count, 1, device=device).uniform_(0.02, 0.4) * height * width
    aspect = torch.empty(count, 1, device=device).uniform_(math.log(0.3), -math.log(0.3)).exp()
    erased = _inside(rows, (area * aspect).sqrt())[:, :, None]
    erased = erased & _inside(columns, (area / aspect).sqrt())[:, None, :]
    erased &= torch.rand(count, 1, 1, device=device) < erasing_probability
    noise = (torch.rand_like(cropped) - fashion_mnist.MEAN) / fashion_mnist.STANDARD_DEVIATION
    return torch.where(erased, noise, cropped)[:, None]


def _inside(positions: Tensor, length: Tensor) -> Tensor:
    """Marks a run of `length` [N, 1] positions in each row of `positions`, at a random place."""
    size = positions.shape[1]
    length = length.round().clamp(1, size - 1)
    start = (torch.rand_like(length) * (size - length + 1)).floor()
    return (positions >= start) & (positions < start + length)
