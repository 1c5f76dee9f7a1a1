"""Reading a store for training: true random order, batches read ahead.

A batch is one call of ``rows.ArrayRows``, which decodes its chunks outside Python's lock. It holds
the integers that are stored, whole grids one after the other, and the boxes to cut out of them: the
device does the rest. No worker processes, no shuffle buffer.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreUnreachableError
from latentset.datasets.storage.threads import stoppable_threads
from latentset.datasets.store import Store
from latentset.datasets.store.digests import BackgroundCheck
from latentset.datasets.store.header import ArrayName
from latentset.train.data.crop import Boxes, Crop, WholeGrid
from latentset.train.data.order import Int64s, divide, epoch_order
from latentset.train.data.rows import UnreadableError, open_rows
from latentset.train.data.split import Split

READERS = 3
"""Threads that prepare batches; TensorStore decodes with its own, HDF5 in these."""

WHOLE_GRID = WholeGrid()


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

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to a device; pinned memory is copied while the host continues."""
        return self.apply(lambda tensor: tensor.to(device, non_blocking=True))


def make_windows(heights: Int64s, widths: Int64s, boxes: Boxes) -> Tensor:
    """Make a batch's windows; its grids follow each other."""
    counts = heights * widths
    firsts = np.cumsum(counts) - counts
    return torch.from_numpy(np.stack([firsts, heights, widths, *boxes], axis=1))


class LatentReader:
    """The batches of one split of a store.

    Each rank reads its part of every global batch of ``batch_size``, divided into
    ``micro_batches``. Without ``shuffle`` the order is the table's. ``resize``: the boxes are in
    this square, to which pixels are resized first. ``teacher``: float (samples of the store,
    classes). ``check_shards``: the first time that the split is read, its shards are compared with
    their digests in the background (``Store.check_ahead``), before the last batch is given.
    """

    def __init__(
        self,
        store: Store,
        split: Split,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        crop: Crop = WHOLE_GRID,
        resize: int | None = None,
        read_ahead: int = 4,
        rank: int = 0,
        world_size: int = 1,
        micro_batches: int = 1,
        pin_memory: bool = False,
        names: Sequence[ArrayName] = ("y_hat", "scale_index"),
        teacher: Tensor | None = None,
        check_shards: bool = False,
    ) -> None:
        self.split = split
        self._location = str(store.location)
        self._rows = open_rows(store, names)
        store.reserve(names, split.first_rows)
        self._fetch_ahead = partial(store.fetch_ahead, tuple(names))
        self._repair = partial(store.repair, tuple(names))
        self._check_ahead = partial(store.check_ahead, tuple(names))
        self._check_shards = check_shards
        self._check = BackgroundCheck()
        self._batch_size, self._shuffle, self._drop_last = batch_size, shuffle, drop_last
        self._seed = seed
        self._crop, self._resize = crop, resize
        self._read_ahead = read_ahead
        self._rank, self._world_size, self._micro_batches = rank, world_size, micro_batches
        self._pin_memory = pin_memory
        self._teacher = teacher

    def __len__(self) -> int:
        """Number of micro-batches an epoch."""
        return sum(1 for _ in self._divide(np.arange(len(self.split)))) * self._micro_batches

    def _divide(self, order: Int64s) -> Iterator[Int64s]:
        size, rank, ranks = self._batch_size, self._rank, self._world_size
        return divide(order, size, drop_last=self._drop_last, rank=rank, world_size=ranks)

    def batches(
        self, epoch: int, first_batch: int = 0, *, first_sample: int = 0
    ) -> Generator[Batch, None, None]:
        """Read an epoch (from 0), on the host.

        Left out are the first ``first_sample`` samples of its order, in all ranks together, and the
        first ``first_batch`` batches of what remains.
        """
        order = np.arange(len(self.split))
        if self._shuffle:
            order = epoch_order(self.split.samples, self._seed, epoch)
        order = order[first_sample:]
        count = self._micro_batches
        all_batches = (batch[k::count] for batch in self._divide(order) for k in range(count))
        left = islice(all_batches, first_batch, None)
        ahead: deque[Future[Batch]] = deque()
        checked = self.split.first_rows if self._check_shards else self.split.first_rows[:0]
        with (
            self._fetch_ahead(self.split.first_rows[order]),
            self._check_ahead(checked) as self._check,
            stoppable_threads(READERS, "latentset-reader") as pool,
        ):
            for positions in islice(left, self._read_ahead):
                ahead.append(pool.submit(self._read, positions, epoch))
            while ahead:
                batch = ahead.popleft().result()
                for positions in islice(left, 1):
                    ahead.append(pool.submit(self._read, positions, epoch))
                self._check.look()
                if not ahead:
                    self.finish_check()
                yield batch

    def finish_check(self) -> None:
        """Wait until the shards are compared with their digests; StoreCorruptError if one differs.

        For whoever saves what was computed from them before the epoch ends.
        """
        self._check.wait()
        self._check_shards = False

    def _read(self, positions: Int64s, epoch: int) -> Batch:
        split = self.split
        heights, widths = split.heights[positions], split.widths[positions]
        firsts, counts = split.first_rows[positions], heights * widths
        try:
            try:
                read = self._rows.read(firsts.tolist(), counts.tolist())
            except UnreadableError:
                if not self._repair(firsts.tolist()):
                    raise
                read = self._rows.read(firsts.tolist(), counts.tolist())
        except UnreadableError as error:
            raise self._blame(error.name, positions) from error
        rows: dict[str, Tensor] = {name: torch.from_numpy(values) for name, values in read.items()}
        boxes = self._boxes(heights, widths, split.samples[positions], epoch)
        samples = torch.from_numpy(split.samples[positions])
        batch = Batch(
            rows,
            make_windows(heights, widths, boxes),
            torch.from_numpy(split.labels[positions]),
            samples,
            None if self._teacher is None else self._teacher[samples],
        )
        return batch.apply(Tensor.pin_memory) if self._pin_memory else batch

    def _boxes(self, heights: Int64s, widths: Int64s, samples: Int64s, epoch: int) -> Boxes:
        if self._resize is not None:
            heights = widths = np.full_like(heights, self._resize)
        return self._crop.boxes(heights, widths, samples, seed=self._seed, epoch=epoch)

    def _blame(self, name: ArrayName, positions: Int64s) -> StoreError:
        """Find the sample of a batch that cannot be read, and what is wrong with it."""
        for k in positions.tolist():
            first = int(self.split.first_rows[k])
            count = int(self.split.heights[k] * self.split.widths[k])
            try:
                self._rows.read([first], [count])
            except UnreadableError as error:
                if "PERMISSION_DENIED" in error.reason:
                    return StoreUnreachableError(
                        f"{self._location}: {error.name} cannot be read: Permission denied. Look "
                        f"at the permissions of the store ({error.reason:.300})"
                    )
                return StoreCorruptError(
                    f"{self._location}: {error.name} of sample {self.split.ids[k]} (row "
                    f"{self.split.samples[k]} of the samples table) cannot be read: "
                    f"{error.reason}. An object was altered or lost"
                )
        return StoreCorruptError(
            f"{self._location}: {name} could not be read, and a moment later it could",
            "Look at the disk or the network that the store is on",
        )
