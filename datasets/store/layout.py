"""Which rows and which shard each sample gets (docs/store-spec.md, 2 and 4): a pure function."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import StoreError
from latentset.datasets.limits import MAX_SHARD_BYTES, MAX_SHARDS_READ
from latentset.datasets.store.arrays import RowForm
from latentset.datasets.store.header import Layout

Z_CHUNK_ROWS = 256
"""Rows of a chunk of z_hat. Many small samples share one: z_hat is not read in training, and a
chunk costs 36 bytes of its own."""

SMALL_SHARDS = 16
"""A small collection is divided into about this many shards, so that a handful of workers all have
work and a job that is interrupted loses little."""

SHARD_SAMPLES = 1024
"""At most so many samples for each ``SHARD_BYTES`` of a shard, however small they are: a bound on
the work of one task."""

SHARD_BYTES = 32 << 20
"""Usual size of a shard of the first array before compression: 341 images of 256x256 at 192
channels, a quarter of a minute of one worker, some 5 MB on disk."""

MAX_SHARDS = 10_000
"""At most so many shards, larger ones where needed: ``y_hat/c`` has a folder for each, and file
systems and hosts have limits (10,000 entries a folder on the Hugging Face Hub)."""


@dataclass(frozen=True)
class Assignment:
    """RowForm and shard of every sample, in the order of the source."""

    layout: Layout
    shard: NDArray[np.int32]
    """Ascending; of samples without rows too: whose task they are."""
    first_row: NDArray[np.int64]
    """-1 for a sample without rows."""
    z_first_row: NDArray[np.int64]
    """Likewise."""


def assign_rows(
    rows: NDArray[np.int64], z_rows: NDArray[np.int64], form: RowForm, shard_bytes: int
) -> Assignment:
    """Give samples rows, one after the other; none crosses the end of a shard.

    Args:
        rows: For each sample, positions of its grid; 0 = it is not stored.
        z_rows: For each sample, positions of its ``z_hat`` grid; 0 where ``rows`` is 0, and in a
            store without ``z_hat``.
        form: Of a row of ``y_hat``, or of ``pixels``.
        shard_bytes: Wanted size of a shard of that array before compression. Smaller for small
            collections, larger where one sample is or there would be more than ``MAX_SHARDS``.

    Raises:
        StoreError: No sample has rows, or there are too many for ``MAX_SHARDS`` readable shards.
    """
    present = rows[rows > 0]
    if present.size == 0:
        raise StoreError(f"none of {rows.size} samples has latents: there is nothing to store")
    largest = int(present.max())
    uniform = bool((present == largest).all())
    chunk_rows = largest if uniform else min(form.mixed_chunk, largest)
    padded = -(-rows // chunk_rows) * chunk_rows
    shard_rows = _shard_rows(padded, chunk_rows, form.bytes, shard_bytes)

    count = SHARD_SAMPLES * max(1, shard_bytes // SHARD_BYTES)
    while len((filled := _fill_shards(padded, z_rows, shard_rows, count)).z_used) > MAX_SHARDS:
        factor = -(-len(filled.z_used) // MAX_SHARDS)
        shard_rows, count = shard_rows * factor, count * factor
        if shard_rows * form.bytes > MAX_SHARD_BYTES:
            raise StoreError(
                f"{present.size:,} samples need more than {MAX_SHARDS:,} shards of "
                f"{MAX_SHARD_BYTES >> 20} MiB, the most that is read: divide the set into stores"
            )
    z_chunk_rows = min(Z_CHUNK_ROWS, max(filled.z_used))
    z_shard_rows = -(-max(filled.z_used) // max(1, z_chunk_rows)) * z_chunk_rows
    layout = Layout(
        chunk_rows=chunk_rows,
        shard_rows=shard_rows,
        z_chunk_rows=z_chunk_rows,
        z_shard_rows=z_shard_rows,
        shards=len(filled.z_used),
        target_shard_bytes=shard_bytes,
    )
    return filled.assign(layout, rows, z_rows, 0)


def append_rows(rows: NDArray[np.int64], z_rows: NDArray[np.int64], layout: Layout) -> Assignment:
    """Give further samples new shards, after those of a store and divided like them.

    Each sample must fit into a shard (:func:`fits`); only ``shards`` of the layout changes.
    StoreError if it would have more shards than are read.
    """
    padded = -(-rows // layout.chunk_rows) * layout.chunk_rows
    count = SHARD_SAMPLES * max(1, layout.target_shard_bytes // SHARD_BYTES)
    filled = _fill_shards(padded, z_rows, layout.shard_rows, count, layout.z_shard_rows)
    shards = layout.shards + len(filled.z_used)
    if shards > MAX_SHARDS_READ:
        raise StoreError(
            f"expected at most {MAX_SHARDS_READ:,} shards, got {shards:,}: encode the store again"
        )
    grown = layout.model_copy(update={"shards": shards})
    return filled.assign(grown, rows, z_rows, layout.shards)


def fits(rows: int, z_rows: int, layout: Layout) -> bool:
    """Whether a sample with so many rows fits into a shard, which is a multiple of a chunk."""
    return rows <= layout.shard_rows and z_rows <= layout.z_shard_rows


@dataclass(frozen=True)
class _Filled:
    """Samples in shards, which are counted from 0; offsets are counted within a shard."""

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    z_offset: NDArray[np.int64]
    z_used: list[int]
    """For each shard, rows of ``z_hat`` that are taken."""

    def assign(
        self, layout: Layout, rows: NDArray[np.int64], z_rows: NDArray[np.int64], first: int
    ) -> Assignment:
        """Count over the whole arrays, from the shard ``first``."""
        shard = self.shard + np.int32(first)
        starts = shard.astype(np.int64)
        return Assignment(
            layout,
            shard,
            np.where(rows > 0, starts * layout.shard_rows + self.offset, -1),
            np.where(z_rows > 0, starts * layout.z_shard_rows + self.z_offset, -1),
        )


def _fill_shards(
    padded: NDArray[np.int64],
    z_rows: NDArray[np.int64],
    shard_rows: int,
    shard_samples: int,
    z_shard_rows: int | None = None,
) -> _Filled:
    """Fill one shard after the other; without ``z_shard_rows``, ``z_hat`` may take any rows."""
    shard = np.empty(padded.size, np.int32)
    offset, z_offset = np.empty(padded.size, np.int64), np.empty(padded.size, np.int64)
    used, count, z_used = 0, 0, [0]
    for k, (need, z_need) in enumerate(zip(padded.tolist(), z_rows.tolist(), strict=True)):
        z_full = z_shard_rows is not None and z_used[-1] + z_need > z_shard_rows
        if used + need > shard_rows or z_full or count == shard_samples:
            used, count = 0, 0
            z_used.append(0)
        shard[k] = len(z_used) - 1
        offset[k], z_offset[k] = used, z_used[-1]
        count += 1
        used += need
        z_used[-1] += z_need
    return _Filled(shard, offset, z_offset, z_used)


def _shard_rows(
    padded: NDArray[np.int64], chunk_rows: int, row_bytes: int, shard_bytes: int
) -> int:
    """What was asked for, less for a small set, never less than a sample."""
    wanted = shard_bytes // (row_bytes * chunk_rows) * chunk_rows
    fraction = -(-int(padded.sum()) // (SMALL_SHARDS * chunk_rows)) * chunk_rows
    return max(int(padded.max()), min(wanted, fraction))
