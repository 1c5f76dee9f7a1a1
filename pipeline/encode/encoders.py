"""What turns images into the rows of one shard of one store: latents, or the pixels themselves."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecError, JobError, StoreError
from latentset.datasets.store.header import ArrayName, Header
from latentset.datasets.store.zarr.writer import PixelBuffer, ShardBuffer
from latentset.pipeline.jobs.coder import Coder, EncodedBatch
from latentset.pipeline.jobs.plan import PlannedSample

_GIVEN_UP = (
    "The codec gives values that a store cannot hold; nothing was clipped or wrapped. Exclude the "
    "sample from the source, or use another codec"
)


class ShardEncoder(Protocol):
    """Collects the rows of a shard."""

    rate_bpp: dict[str, float]
    """Bits a pixel of each sample so far, by its id."""

    def add(self, images: NDArray[np.uint8], samples: Sequence[PlannedSample]) -> None:
        """Take resized images of one size (N, H, W, 3)."""

    def rows(self) -> dict[ArrayName, NDArray[Any]]:
        """All rows of the shard, by array."""


class LatentEncoder:
    """Latents of images, by one codec."""

    def __init__(self, header: Header, index: int, codec: Coder) -> None:
        self._codec = codec
        self._buffer = ShardBuffer(header, index)
        self.rate_bpp: dict[str, float] = {}

    def add(self, images: NDArray[np.uint8], samples: Sequence[PlannedSample]) -> None:
        """Encode images of one size; JobError where a value cannot be stored."""
        latents = self._encode(images, samples)
        for k, sample in enumerate(samples):
            try:
                self._buffer.put(
                    sample.first_row,
                    sample.z_first_row,
                    latents.y_hat[k],
                    latents.scale_index[k],
                    latents.z_hat[k],
                )
            except StoreError as error:
                raise JobError(f"sample {sample.id!r}: {error}. {_GIVEN_UP}") from error
        pixels = images.shape[1] * images.shape[2]
        for sample, bits in zip(samples, self._codec.rate_bits(latents), strict=True):
            if not isfinite(bits):
                raise JobError(
                    f"sample {sample.id!r}: expected a finite number of bits, got {bits}. "
                    f"{_GIVEN_UP}"
                )
            self.rate_bpp[sample.id] = float(bits) / pixels

    def _encode(self, images: NDArray[np.uint8], samples: Sequence[PlannedSample]) -> EncodedBatch:
        """Run the codec; if it fails, find out at which sample."""
        try:
            return self._codec.encode(images)
        except CodecError as error:
            for k, sample in enumerate(samples):
                try:
                    self._codec.encode(images[k : k + 1])
                except CodecError as alone:
                    raise JobError(f"sample {sample.id!r}: {alone}. {_GIVEN_UP}") from alone
            first, last = samples[0].id, samples[-1].id
            raise JobError(f"samples {first!r} to {last!r}: {error}. {_GIVEN_UP}") from error

    def rows(self) -> dict[ArrayName, NDArray[Any]]:
        """All rows of the shard, by array."""
        return self._buffer.rows()


class PixelEncoder:
    """The images themselves; their rate is that of their files."""

    def __init__(self, header: Header, index: int) -> None:
        self._buffer = PixelBuffer(header, index)
        self.rate_bpp: dict[str, float] = {}

    def add(self, images: NDArray[np.uint8], samples: Sequence[PlannedSample]) -> None:
        """Copy images of one size."""
        for image, sample in zip(images, samples, strict=True):
            self._buffer.put(sample.first_row, image)
            self.rate_bpp[sample.id] = 8 * sample.source_bytes / (sample.height * sample.width)

    def rows(self) -> dict[ArrayName, NDArray[Any]]:
        """All rows of the shard, as ``pixels``."""
        return self._buffer.rows()
