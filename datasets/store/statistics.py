"""Mean, deviation and zeros of each channel of a store: one pass, whatever the store's size.

Only rows of samples count: rows between samples are padding (docs/store-spec.md, 2.5). Sums are of
integers, without rounding. Memory holds a block of a few chunks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.store.arrays import array_form
from latentset.datasets.store.consistency import Placement
from latentset.datasets.store.findings import Report, silent
from latentset.datasets.store.header import ArrayName
from latentset.datasets.store.store import Store

_BLOCK_BYTES = 1 << 24
"""Bytes of an array that are in memory at a time, or one chunk."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class ChannelStatistics:
    """Each channel of an array, over all positions of all samples with latents (or pixels)."""

    count: int
    """Values a channel."""
    mean: Numbers
    deviation: Numbers
    """Standard deviation, of ``count`` values (not ``count - 1``)."""
    least: Numbers
    """Smallest value; so is ``greatest``. NaN, like mean and deviation, where count is 0."""
    greatest: Numbers
    zeros: Numbers
    """Share of values that are 0; of sigma_hat, never 0, of those at the scale table's least."""


def measure_channels(
    store: Store, name: Literal["y_hat", "sigma_hat", "pixels"], report: Report = silent
) -> ChannelStatistics:
    """Measure the channels of an array; of ``sigma_hat`` by the array ``scale_index``.

    Raises:
        StoreCorruptError: A chunk does not match its checksum, or a scale index has no scale.
        StoreUnreachableError: An object cannot be read.
    """
    if name == "sigma_hat":
        return _measure_scales(store, report)
    channels = store.shape(name)[1]
    count, sums, squares = 0, [0] * channels, [0] * channels
    nonzero = np.zeros(channels, np.int64)
    least = np.full(channels, np.inf)
    greatest = np.full(channels, -np.inf)
    for rows in _sample_rows(store, name, report):
        count += len(rows)
        # Within a block int64 is enough; Python's integers hold the sums over all.
        sums = _add(sums, rows.sum(axis=0, dtype=np.int64))
        squares = _add(squares, np.einsum("rc,rc->c", rows, rows, dtype=np.int64))
        nonzero += np.count_nonzero(rows, axis=0)
        np.minimum(least, rows.min(axis=0), out=least)
        np.maximum(greatest, rows.max(axis=0), out=greatest)
    if count == 0:
        return _nothing(channels)
    variance = [
        (count * square - total * total) / count**2
        for total, square in zip(sums, squares, strict=True)
    ]
    return ChannelStatistics(
        count=count,
        mean=np.array([total / count for total in sums]),
        deviation=np.sqrt(variance),
        least=least,
        greatest=greatest,
        zeros=1 - nonzero / count,
    )


def _measure_scales(store: Store, report: Report) -> ChannelStatistics:
    codec = store.header.codec
    channels = store.shape("scale_index")[1]
    table = np.asarray(codec.scale_table if codec else (), np.float64)
    counts = np.zeros((channels, 256), np.int64)
    """How often each channel has each number."""
    for rows in _sample_rows(store, "scale_index", report):
        for channel in range(channels):
            counts[channel] += np.bincount(rows[:, channel], minlength=256)
    if counts[:, len(table) :].any():
        raise StoreCorruptError(
            f"{store.location}: scale_index: expected less than {len(table)}, the length of the "
            f"scale table, got {int(np.flatnonzero(counts.any(axis=0))[-1])}"
        )
    counts = counts[:, : len(table)]
    count = int(counts[0].sum())
    if count == 0:
        return _nothing(channels)
    with np.errstate(over="ignore", invalid="ignore"):  # of a table with 1e300
        mean = counts @ table / count
        variance = (counts * (table - mean[:, None]) ** 2).sum(axis=1) / count
    return ChannelStatistics(
        count=count,
        mean=mean,
        deviation=np.sqrt(variance),
        least=np.where(counts > 0, table, np.inf).min(axis=1),
        greatest=np.where(counts > 0, table, -np.inf).max(axis=1),
        zeros=counts[:, int(table.argmin())] / count,
    )


def _sample_rows(store: Store, name: ArrayName, report: Report) -> Iterator[NDArray[Any]]:
    """Yield rows that belong to samples, (n, channels), n > 0, shard by shard in blocks."""
    form = array_form(store.header, name)
    placement = Placement(store.samples, store.header)
    chunk_bytes = form.chunk_rows * form.channels * np.dtype(form.dtype).itemsize
    block = form.chunk_rows * max(1, _BLOCK_BYTES // chunk_bytes)
    for shard in range(form.shards):
        for first in range(0, form.shard_rows, block):
            count = min(block, form.shard_rows - first)
            used = placement.rows_in_use(name, shard, first, count)
            if used.any():
                rows = store.read_rows(name, shard * form.shard_rows + first, len(used))
                yield rows if used.all() else rows[used]
        report(f"reading {name}", shard + 1, form.shards)


def _add(totals: Sequence[int], more: NDArray[np.int64]) -> list[int]:
    return [total + value for total, value in zip(totals, more.tolist(), strict=True)]


def _nothing(channels: int) -> ChannelStatistics:
    unknown = np.full(channels, np.nan)
    return ChannelStatistics(0, unknown, unknown, unknown, unknown, unknown)
