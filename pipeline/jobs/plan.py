"""The plan: for every image what becomes of it and where it goes, before any is encoded.

``STORE.job/FINGERPRINT/plan.parquet`` has one row a sample and one row group a shard, so that a
task reads its own rows only; ``plan.json``, written after it, has the store's header and the
table's digest. The plan is a pure function of the listing, of what the files' headers say and of
the settings.
"""

import io
import math
import os
import platform
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version as version_of
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import NonNegativeInt, ValidationError

from latentset.datasets.errors import (
    ImageError,
    JobError,
    SourceError,
    StoreError,
    describe_invalid,
)
from latentset.datasets.sources import Source, resolve_inside
from latentset.datasets.sources.images import read_size
from latentset.datasets.storage.location import Location
from latentset.datasets.store.arrays import ImageSizes, RowForm
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.header import Frozen, Header, Layout, Provenance, Sha256
from latentset.datasets.store.layout import Assignment, assign_rows
from latentset.datasets.store.samples import OK
from latentset.datasets.version import __version__
from latentset.pipeline.jobs.settings import Settings

HEADER_THREADS = 8
"""Threads of one task that reads images' headers where it mostly waits, as for a network file
system. Elsewhere they would take turns, and three times as long."""

TRIED = 32
"""Images that a task reads first, to see whether it waits."""

