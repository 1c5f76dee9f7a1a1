from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as tv

from latentset.train.data.crop import (
    Boxes,
    CentralCrop,
    RandomCrop,
    WholeGrid,
    gather,
    gather_index,
)

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def draw(
    height: int, width: int, samples: int, *, seed: int = 0, epoch: int = 0, **options: Any
) -> Boxes:
    ones, crop = np.ones(samples, np.int64), RandomCrop(**options)
    return crop.boxes(ones * height, ones * width, np.arange(samples), seed=seed, epoch=epoch)


@pytest.mark.parametrize(("height", "width"), [(23, 23), (16, 24), (40, 9)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    number = 6000
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(number)]
    )
    boxes = draw(height, width, number)
    ours = np.stack([boxes.top, boxes.left, boxes.height, boxes.width], axis=1)
    # Means and spreads of top, left, height, width, and of the area; five standard errors.
    for a, b in [
        *zip(ours.T, theirs.T, strict=True),
        (ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]),
    ]:
        tolerance = 5 * b.std() * np.sqrt(2 / number)
        assert a.mean() == pytest.approx(b.mean(), abs=tolerance)
        assert a.std() == pytest.approx(b.std(), abs=tolerance)


def test_fallback_is_torchvisions() -> None:
    # No box of ratio 3/4 to 4/3 and area 90 % fits grids so long: the central one, literally.
    flat = draw(3, 100, 4, scale=(0.9, 1.0))
    assert (flat.top[0], flat.left[0], flat.height[0], flat.width[0]) == (0, 48, 3, 4)
    tall = draw(100, 3, 4, scale=(0.9, 1.0))
    assert (tall.top[0], tall.left[0], tall.height[0], tall.width[0]) == (48, 0, 4, 3)
    image = torch.empty(1, 100, 3)
    assert RandomResizedCrop.get_params(image, [0.9, 1.0], list(RATIO)) == (48, 0, 4, 3)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(0, 10**6))
def test_boxes_lie_in_their_grids(height: int, width: int, seed: int) -> None:
    boxes = draw(height, width, 16, seed=seed)
    assert (boxes.height >= 1).all()
    assert (boxes.width >= 1).all()
    assert (boxes.top >= 0).all()
    assert (boxes.left >= 0).all()
    assert (boxes.top + boxes.height <= height).all()
    assert (boxes.left + boxes.width <= width).all()


def test_a_samples_box_does_not_depend_on_its_batch() -> None:
    samples = np.array([5, 900, 17])
    size = np.array([20, 30, 40])
    crop = RandomCrop(flip=True)
    together = crop.boxes(size, size, samples, seed=1, epoch=4)
    alone = crop.boxes(size[1:2], size[1:2], samples[1:2], seed=1, epoch=4)
    for name in ("top", "left", "height", "width", "flip"):
        assert getattr(together, name)[1] == getattr(alone, name)[0]


def test_boxes_differ_by_epoch_and_seed() -> None:
    first = draw(40, 40, 50)
    for other in (draw(40, 40, 50, epoch=1), draw(40, 40, 50, seed=1)):
        same = (first.top == other.top) & (first.height == other.height)
        assert same.mean() < 0.2


def test_flip_is_off_unless_asked_for() -> None:
    assert draw(9, 9, 400).flip.sum() == 0
    assert 140 < draw(9, 9, 400, flip=True).flip.sum() < 260


def test_boxes_of_evaluation() -> None:
    height, width = np.array([16, 1, 9]), np.array([24, 3, 12])  # 9 * 0.875 is 7.875
    samples = np.arange(3)
    whole = WholeGrid().boxes(height, width, samples, seed=0, epoch=0)
    assert [whole.top.tolist(), whole.left.tolist()] == [[0, 0, 0], [0, 0, 0]]
    assert [whole.height.tolist(), whole.width.tolist()] == [[16, 1, 9], [24, 3, 12]]
    central = CentralCrop(0.875).boxes(height, width, samples, seed=0, epoch=0)
    assert [central.top.tolist(), central.left.tolist()] == [[1, 0, 0], [5, 1, 2]]
    assert [central.height.tolist(), central.width.tolist()] == [[14, 1, 8], [14, 1, 8]]


@pytest.mark.parametrize("size", [28, 7, 1])
def test_crops_are_torchvisions(size: int) -> None:
    random = np.random.default_rng(0)
    grids = [
        torch.from_numpy(random.integers(-99, 99, (5, *shape)).astype(np.int16))
        for shape in ((23, 23), (16, 24), (3, 50), (1, 1), (41, 12))
    ]
    windows, expected, first = [], [], 0
    for number, grid in enumerate(grids):
        height, width = grid.shape[1:]
        boxes = draw(height, width, 30, epoch=number, flip=True)
        for k in range(30):
            top, left, h, w, flip = (
                int(getattr(boxes, name)[k]) for name in ("top", "left", "height", "width", "flip")
            )
            windows.append([first, height, width, top, left, h, w, flip])
            crop = tv.resized_crop(
                grid.float(), top, left, h, w, [size, size], InterpolationMode.NEAREST
            )
            expected.append(tv.hflip(crop) if flip else crop)
        first += height * width
    rows = torch.cat([grid.flatten(1) for grid in grids], dim=1)  # (5, R)
    index = gather_index(torch.tensor(windows), size)
    assert torch.equal(gather(rows, index).float(), torch.stack(expected))


def test_nearest_is_torchs_for_every_length() -> None:
    for length in range(1, 130):
        row = torch.arange(length, dtype=torch.float32)[None, None]
        expected = torch.nn.functional.interpolate(row, size=28, mode="nearest")[0, 0].long()
        window = torch.tensor([[0, 1, length, 0, 0, 1, length, 0]])
        assert torch.equal(gather_index(window, 28)[0, 0], expected)
