"""The check of a codec when it is loaded: do the tensors found behave like its latents?

A graph may fit the structure and still mean something else. Two synthetic images show it, by sizes,
by the bits of the sender's strings, and by the receiver's image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.program import LATENT_TENSORS, Latents

SIZE = (136, 200)
"""Height and width of the test images: no multiples of 16, so that rounding up shows."""

RATE_TOLERANCE = 0.02
STRING_OVERHEAD_BITS = 32
"""A string may be this much longer than its symbols' bits: the range coder ends on whole bytes."""


@dataclass(frozen=True)
class SelfCheck:
    """Bits of one test image, as its latents imply them and as its bitstreams have them."""

    implied_bits: float
    real_bits: float

    @property
    def difference(self) -> float:
        """How much longer the bitstreams are, as a fraction."""
        return self.real_bits / self.implied_bits - 1


def make_test_images(size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Return two synthetic images: smooth shading, edges and texture; uint8 (2, H, W, 3)."""
    random = np.random.default_rng(20180215)
    height, width = size
    shape = (2, height, width, 3)
    total = np.zeros(shape)
    for cell in (4, 8, 16, 64):
        rows, columns = -(-height // cell), -(-width // cell)
        noise = random.normal(size=(2, rows, columns, 3))
        total += cell**0.5 * noise.repeat(cell, 1).repeat(cell, 2)[:, :height, :width]
    shading = np.linspace(0, 1, width)[:, np.newaxis] * np.array([1.0, 0.6, 0.3])
    pixels = 90 + 12 * total + 60 * shading + random.normal(scale=4, size=shape)
    rounded: NDArray[np.uint8] = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return rounded


def check_shapes(latents: Latents) -> tuple[int, int]:
    """Return the downsampling of y and of z; CodecGraphError if a test image's do not fit."""
    if latents.y_hat.shape != latents.scale_index.shape:
        found = f"{latents.scale_index.shape} and {latents.y_hat.shape}"
        raise CodecGraphError(f"the scale index and y_hat have different shapes, {found}")
    return _downsampling("y_hat", latents.y_hat.shape), _downsampling("z_hat", latents.z_hat.shape)


def string_bits(channels: Sequence[NDArray[Any]]) -> list[int]:
    """Return the length in bits of each channel of a sender that holds strings."""
    strings = [channel for channel in channels if channel.dtype.kind in "OS"]
    return [sum(8 * len(string) for string in channel.ravel()) for channel in strings]


def check_bits(implied: Sequence[float], real: Sequence[int]) -> SelfCheck:
    """Raise CodecGraphError if the bits of y and of z differ from those of the bitstreams."""
    if sum(implied) <= 0:
        raise CodecGraphError("self-check: the latents of an image imply no bits")
    pairs: list[tuple[float, float]] = [(sum(implied), sum(real))]
    if len(real) == 2:
        pairs = list(zip(sorted(implied), sorted(real), strict=True))
    for implied_bits, real_bits in pairs:
        allowed = RATE_TOLERANCE * implied_bits + STRING_OVERHEAD_BITS
        if abs(real_bits - implied_bits) > allowed:
            raise CodecGraphError(
                f"self-check: the latents imply {implied[0]:.0f} bits for y and "
                f"{implied[1]:.0f} for z, but the sender's bitstreams have "
                f"{' and '.join(map(str, real))}. Name the right tensors"
            )
    return SelfCheck(implied_bits=sum(implied), real_bits=float(sum(real)))


def _downsampling(name: str, shape: tuple[int, ...]) -> int:
    for factor in (1, 2, 4, 8, 16, 32, 64, 128):
        if tuple(-(-side // factor) for side in SIZE) == shape[1:3]:
            return factor
    raise CodecGraphError(
        f"{name} is {shape[1]}x{shape[2]} for an image of {SIZE[0]}x{SIZE[1]}: expected the "
        f"image's size over a power of two, rounded up"
    )


def is_batch_free(
    run: Callable[[NDArray[np.uint8]], Latents], images: NDArray[np.uint8], singles: list[Latents]
) -> bool:
    """Return whether a batch of images gives what each gives alone."""
    try:
        both = run(images)
    except CodecGraphError:  # a graph may have batch 1 baked in
        return False
    alone = Latents.join(singles)
    return all(np.array_equal(getattr(both, k), getattr(alone, k)) for k in LATENT_TENSORS)
