"""What checking a store found; filled while the store is read."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreUnreachableError
from latentset.datasets.storage.threads import stoppable_threads
from latentset.datasets.store.arrays import array_form
from latentset.datasets.store.consistency import Placement, check_table
from latentset.datasets.store.header import ArrayName, Header
from latentset.datasets.store.manifest import Manifest
from latentset.datasets.store.samples import order_splits

Report = Callable[[str, int, int], None]
"""Called with the step, how much of it is done, and how much there is."""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


WORKERS = min(4, os.cpu_count() or 1)
"""Shards that are checked at a time. Digests and decompression run outside Python's lock."""

_SHARDS_BYTES = 1 << 30
"""Bytes of the shards that are checked at a time, before compression, or one shard."""

_PART_BYTES = 128 << 20
"""Bytes of a shard that are decoded at a time, or one chunk of each array."""

Outcome = Literal["sound", "damaged", "not checked"]
"""Sound: everything was read and is right. Damaged: something is wrong. Not checked: something is
missing or could not be read, and what could be read is right."""

Result = TypeVar("Result")


@dataclass
class Findings:
    """What checking a store found, a line each."""

    where: str
    """The store."""
    problems: list[str] = field(default_factory=list)
    """What is wrong."""
    extra: int = 0
    """Problems that are objects beside the store's own: nothing that belongs to it is wrong."""
    obstacles: list[str] = field(default_factory=list)
    """What could not be checked, though it should be, why, and what to do."""
    is_complete: bool = True
    """False if the job that makes the store has not finished."""
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and why that is no problem."""
    objects: int = 0
    """Objects that were read."""
    bytes: int = 0
    """Their size."""
    header: Header | None = None
    """None if it could not be read; likewise manifest and samples."""
    manifest: Manifest | None = None
    samples: pa.Table | None = None

    @property
    def outcome(self) -> Outcome:
        """The result as one word."""
        if self.problems:
            return "damaged"
        return "not checked" if self.obstacles else "sound"

    def add(self, *problems: StoreError | str) -> None:
        """Note what is wrong, once; what cannot be read is an obstacle."""
        for problem in problems:
            if isinstance(problem, StoreUnreachableError):
                self.block(problem)
                continue
            text = problem.what if isinstance(problem, StoreCorruptError) else str(problem)
            text = text.replace(f"{self.where}: ", "")
            if text not in self.problems:
                self.problems.append(text)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Record a StoreError that is raised in the block, and suppress it."""
        try:
            yield
        except StoreError as error:
            self.add(error)

    def block(self, obstacle: StoreError | str) -> None:
        """Note what could not be checked, once."""
        if str(obstacle) not in self.obstacles:
            self.obstacles.append(str(obstacle))

    def check_samples(self) -> Placement | None:
        """Check the samples table, if it could be read; return which rows the samples have."""
        if self.header is None or self.samples is None:
            return None
        placement = Placement(self.samples, self.header)
        self.add(*placement.overlaps())
        if self.manifest is not None:
            self.add(*check_table(self.samples, self.header, self.manifest))
        return placement

    def histogram(self) -> list[tuple[str, dict[str, int]]]:
        """For each class, in the header's order, its samples by split.

        ``(none)`` is last, where there are samples without label.
        """
        if self.header is None or self.samples is None:
            return []
        labels, splits = (self.samples.column(name).to_pylist() for name in ("label", "split"))
        counts = Counter(zip(labels, splits, strict=True))
        names = [*enumerate(self.header.source.classes), (-1, "(none)")]
        return [
            (name, {split or "(none)": counts[label, split] for split in order_splits(set(splits))})
            for label, name in names
            if label >= 0 or -1 in labels
        ]


def check_shards(
    check: Callable[[int], Result], shards: Sequence[int], header: Header | None, report: Report
) -> Iterator[Result]:
    """Call ``check`` with each shard in threads; results in order, computed a few ahead.

    Of large shards, one at a time.
    """
    report("checking", 0, len(shards))
    workers = max(1, min(WORKERS, _SHARDS_BYTES // _shard_bytes(header))) if header else WORKERS
    with stoppable_threads(workers, "verify") as threads:
        pending: list[Future[Result]] = []
        for k in range(len(shards) + workers):
            if k < len(shards):
                pending.append(threads.submit(check, shards[k]))
            if k >= workers:
                yield pending.pop(0).result()
                report("checking", k - workers + 1, len(shards))


def _shard_bytes(header: Header) -> int:
    """Bytes of a shard of all arrays, before compression."""
    forms = (array_form(header, name) for name in header.arrays)
    return sum(form.shard_rows * form.channels * np.dtype(form.dtype).itemsize for form in forms)


@dataclass(frozen=True)
class ShardPart:
    """Rows of a shard of some arrays that are decoded and checked together."""

    names: tuple[ArrayName, ...]
    first: int
    """Row of the shard; a multiple of ``chunk_rows``, as is ``count`` but at the end."""
    count: int


def divide_shard(header: Header) -> Iterator[ShardPart]:
    """Divide the rows of a shard, so that memory does not grow with its size; usually one part."""
    rows_alike = tuple(name for name in header.arrays if name != "z_hat")
    for names in filter(None, (rows_alike, tuple(n for n in header.arrays if n == "z_hat"))):
        forms = [array_form(header, name) for name in names]
        form = forms[0]
        row_bytes = sum(f.channels * np.dtype(f.dtype).itemsize for f in forms)
        step = form.chunk_rows * max(1, _PART_BYTES // (form.chunk_rows * row_bytes))
        for first in range(0, form.shard_rows, step):
            yield ShardPart(names, first, min(step, form.shard_rows - first))


def name_rows(name: ArrayName, first: int, stop: int, placement: Placement | None) -> str:
    """Name rows of an array and the samples that have them, for a message."""
    whose = placement.owners(name, first, stop) if placement else ""
    return f"{name}: rows {first} to {stop - 1}" + (f" ({whose})" if whose else "")
