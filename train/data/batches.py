"""Reading a store for training: true random order, batches read ahead.

A batch is one call of ``rows.ArrayRows``, which decodes its chunks outside Python's lock. It holds
the integers that are stored, whole grids one after the other, and the boxes to cut out of them: the
device does the rest. No worker processes, no shuffle buffer.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.store import Store
from latentset.datasets.store.header import ArrayName
from latentset.train.data.crop import Boxes, central_boxes, random_resized_boxes, whole_boxes
from latentset.train.data.order import Int64s, divide, epoch_order
from latentset.train.data.rows import UnreadableError, open_rows
from latentset.train.data.split import Split
from latentset.train.recipe.recipe import Data

READERS = 3
"""Threads that prepare batches; TensorStore decodes with its own, HDF5 in these."""


class Batch(NamedTuple):
    """Samples as they are stored, and the windows onto them."""

    rows: dict[str, Tensor]
    """By array name: integers (C, R), the grids of all samples one after the other."""
    windows: Tensor
    """int64 (B, 8): first row within ``rows``, grid height and width; the box's top, left, height,
    width, flip."""
    labels: Tensor
    """int64 (B,)."""
    samples: Tensor
    """int64 (B,), indices in the store's samples table."""
    teacher: Tensor | None = None
    """Float (B, classes), a teacher's logits."""

    def apply(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Change every tensor."""
        return Batch(
            {name: change(rows) for name, rows in self.rows.items()},
            change(self.windows),
            change(self.labels),
            change(self.samples),
            None if self.teacher is None else change(self.teacher),
        )

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device; pinned memory is copied while the host continues."""
        return self.apply(lambda tensor: tensor.to(device, non_blocking=True))


class LatentReader:
    """The batches of one split of a store.

    In training: random order, random crops, no incomplete last batch; else the table's order, the
    evaluation's crops, every sample. Each rank reads its part of every global batch, divided into
    ``micro_batches``. ``teacher``: float (samples of the store, classes).
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
        world_size: int = 1,
        micro_batches: int = 1,
        pin_memory: bool = False,
        names: Sequence[ArrayName] = ("y_hat", "scale_index"),
        teacher: Tensor | None = None,
    ) -> None:
        self.split = split
        self._location = str(store.location)
        self._rows = open_rows(store, names)
        self._data = data
        self._seed = seed
        self._training = training
        self._rank, self._world_size, self._micro_batches = rank, world_size, micro_batches
        self._square = data.resize if tuple(names) == ("pixels",) else None
        self._pin_memory = pin_memory
        self._teacher = teacher

    def __len__(self) -> int:
        """Number of micro-batches an epoch."""
        return sum(1 for _ in self._divide(np.arange(len(self.split)))) * self._micro_batches

    def _divide(self, order: Int64s) -> Iterator[Int64s]:
        size, rank, ranks = self._data.batch_size, self._rank, self._world_size
        return divide(order, size, drop_last=self._training, rank=rank, world_size=ranks)

    def batches(self, epoch: int, first_batch: int = 0) -> Generator[Batch, None, None]:
        """Read an epoch (from 0), on the host; the first ``first_batch`` batches are not read."""
        order = np.arange(len(self.split))
        if self._training:
            order = epoch_order(self.split.samples, self._seed, epoch)
        count = self._micro_batches
        all_batches = (batch[k::count] for batch in self._divide(order) for k in range(count))
        left = islice(all_batches, first_batch, None)
        pool = ThreadPoolExecutor(READERS, thread_name_prefix="latentset-reader")
        ahead: deque[Future[Batch]] = deque()
        try:
            for positions in islice(left, self._data.read_ahead):
                ahead.append(pool.submit(self._read, positions, epoch))
            while ahead:
                batch = ahead.popleft().result()
                for positions in islice(left, 1):
                    ahead.append(pool.submit(self._read, positions, epoch))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, positions: Int64s, epoch: int) -> Batch:
        split = self.split
        heights, widths = split.heights[positions], split.widths[positions]
        firsts, counts = split.first_rows[positions], heights * widths
        try:
            read = self._rows.read(firsts.tolist(), counts.tolist())
        except UnreadableError as error:
            raise self._blame(error.name, positions) from error
        rows: dict[str, Tensor] = {name: torch.from_numpy(values) for name, values in read.items()}
        boxes = self._boxes(heights, widths, split.samples[positions], epoch)
        windows = np.stack([np.cumsum(counts) - counts, heights, widths, *boxes], axis=1)
        samples = torch.from_numpy(split.samples[positions])
        batch = Batch(
            rows,
            torch.from_numpy(windows),
            torch.from_numpy(split.labels[positions]),
            samples,
            None if self._teacher is None else self._teacher[samples],
        )
        return batch.apply(Tensor.pin_memory) if self._pin_memory else batch

    def _boxes(self, heights: Int64s, widths: Int64s, samples: Int64s, epoch: int) -> Boxes:
        data = self._data
        if self._square is not None:
            heights = widths = np.full_like(heights, self._square)
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

    def _blame(self, name: ArrayName, positions: Int64s) -> StoreCorruptError:
        """Find the sample of a batch that cannot be read, and what is wrong with it."""
        for k in positions.tolist():
            first = int(self.split.first_rows[k])
            count = int(self.split.heights[k] * self.split.widths[k])
            try:
                self._rows.read([first], [count])
            except UnreadableError as error:
                return StoreCorruptError(
                    f"{self._location}: {error.name} of sample {self.split.ids[k]} (row "
                    f"{self.split.samples[k]} of the samples table) cannot be read: "
                    f"{error.reason}. An object was altered or lost"
                )
        return StoreCorruptError(
            f"{self._location}: {name} could not be read, and a moment later it could",
            "Look at the disk or the network that the store is on",
        )
