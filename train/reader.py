"""Reading a store for training: TensorStore, true random order, batches read ahead.

A batch is read as one TensorStore call an array, which decodes the batch's chunks in parallel
outside Python's lock; a few batches are read before they are asked for. No worker processes, no
shuffle buffer: every sample can come at any place of an epoch. What is handed on are the integers
that are stored, whole grids one after the other, and the boxes to cut out of them
(``crop.gather_index``): the device does the rest.

Every chunk's crc32c is checked when it is decoded, and a chunk that is missing is an error, not
zeros.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import tensorstore
import torch
from torch import Tensor

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.store import Store
from latentset.train.crop import Boxes, central_boxes, random_resized_boxes, whole_boxes
from latentset.train.order import Int64s, divide, epoch_order
from latentset.train.recipe import Data
from latentset.train.split import Split

CACHE_BYTES = 64 * 2**20
"""Bound of TensorStore's cache. It is there for the shards' indexes (without it each read of a
chunk reads its shard's index again); in random order it seldom holds a chunk twice."""

READERS = 3
"""Threads that prepare batches. They mostly wait for TensorStore, whose own threads decode."""


class Batch(NamedTuple):
    """Samples as they are stored, and the windows onto them."""

    rows: dict[str, Tensor]
    """By array name: integers (C, R), the grids of all samples one after the other."""
    windows: Tensor
    """int64 (B, 7): first row within ``rows``, grid width, top, left, height, width, flip."""
    labels: Tensor
    """int64 (B,), class indices."""
    samples: Tensor
    """int64 (B,), indices in the store's samples table."""


def open_rows(store: Store, names: Sequence[str]) -> dict[str, Any]:
    """Open arrays of a store with TensorStore, with a cache in common.

    Args:
        store: The store.
        names: Names of arrays with one row a latent position.

    Returns:
        TensorStore arrays (row, channel) by name.

    Raises:
        StoreCorruptError: An array cannot be opened or is not what the header says.
    """
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
    layout, codec = store.header.layout, store.header.codec
    expected = (layout.shards * layout.shard_rows, codec.channels)
    arrays = {}
    for name in names:
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{(store.path / name).resolve()}/"},
            # A finished store does not change, so nothing is looked up twice.
            "recheck_cached_metadata": "open",
            "recheck_cached_data": "open",
            "fill_missing_data_reads": False,
        }
        try:
            array = tensorstore.open(spec, context=context, read=True, open=True).result()
        except (ValueError, RuntimeError, OSError) as error:
            raise StoreCorruptError(f"{store.path}: {name} cannot be opened: {error}") from error
        if array.shape != expected or array.dtype.numpy_dtype.kind not in "iu":
            raise StoreCorruptError(
                f"{store.path}: {name}: expected integers {expected}, "
                f"got {array.dtype.name} {array.shape}"
            )
        arrays[name] = array
    return arrays


