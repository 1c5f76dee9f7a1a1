"""Which rows and which shard each sample gets (docs/store-spec.md, 2 and 4): a pure function."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import StoreError
from latentset.datasets.store.header import Layout

MIXED_CHUNK_ROWS = 256
"""Rows of a chunk where samples differ in size: at 192 channels 96 KiB of y_hat, the size at which
one sample of 256x256 pixels makes one chunk."""

Z_CHUNK_ROWS = 256
"""Rows of a chunk of z_hat. Many small samples share one: z_hat is not read in training, and a
chunk costs 36 bytes of its own."""

SMALL_SHARDS = 16
"""A small collection is divided into about this many shards, so that a handful of workers all have
work and a job that is interrupted loses little."""

SHARD_SAMPLES = 1024
"""At most so many samples a shard, however small they are: a bound on the work of one task."""


@dataclass(frozen=True)
class Assignment:
    """Rows and shard of every sample, in the order of the source."""

    layout: Layout
    """The division into chunks and shards."""
    shard: NDArray[np.int32]
    """Shard of each sample, ascending. A sample without rows has one as well: whose task it is."""
    first_row: NDArray[np.int64]
    """First row of ``y_hat``; -1 for a sample without rows."""
    z_first_row: NDArray[np.int64]
    """First row of ``z_hat``; -1 for a sample without rows."""


def assign_rows(
    rows: NDArray[np.int64], z_rows: NDArray[np.int64], channels: int, shard_bytes: int
) -> Assignment:
    """Place samples one after the other; none crosses the end of a shard.

    Args:
        rows: For each sample, positions of its ``y_hat`` grid; 0 = it has no latents.
        z_rows: For each sample, positions of its ``z_hat`` grid; 0 where ``rows`` is 0.
        channels: Channels of ``y_hat``.
        shard_bytes: Wanted size of a shard of ``y_hat`` before compression. Smaller for small
            collections, larger where one sample is.

    Returns:
        Where everything goes.

    Raises:
        StoreError: No sample has rows.
    """
    present = rows[rows > 0]
    if present.size == 0:
        raise StoreError(f"none of {rows.size} samples has latents: there is nothing to store")
    largest = int(present.max())
    uniform = bool((present == largest).all())
    chunk_rows = largest if uniform else min(MIXED_CHUNK_ROWS, largest)
    padded = -(-rows // chunk_rows) * chunk_rows
    shard_rows = _shard_rows(padded, chunk_rows, channels, shard_bytes)

    shard = np.empty(rows.size, np.int32)
    first_row = np.full(rows.size, -1, np.int64)
    z_first_row = np.full(rows.size, -1, np.int64)
    offsets, z_offsets, z_used = first_row.copy(), z_first_row.copy(), [0]
    index = used = count = 0
    for k, (need, z_need) in enumerate(zip(padded.tolist(), z_rows.tolist(), strict=True)):
        if used + need > shard_rows or count == SHARD_SAMPLES:
            index, used, count = index + 1, 0, 0
            z_used.append(0)
        shard[k] = index
        count += 1
        offsets[k], z_offsets[k] = used, z_used[-1]
        used += need
        z_used[-1] += z_need
    z_chunk_rows = min(Z_CHUNK_ROWS, max(z_used))
    z_shard_rows = -(-max(z_used) // z_chunk_rows) * z_chunk_rows
    stored = rows > 0
    first_row[stored] = (shard.astype(np.int64) * shard_rows + offsets)[stored]
    z_first_row[stored] = (shard.astype(np.int64) * z_shard_rows + z_offsets)[stored]
    layout = Layout(
        chunk_rows=chunk_rows,
        shard_rows=shard_rows,
        z_chunk_rows=z_chunk_rows,
        z_shard_rows=z_shard_rows,
        shards=index + 1,
        target_shard_bytes=shard_bytes,
    )
    return Assignment(layout, shard, first_row, z_first_row)


def _shard_rows(padded: NDArray[np.int64], chunk_rows: int, channels: int, shard_bytes: int) -> int:
    """Rows of a shard: what was asked for, less for a small set, never less than a sample."""
    itemsize = np.dtype(np.int16).itemsize
    wanted = shard_bytes // (itemsize * channels * chunk_rows) * chunk_rows
    share = -(-int(padded.sum()) // (SMALL_SHARDS * chunk_rows)) * chunk_rows
    return max(int(padded.max()), min(wanted, share))
