import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from photomask.chip.pretraining import RandomViews
from photomask.errors import DataError, UsageError

NOTHING = RandomViews(smallest_area=1, flip=False, brightness=0, contrast=0, blur=0, erasing=0)


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 5),
    channels=st.sampled_from([1, 3]),
    height=st.integers(5, 12),
    width=st.integers(5, 12),
)
def test_views_keep_shape_and_dtype_and_stay_within_the_values_of_a_crop(
    count: int, channels: int, height: int, width: int
):
    images = torch.rand(count, channels, height, width)
    views = RandomViews(brightness=0, contrast=0, blur=1.0, erasing=1.0)(images)
    assert views.shape == images.shape
    assert views.dtype == torch.float32
    low, high = (f(images, dim=(1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    assert bool(((views >= low - 1e-5) & (views <= high + 1e-5)).all())


def test_nothing_asked_for_changes_nothing():
    images = torch.randn(3, 1, 6, 6)
    assert torch.equal(NOTHING(images), images)


def test_half_of_the_images_are_exactly_mirrored():
    images = torch.randn(200, 1, 6, 6)
    views = RandomViews(smallest_area=1, brightness=0, contrast=0, blur=0)(images)
    near = [torch.isclose(views, x, atol=1e-5).flatten(1).all(1) for x in (images, images.flip(3))]
    assert bool((near[0] | near[1]).all())
    assert 70 < int(near[1].sum()) < 130


def test_a_crop_is_a_part_of_the_image_scaled_linearly():
    """In a ramp, each view is a ramp with a smaller or equal slope."""
    ramp = torch.arange(16.0).expand(50, 1, 16, 16)
    views = RandomViews(0.2, flip=False, brightness=0, contrast=0, blur=0)(ramp)
    slopes = (views[:, 0, :, 5:11] - views[:, 0, :, 4:10]).flatten(1)
    assert bool((slopes.amax(1) - slopes.amin(1) < 1e-4).all())
    assert bool((slopes > 0.3).all())
    assert bool((slopes <= 1 + 1e-4).all())
    assert len({round(float(x), 2) for x in slopes[:, 0]}) > 10


def test_brightness_and_contrast_are_one_shift_and_one_factor_for_each_image():
    images = torch.randn(40, 3, 6, 6, dtype=torch.float32)
    views = RandomViews(1, flip=False, brightness=0.5, contrast=0.3, blur=0)(images)
    for image, view in zip(images.numpy(), views.numpy(), strict=True):
        factor, offset = np.polyfit(image.ravel(), view.ravel(), 1)
        assert np.allclose(factor * image + offset, view, atol=1e-4)
        assert 0.7 - 1e-4 <= factor <= 1.3 + 1e-4
        assert abs(view.mean() - image.mean()) <= 0.5 + 1e-4


def test_the_blur_mixes_an_image_with_its_neighbours():
    image = torch.zeros(60, 1, 7, 7)
    image[:, :, 3, 3] = 16.0
    views = RandomViews(1, flip=False, brightness=0, contrast=0, blur=1.0)(image)
    kernel = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1]))
    for view in views[:, 0]:
        share = float(view[3, 2]) / 2
        expected = torch.zeros(7, 7)
        expected[2:5, 2:5] = share * kernel
        expected[3, 3] += 16 * (1 - share)
        assert torch.allclose(view, expected, atol=1e-4)
        assert 0 <= share <= 1


def test_an_erased_rectangle_holds_the_mean():
    images = torch.randn(30, 1, 12, 12)
    views = RandomViews(1, flip=False, brightness=0, contrast=0, blur=0, erasing=1.0)(images)
    for image, view in zip(images[:, 0], views[:, 0], strict=True):
        changed = image != view
        assert torch.allclose(view[changed], image.mean().expand(int(changed.sum())))
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert int(changed.sum()) == int(box) <= 12 * 12 / 2


def test_ranges_and_images_are_checked():
    for wrong in ({"smallest_area": 0.0}, {"blur": 1.5}, {"contrast": -1}, {"brightness": -0.1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            RandomViews(**wrong)
    for data in (torch.zeros(4, 3), torch.zeros(4, 1, 6, 6, dtype=torch.uint8)):
        with pytest.raises(DataError, match="views are made of images"):
            RandomViews()(data)
