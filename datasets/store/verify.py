"""Checking a whole store: `latentset verify` (docs/verify.md).

Everything is read once and nothing is believed: digests, checksums of chunks, rows, values. All
problems are told. Memory holds a few shards at a time.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import pyarrow as pa

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreUnreachableError
from latentset.datasets.storage.location import Folder, Location, open_location
from latentset.datasets.store.header import Header
from latentset.datasets.store.manifest import Manifest
from latentset.datasets.store.rules import Placement, check_table

Report = Callable[[str, int, int], None]
"""Is told what is going on, how much is done, and how much there is."""

WORKERS = min(4, os.cpu_count() or 1)
"""Shards that are checked at a time. Digests and decompression go on outside Python's lock."""

Outcome = Literal["sound", "damaged", "not checked"]
"""All was read and is right; something is wrong; or something could not be read, or is not there
yet, and nothing that could be read is wrong."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Findings:
    """What came out; filled while the store is read."""

    where: str
    """The store."""
    problems: list[str] = field(default_factory=list)
    """All that is wrong, a line each."""
    obstacles: list[str] = field(default_factory=list)
    """What could not be checked, though it should be, why, and what to do, a line each."""
    is_complete: bool = True
    """Nothing says that the job that makes it has not finished."""
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and why that is no problem."""
    objects: int = 0
    """Objects that were read."""
    bytes: int = 0
    """Their size."""
    header: Header | None = None
    """The header, if it could be read."""
    manifest: Manifest | None = None
    """The manifest, if it could be read."""
    samples: pa.Table | None = None
    """The samples table, if it could be read."""

    @property
    def outcome(self) -> Outcome:
        """What it comes to."""
        if self.problems:
            return "damaged"
        return "not checked" if self.obstacles else "sound"

    @property
    def is_sound(self) -> bool:
        """All was read and is right."""
        return self.outcome == "sound"

    def add(self, problem: StoreError | str) -> None:
        """Note what is wrong, once; what cannot be read is an obstacle."""
        if isinstance(problem, StoreUnreachableError):
            self.block(problem)
            return
        text = problem.what if isinstance(problem, StoreCorruptError) else str(problem)
        text = text.replace(f"{self.where}: ", "")
        if text not in self.problems:
            self.problems.append(text)

    def block(self, obstacle: StoreError | str) -> None:
        """Note what could not be checked, once."""
        if str(obstacle) not in self.obstacles:
            self.obstacles.append(str(obstacle))

    def location(self) -> Placement | None:
        """Check the samples table; where the samples lie, if there is one."""
        if self.header is None or self.samples is None:
            return None
        placement = Placement(self.samples, self.header)
        for problem in placement.overlaps():
            self.add(problem)
        if self.manifest is not None:
            for problem in check_table(self.samples, self.header, self.manifest):
                self.add(problem)
        return placement

    def histogram(self) -> list[tuple[str, dict[str, int]]]:
        """Count samples by label and split.

        Returns:
            For each class, in the header's order, samples by split; ``(none)`` last, where there
            are samples without label.
        """
        if self.header is None or self.samples is None:
            return []
        counts = Counter(
            zip(
                self.samples.column("label").to_pylist(),
                self.samples.column("split").to_pylist(),
                strict=True,
            )
        )
        splits = sorted({split for _, split in counts})
        names = [*enumerate(self.header.source.classes), (-1, "(none)")]
        return [
            (name, {split or "(none)": counts[label, split] for split in splits})
            for label, name in names
            if label >= 0 or any(counts[-1, split] for split in splits)
        ]


def verify(where: Path | str | Location, report: Report) -> Findings:
    """Check a store.

    Args:
        where: A folder, an HDF5 file or a URL.
        report: Is told how far it is.

    Returns:
        What came out, also where nothing could be read.
    """
    findings = Findings(str(where))
    try:
        location = open_location(where)
        findings.where = str(location)
        if isinstance(location, Folder) and location.is_file():
            from latentset.datasets.store.hdf5.verify import verify_hdf5

            verify_hdf5(location, findings, report)
        else:
            from latentset.datasets.store.zarr.verify import verify_zarr

            verify_zarr(location, findings, report)
    except StoreError as error:
        findings.block(error)
    return findings


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Work on items in threads, in order and only a few ahead of who asks.

    Args:
        function: What to do with each.
        items: The items.

    Yields:
        The results, in the items' order.
    """
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="verify") as threads:
        pending: list[Future[Result]] = []
        for item in items:
            pending.append(threads.submit(function, item))
            if len(pending) > WORKERS:
                yield pending.pop(0).result()
        while pending:
            yield pending.pop(0).result()