PLAN_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("label", pa.int32()),
        ("split", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("encoded_height", pa.int32()),
        ("encoded_width", pa.int32()),
        ("latent_height", pa.int32()),
        ("latent_width", pa.int32()),
        ("first_row", pa.int64()),
        ("z_first_row", pa.int64()),
        ("shard", pa.int32()),
        ("source_bytes", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)
"""Columns of the plan. Sizes are 0 and rows -1 where ``status`` is not ``ok``."""


_ROWS = ("latent_height", "latent_width", "first_row", "z_first_row")


@dataclass(frozen=True)
class FileFacts:
    """What an image's file says of itself before it is decoded."""

    height: int = 0
    """Pixels; 0 = unknown."""
    width: int = 0
    """Pixels; 0 = unknown."""
    bytes: int = 0
    """Size of the file; 0 = unknown."""
    status: str = OK
    """``ok``, or why it cannot be encoded."""
    reason: str = ""
    """The same in words."""


def read_facts(root: str, paths: Sequence[str]) -> list[FileFacts]:
    """Read the headers of images; a task of its own where there are many.

    Args:
        root: The source's root.
        paths: Relative paths.

    Returns:
        What each says.
    """

    def read(path: str) -> FileFacts:
        size = 0
        try:
            file = resolve_inside(Path(root), path)
            if file.is_file():
                size = file.stat().st_size
            height, width = read_size(file)
        except ImageError as error:
            return FileFacts(bytes=size, status=error.status, reason=str(error))
        except SourceError as error:
            return FileFacts(status="unreadable", reason=str(error).replace(root, "SOURCE"))
        except OSError as error:
            return FileFacts(status="unreadable", reason=f"cannot be read: {error.strerror}")
        return FileFacts(height, width, size)

    started, busy = time.monotonic(), time.thread_time()
    facts = [read(path) for path in paths[:TRIED]]
    waits = time.monotonic() - started > 2 * (time.thread_time() - busy)
    with ThreadPoolExecutor(HEADER_THREADS if waits else 1) as threads:
        return facts + list(threads.map(read, paths[TRIED:]))


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    header: Header
    """The header that the store gets."""
    fingerprint: str
    """Of the settings."""
    table: pa.Table
    """Of ``PLAN_SCHEMA``, one row a sample, by ascending shard."""
    first_shard: int = 0
    """The first shard that is planned; those before it are there already."""


class PlanDocument(Frozen):
    """``plan.json``."""

    fingerprint: Sha256
    """Of the settings."""
    header: Header
    """The header that the store gets."""
    table_sha256: Sha256
    """Digest of ``plan.parquet``; records carry it, so that none outlives its plan."""
    first_shard: NonNegativeInt = 0
    """The first shard that is planned: not 0 where failed samples are tried again (``retry``)."""


def make_plan(
    source: Source, settings: Settings, facts: Sequence[FileFacts], form: RowForm
) -> Plan:
    """Decide what becomes of every sample and where it goes.

    Args:
        source: The images listed.
        settings: Of the job.
        facts: Of each file, in the order of the source.
        form: Of the rows that shards are reckoned with: the store's own, or those of another
            codec of the same job.

    Returns:
        The plan.

    Raises:
        JobError: None of the images can be read.
    """
    columns, rows, z_rows = measure(settings, facts)
    try:
        placed = assign_rows(rows, z_rows, form, settings.target_shard_bytes)
    except StoreError as error:
        k = 0
        raise JobError(
            f"none of the {len(facts)} images below {source.root} can be encoded; the first, "
            f"{source.samples.column('path')[k].as_py()}: {columns['status'][k]}: "
            f"{columns['reason'][k]}"
        ) from error
    table = plan_table(source.samples, columns, placed)
    return Plan(_make_header(settings, placed.layout), settings.fingerprint, table)


def measure(
    settings: Settings, facts: Sequence[FileFacts]
) -> tuple[dict[str, list[Any]], NDArray[np.int64], NDArray[np.int64]]:
    """Reckon the sizes of samples.

    Args:
        settings: Of the job.
        facts: Of each file.

    Returns:
        The columns of the plan that follow from them; for each sample the positions of its
        grid and those of its ``z_hat`` grid, 0 if it cannot be encoded.
    """
    of_image, content = ImageSizes(settings.content, settings.resize), settings.content
    columns: dict[str, list[Any]] = defaultdict(list)
    rows, z_rows = [], []
    for fact in facts:
        status, reason, encoded = fact.status, fact.reason, (0, 0)
        if status == OK:
            try:
                encoded = of_image.image(fact.height, fact.width)
            except ImageError as error:
                status, reason = error.status, str(error)
        grid = content.y_size(*encoded)
        rows.append(math.prod(grid))
        z_rows.append(math.prod(content.z_size(*encoded)))
        for name, value in (
            ("height", fact.height),
            ("width", fact.width),
            ("encoded_height", encoded[0]),
            ("encoded_width", encoded[1]),
            ("latent_height", grid[0]),
            ("latent_width", grid[1]),
            ("source_bytes", fact.bytes),
            ("status", status),
            ("reason", reason),
        ):
            columns[name].append(value)
    return columns, np.array(rows, np.int64), np.array(z_rows, np.int64)


def plan_table(samples: pa.Table, columns: Mapping[str, list[Any]], placed: Assignment) -> pa.Table:
    """Make the table of a plan.

    Args:
        samples: The samples as their source lists them.
        columns: What :func:`measure` gave for them.
        placed: Where they go.

    Returns:
        A table of ``PLAN_SCHEMA``.
    """
    given = {name: samples.column(name) for name in samples.column_names}
    placement = {
        "first_row": placed.first_row,
        "z_first_row": placed.z_first_row,
        "shard": placed.shard,
    }
    return pa.table({**columns, **placement, **given}, schema=PLAN_SCHEMA)


def _make_header(settings: Settings, layout: Layout) -> Header:
    return Header(
        format_version=settings.format_version,
        codec=settings.codec,
        pixels=settings.pixels,
        arrays=settings.arrays,
        resize=settings.resize,
        source=settings.source,
        layout=layout,
        provenance=Provenance(
            latentset=__version__,
            **settings.software.model_dump(),
            python=platform.python_version(),
            numpy=version_of("numpy"),
            zarr=version_of("zarr"),
            created=_now(),
        ),
    )


def _now() -> str:
    """Time of now, or SOURCE_DATE_EPOCH (reproducible-builds.org) where it is set."""
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def write_plan(job: Location, plan: Plan) -> None:
    """Write a plan.

    Args:
        job: The job's folder.
        plan: The plan.

    Raises:
        StoreError: It cannot be written.
    """
    sink = io.BytesIO()
    shard = plan.table.column("shard").to_numpy()
    shards = np.arange(plan.first_shard, plan.header.layout.shards + 1)
    bounds = np.searchsorted(shard, shards)
    with pq.ParquetWriter(sink, PLAN_SCHEMA, compression="zstd", store_schema=False) as writer:
        for first, last in pairwise(bounds):
            rows = plan.table.slice(int(first), int(last - first))
            writer.write_table(rows, row_group_size=max(1, rows.num_rows))
    content = sink.getvalue()
    job.write("plan.parquet", content)
    document = PlanDocument(
        fingerprint=plan.fingerprint,
        header=plan.header,
        table_sha256=sha256_of(content),
        first_shard=plan.first_shard,
    )
    job.write("plan.json", document.model_dump_json(indent=1).encode() + b"\n")


class PlanFile:
    """A plan on disk: checked when opened, read by shards.

    Args:
        job: The job's folder.

    Raises:
        JobError: There is no plan, or it was torn or altered.
    """

    def __init__(self, job: Location) -> None:
        try:
            document = PlanDocument.model_validate_json(job.read("plan.json"))
            content = job.read("plan.parquet")
        except (OSError, ValidationError) as error:
            raise JobError(f"{job}: the plan cannot be read: {describe_invalid(error)}") from error
        if sha256_of(content) != document.table_sha256:
            raise JobError(f"{job}: plan.parquet differs from its digest in plan.json")
        self.header = document.header
        self.fingerprint = document.fingerprint
        self.table_sha256 = document.table_sha256
        self.shards = range(document.first_shard, document.header.layout.shards)
        self._file = pq.ParquetFile(io.BytesIO(content))
        self.samples: int = self._file.metadata.num_rows
        self._lock = threading.Lock()  # a worker may have several threads; the file is not for them

    def first(self, shard: int) -> int:
        """Number of the first sample of a shard, in the plan's order.

        Args:
            shard: Its number.

        Returns:
            Number of samples in the planned shards before it.
        """
        groups = range(shard - self.shards.start)
        return sum(self._file.metadata.row_group(k).num_rows for k in groups)

    def rows(self, shard: int) -> list[dict[str, Any]]:
        """Read the rows of one shard.

        Args:
            shard: Its number.

        Returns:
            One dict a sample.
        """
        with self._lock:
            table = self._file.read_row_group(shard - self.shards.start)
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def same_images(self, other: "PlanFile") -> bool:
        """Tell whether another plan has the same images in the same shards.

        Args:
            other: Of another codec.

        Returns:
            True if they differ in rows of latents at most.
        """
        columns = [c for c in PLAN_SCHEMA.names if c not in _ROWS]
        return self is other or self.table().select(columns) == other.table().select(columns)

    def table(self) -> pa.Table:
        """Read all rows, in the order of the source."""
        with self._lock:
            return self._file.read()


@lru_cache(maxsize=4)
def open_plan_once(job: Location, table_sha256: str) -> PlanFile:
    """Open a plan, or take the one that this process has opened before.

    Args:
        job: The job's folder.
        table_sha256: Digest of its table, as the client has read it.

    Returns:
        The plan.

    Raises:
        JobError: There is no plan, or another one.
    """
    plan = PlanFile(job)
    if plan.table_sha256 != table_sha256:
        raise JobError(
            f"{job}: this worker sees another plan than the client: is the folder of the store "
            "the same file system for all?"
        )
    return plan
