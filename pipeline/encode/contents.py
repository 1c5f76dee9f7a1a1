"""What a task puts into one shard of one store: latents of images, or their pixels."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecError, JobError, StoreError
from latentset.datasets.store.header import ArrayName
from latentset.datasets.store.zarr.writer import PixelBuffer, ShardBuffer
from latentset.pipeline.encode.engine import Coder, EncodedBatch
from latentset.pipeline.jobs.plan import PlanFile

_GIVEN_UP = (
    "The codec gives values that a store cannot hold; nothing was clipped or wrapped. Leave the "
    "sample out of the source, or use another codec"
)


class Contents(Protocol):
    """The rows of a shard, as they come."""

    rate_bpp: dict[str, float]
    """Bits a pixel of each sample that is there, by its id."""

    def add(self, images: NDArray[np.uint8], ids: Sequence[str]) -> None:
        """Take images of one size (N, H, W, 3), resized, and their ids."""

    def rows(self) -> dict[ArrayName, NDArray[Any]]:
        """All rows of the shard, by array."""


class LatentContents:
    """Latents of images, by one codec.

    Args:
        plan: The store's plan.
        index: Number of the shard.
        codec: The codec.
    """

    def __init__(self, plan: PlanFile, index: int, codec: Coder) -> None:
        self._codec = codec
        self._buffer = ShardBuffer(plan.header, index)
        self._rows = {row["id"]: row for row in plan.rows(index)}
        self.rate_bpp: dict[str, float] = {}

    def add(self, images: NDArray[np.uint8], ids: Sequence[str]) -> None:
        """Encode images of one size and location their latents."""
        latents = self._latents(images, ids)
        for k, name in enumerate(ids):
            row = self._rows[name]
            try:
                self._buffer.put(
                    row["first_row"],
                    row["z_first_row"],
                    latents.y_hat[k],
                    latents.scale_index[k],
                    latents.z_hat[k],
                )
            except StoreError as error:
                raise JobError(f"sample {name!r}: {error}. {_GIVEN_UP}") from error
        pixels = images.shape[1] * images.shape[2]
        for name, bits in zip(ids, self._codec.rate_bits(latents), strict=True):
            if not isfinite(bits):
                raise JobError(
                    f"sample {name!r}: expected a finite number of bits, got {bits}. {_GIVEN_UP}"
                )
            self.rate_bpp[name] = float(bits) / pixels

    def _latents(self, images: NDArray[np.uint8], ids: Sequence[str]) -> EncodedBatch:
        """Run the codec; if it fails, find out at which sample."""
        try:
            return self._codec.encode(images)
        except CodecError as error:
            for k, name in enumerate(ids):
                try:
                    self._codec.encode(images[k : k + 1])
                except CodecError as alone:
                    raise JobError(f"sample {name!r}: {alone}. {_GIVEN_UP}") from alone
            raise JobError(f"samples {ids[0]!r} to {ids[-1]!r}: {error}. {_GIVEN_UP}") from error

    def rows(self) -> dict[ArrayName, NDArray[Any]]:
        """All rows of the shard, by array."""
        return self._buffer.rows()


class PixelContents:
    """The images themselves; their rate is that of their files.

    Args:
        plan: The store's plan.
        index: Number of the shard.
    """

    def __init__(self, plan: PlanFile, index: int) -> None:
        self._buffer = PixelBuffer(plan.header, index)
        self._rows = {row["id"]: row for row in plan.rows(index)}
        self.rate_bpp: dict[str, float] = {}

    def add(self, images: NDArray[np.uint8], ids: Sequence[str]) -> None:
        """Location images of one size."""
        for image, name in zip(images, ids, strict=True):
            row = self._rows[name]
            self._buffer.put(row["first_row"], image)
            self.rate_bpp[name] = 8 * row["source_bytes"] / (row["height"] * row["width"])

    def rows(self) -> dict[ArrayName, NDArray[Any]]:
        """All rows of the shard, as ``pixels``."""
        return self._buffer.rows()