class LatentReader:
    """The batches of one split of a store.

    Args:
        store: The store.
        split: Its samples to read.
        data: Batch size, crops and read-ahead.
        seed: Of order and crops.
        training: Random order and random crops, and no incomplete last batch; otherwise the
            table's order, the evaluation's crops, every sample.
        rank: This process's rank.
        ranks: Number of ranks; each reads its share of every global batch.
        pin_memory: Put tensors where a CUDA device can fetch them while the host goes on.
        names: Arrays to read.
    """

    def __init__(
        self,
        store: Store,
        split: Split,
        data: Data,
        *,
        seed: int,
        training: bool,
        rank: int = 0,
        ranks: int = 1,
        pin_memory: bool = False,
        names: Sequence[str] = ("y_hat", "scale_index"),
    ) -> None:
        self.split = split
        self._where = str(store.path)
        self._arrays = open_rows(store, names)
        self._data = data
        self._seed = seed
        self._training = training
        self._rank, self._ranks = rank, ranks
        self._pin_memory = pin_memory

    def __len__(self) -> int:
        """Number of batches an epoch."""
        whole, rest = divmod(len(self.split), self._data.batch_size)
        return whole + (rest > 0 and not self._training)

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Read an epoch.

        Args:
            epoch: Its number, from 0; decides order and crops in training.
            first_batch: Batches to leave out at the beginning, without reading them.

        Yields:
            Batches, on the host.

        Raises:
            StoreCorruptError: A chunk is missing or does not match its checksum.
        """
        everything = np.arange(len(self.split))
        order = epoch_order(self.split.samples, self._seed, epoch) if self._training else everything
        parts = divide(
            order,
            self._data.batch_size,
            drop_last=self._training,
            rank=self._rank,
            ranks=self._ranks,
        )
        parts = islice(parts, first_batch, None)
        pool = ThreadPoolExecutor(READERS, thread_name_prefix="latentset-reader")
        ahead: deque[Future[Batch]] = deque()
        try:
            for part in islice(parts, self._data.read_ahead):
                ahead.append(pool.submit(self._read, part, epoch))
            while ahead:
                batch = ahead.popleft().result()
                for part in islice(parts, 1):
                    ahead.append(pool.submit(self._read, part, epoch))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, part: Int64s, epoch: int) -> Batch:
        split = self.split
        heights, widths = split.heights[part], split.widths[part]
        firsts, counts = split.first_rows[part], heights * widths
        reads = []
        with tensorstore.Batch() as together:
            for array in self._arrays.values():
                grids = [
                    array[first : first + count].translate_to[0]
                    for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)
                ]
                # Fortran order: chunks are stored channel by channel, so nothing is transposed.
                reads.append(tensorstore.concat(grids, axis=0).read(order="F", batch=together))
        rows = {}
        for name, read in zip(self._arrays, reads, strict=True):
            try:
                rows[name] = torch.from_numpy(read.result().T)
            except (ValueError, RuntimeError, OSError) as error:
                raise self._blame(name, part) from error
        boxes = self._boxes(heights, widths, split.samples[part], epoch)
        windows = np.stack(
            [
                np.cumsum(counts) - counts,
                widths,
                boxes.top,
                boxes.left,
                boxes.height,
                boxes.width,
                boxes.flip,
            ],
            axis=1,
        )
        batch = Batch(
            rows,
            torch.from_numpy(windows),
            torch.from_numpy(split.labels[part]),
            torch.from_numpy(split.samples[part]),
        )
        return _pin(batch) if self._pin_memory else batch

    def _boxes(self, heights: Int64s, widths: Int64s, samples: Int64s, epoch: int) -> Boxes:
        data = self._data
        if self._training:
            return random_resized_boxes(
                heights,
                widths,
                samples,
                seed=self._seed,
                epoch=epoch,
                scale=data.crop_scale,
                ratio=data.crop_ratio,
                flip=data.flip,
            )
        if data.eval_crop == "central":
            return central_boxes(heights, widths, data.eval_share)
        return whole_boxes(heights, widths)

    def _blame(self, name: str, part: Int64s) -> StoreCorruptError:
        """Find the sample of a batch that cannot be read, and what is wrong with it."""
        for k in part.tolist():
            first = int(self.split.first_rows[k])
            count = int(self.split.heights[k] * self.split.widths[k])
            try:
                self._arrays[name][first : first + count].read().result()
            except (ValueError, RuntimeError, OSError) as error:
                return StoreCorruptError(
                    f"{self._where}: {name} of sample {self.split.ids[k]} (row "
                    f"{self.split.samples[k]} of the samples table) cannot be read: {error}. "
                    "An object was altered or lost: fetch it again, or encode the store again"
                )
        return StoreCorruptError(
            f"{self._where}: {name} could not be read, and a moment later it could: look at the "
            "disk or the network that the store is on"
        )


def _pin(batch: Batch) -> Batch:
    return Batch(
        {name: rows.pin_memory() for name, rows in batch.rows.items()},
        batch.windows.pin_memory(),
        batch.labels.pin_memory(),
        batch.samples.pin_memory(),
    )
