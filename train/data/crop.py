"""Which part of a latent grid a classifier sees, and cutting it out on the device.

Boxes are drawn on the host; rows of symbols go to the device whole, where one gather cuts and
resizes all boxes of a batch.

Source: paper section 5.3 (random resized crop to 28x28, nearest neighbour); boxes are those of
torchvision's ``RandomResizedCrop``, resizing is that of its ``InterpolationMode.NEAREST``.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentset.train.data.order import CROP, Int64s, random_uniform

ATTEMPTS = 10


class Boxes(NamedTuple):
    """One box a sample, in positions of its grid: arrays (N,)."""

    top: Int64s
    left: Int64s
    height: Int64s
    width: Int64s
    flip: Int64s
    """1 where the box is mirrored left to right, else 0."""


@dataclass(frozen=True)
class RandomCrop:
    """A random box, as torchvision's ``RandomResizedCrop.get_params`` draws it."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest part of the grid's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest width over height."""
    flip: bool = False
    """Mirror half of the boxes. The paper mirrors images, not latents."""

    def __post_init__(self) -> None:
        if not (0 < self.scale[0] <= self.scale[1] <= 1 and 0 < self.ratio[0] <= self.ratio[1]):
            raise ValueError(f"expected 0 < least <= greatest, a scale of at most 1, got {self}")

    def boxes(
        self, height: Int64s, width: Int64s, samples: Int64s, *, seed: int, epoch: int
    ) -> Boxes:
        """Draw a box inside each grid; ``samples`` are the keys of randomness."""
        draws = np.arange(2 * ATTEMPTS + 3)
        uniform = random_uniform(CROP, seed, epoch, samples[:, None], draws)
        areas, aspects, position = np.split(uniform, (ATTEMPTS, 2 * ATTEMPTS), axis=1)
        area = (height * width)[:, None] * _between(*self.scale, areas)
        aspect = np.exp(_between(math.log(self.ratio[0]), math.log(self.ratio[1]), aspects))
        widths = np.rint(np.sqrt(area * aspect)).astype(np.int64)
        heights = np.rint(np.sqrt(area / aspect)).astype(np.int64)
        fits = (
            (widths > 0) & (widths <= width[:, None]) & (heights > 0) & (heights <= height[:, None])
        )
        first = np.argmax(fits, axis=1)[:, None]
        box_height = np.take_along_axis(heights, first, axis=1)[:, 0]
        box_width = np.take_along_axis(widths, first, axis=1)[:, 0]
        top = (position[:, 0] * (height - box_height + 1)).astype(np.int64)
        left = (position[:, 1] * (width - box_width + 1)).astype(np.int64)

        # No attempt fits: the largest central box whose aspect ratio is allowed.
        none = ~fits.any(axis=1)
        low, high = self.ratio
        central_height = np.where(width / height < low, np.rint(width / low), height)
        central_width = np.where(width / height > high, np.rint(height * high), width)
        box_height = np.where(none, central_height, box_height).astype(np.int64)
        box_width = np.where(none, central_width, box_width).astype(np.int64)
        top = np.where(none, (height - box_height) // 2, top)
        left = np.where(none, (width - box_width) // 2, left)
        mirrored = (position[:, 2] < 0.5) & self.flip
        return Boxes(top, left, box_height, box_width, mirrored.astype(np.int64))


@dataclass(frozen=True)
class CentralCrop:
    """The central square."""

    share: float = 0.875
    """Its side over the grid's shorter side; it has one position at least."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"expected a share above 0, of at most 1, got {self}")

    def boxes(
        self, height: Int64s, width: Int64s, samples: Int64s, *, seed: int, epoch: int
    ) -> Boxes:
        """Compute the box of each grid; nothing is random."""
        side = np.maximum(np.rint(np.minimum(height, width) * self.share), 1).astype(np.int64)
        return Boxes((height - side) // 2, (width - side) // 2, side, side, np.zeros_like(side))


@dataclass(frozen=True)
class WholeGrid:
    """The whole grid; one that is not square is squeezed by the resize that follows."""

    def boxes(
        self, height: Int64s, width: Int64s, samples: Int64s, *, seed: int, epoch: int
    ) -> Boxes:
        """Compute the box of each grid; nothing is random."""
        zero = np.zeros_like(height)
        return Boxes(zero, zero, height, width, zero)


Crop = RandomCrop | CentralCrop | WholeGrid


def gather_index(windows: Tensor, size: int) -> Tensor:
    """Which row of a batch each location of the crops, of side S, shows: int64 (B, S, S)."""
    first, _, grid_width, top, left, height, width, flip = windows.unbind(1)
    y = top[:, None] + _nearest(height, size)  # (B, S)
    x = _nearest(width, size)
    x = left[:, None] + torch.where(flip[:, None] == 1, x.flip(1), x)
    return first[:, None, None] + y[:, :, None] * grid_width[:, None, None] + x[:, None, :]


def gather(rows: Tensor, index: Tensor) -> Tensor:
    """Cut crops (B, C, S, S), a channel-major view, out of a batch's rows (C, R)."""
    taken = rows.index_select(1, index.flatten())  # (C, B*S*S)
    return taken.view(rows.shape[0], *index.shape).transpose(0, 1)


def _between(low: float, high: float, uniform: np.ndarray) -> np.ndarray:
    return low + (high - low) * uniform


def _nearest(length: Tensor, size: int) -> Tensor:
    # In float32, as torch's "nearest" computes it: some quotients differ from exact arithmetic.
    scale = (length.to(torch.float32) / size)[:, None]
    steps = torch.arange(size, device=length.device, dtype=torch.float32)
    return torch.minimum((steps * scale).floor().to(torch.int64), length[:, None] - 1)
