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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib.metadata import version as version_of
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import NonNegativeInt, ValidationError

from latentset.datasets.errors import (
    ImageError,
    JobError,
    SourceError,
    StoreError,
    StoreUnreachableError,
    describe_invalid,
)
from latentset.datasets.sources import PART, Source, open_root, resolve_inside
from latentset.datasets.sources.images import read_size
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.location import Folder, Location, read_if_there
from latentset.datasets.store import Store
from latentset.datasets.store.arrays import ImageSizes, RowForm
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.header import Described, Frozen, Header, Provenance, Sha256
from latentset.datasets.store.layout import Assignment, assign_rows
from latentset.datasets.store.samples import OK
from latentset.datasets.terminal import printable
from latentset.datasets.version import __version__
from latentset.pipeline.jobs.settings import Settings

HEADER_THREADS = 8
"""Threads of one task that reads images' headers where it mostly waits, as for a network file
system. Elsewhere they would take turns, and three times as long."""

TRIED = 32
"""Images that a task reads first, to see whether it waits."""


MAX_ENLARGED = 1 << 23
"""Pixels to which a resize rule may enlarge an image that is more than ``MAX_RATIO`` times as long
as wide: for one, a codec takes some 3 GB."""

MAX_RATIO = 4


@dataclass(frozen=True)
class PlannedSample:
    """One row of the plan. ImageSizes are 0 and rows -1 where ``status`` is not ``ok``."""

    id: str
    path: str
    label: int
    split: str
    height: int
    width: int
    encoded_height: int
    """After all resizing, as is the width."""
    encoded_width: int
    latent_height: int
    latent_width: int
    first_row: int
    z_first_row: int
    shard: int
    source_bytes: int
    status: str
    reason: str
    part: list[int] | None = None
    """Of a member of a tar file, where it lies (``Source.samples``)."""


_INT64 = ("first_row", "z_first_row", "source_bytes")

_TYPES = {"part": PART.type} | dict.fromkeys(_INT64, pa.int64())

PLAN_SCHEMA = pa.schema(
    (f.name, pa.string() if f.type is str else _TYPES.get(f.name, pa.int32()))
    for f in fields(PlannedSample)
)

_ROWS = ("latent_height", "latent_width", "first_row", "z_first_row")

_MEASURED = (
    *("height", "width", "encoded_height", "encoded_width", "latent_height", "latent_width"),
    *("source_bytes", "status", "reason"),
)


@dataclass(frozen=True)
class FileFacts:
    """What an image's file says of itself before it is decoded; 0 = unknown."""

    height: int = 0
    width: int = 0
    bytes: int = 0
    status: str = OK
    reason: str = ""


def read_facts(
    paths: Sequence[str], root: str, parts: Sequence[Sequence[int] | None] | None = None
) -> list[FileFacts]:
    """Read the headers of images below ``root``; a task of its own where there are many.

    ``parts`` are those of ``Source.samples``.
    """
    base = open_root(root)

    def read(path: str, part: Sequence[int] | None) -> FileFacts:
        size = 0
        try:
            file = resolve_inside(base, path, part)
            if not isinstance(file, Path):
                size = file.size
            elif file.is_file():
                size = file.stat().st_size
            height, width = read_size(file)
        except ImageError as error:
            return FileFacts(bytes=size, status=error.status, reason=str(error))
        except SourceError as error:
            return FileFacts(status="unreadable", reason=str(error).replace(root, "SOURCE"))
        except StoreUnreachableError:
            raise
        except OSError as error:
            return FileFacts(status="unreadable", reason=f"cannot be read: {error.strerror}")
        return FileFacts(height, width, size)

    started, busy = time.monotonic(), time.thread_time()
    parts = parts or [None] * len(paths)
    facts = list(map(read, paths[:TRIED], parts[:TRIED]))
    waits = time.monotonic() - started > 2 * (time.thread_time() - busy)
    with ThreadPoolExecutor(HEADER_THREADS if waits else 1) as threads:
        return facts + list(threads.map(read, paths[TRIED:], parts[TRIED:]))


def limit_enlarged(fact: FileFacts, rule: ResizeRule) -> FileFacts:
    """Give a banner the status "too_large" that the shorter side would enlarge without bounds."""
    if fact.status != OK or rule.kind != "short":
        return fact
    with suppress(ImageError):  # even larger: it gets its status from the rule itself
        height, width = rule.size(fact.height, fact.width)
        limit = max(MAX_ENLARGED, fact.height * fact.width)
        if height * width > limit and max(height, width) > MAX_RATIO * min(height, width):
            reason = (
                f"{fact.height}x{fact.width} pixels become {height}x{width} by {rule}: an image of "
                f"more than 1:{MAX_RATIO} is enlarged to {MAX_ENLARGED} pixels at most"
            )
            return replace(fact, status="too_large", reason=reason)
    return fact


class PlanDocument(Frozen):
    """``plan.json``."""

    fingerprint: Sha256
    header: Header
    table_sha256: Sha256
    """Digest of ``plan.parquet``; records carry it, so that none outlives its plan."""
    first_shard: NonNegativeInt = 0
    """The first shard that is planned; those before it exist already."""
    root: str = ""
    """Root of the images, absolute; empty in plans of earlier versions and of decoding."""


class Plan:
    """A plan on disk: validated when opened, read by shards; JobError if it is torn or altered."""

    def __init__(self, job: Location) -> None:
        try:
            document = PlanDocument.model_validate_json(job.read("plan.json"))
            content = job.read("plan.parquet")
        except (OSError, ValidationError) as error:
            raise JobError(f"{job}: the plan cannot be read: {describe_invalid(error)}") from error
        if sha256_of(content) != document.table_sha256:
            raise JobError(f"{job}: plan.parquet differs from its digest in plan.json")
        self.job = job
        self.header = document.header
        self.fingerprint = document.fingerprint
        self.table_sha256 = document.table_sha256
        self.shards = range(document.first_shard, document.header.layout.shards)
        self._file = pq.ParquetFile(pa.BufferReader(content))
        self.samples: int = self._file.metadata.num_rows
        self._lock = threading.Lock()  # a worker may have several threads; the file is not for them

    def first(self, shard: int) -> int:
        """Number of the first sample of a shard: the samples of the planned shards before it."""
        groups = range(shard - self.shards.start)
        return sum(self._file.metadata.row_group(k).num_rows for k in groups)

    def rows(self, shard: int) -> list[PlannedSample]:
        """Read the rows of one shard."""
        with self._lock:
            table = self._file.read_row_group(shard - self.shards.start)
        return [PlannedSample(**row) for row in table.to_pylist()]

    def same_images(self, other: "Plan") -> bool:
        """Whether another codec's plan has the same images in the same shards."""
        columns = [name for name in PLAN_SCHEMA.names if name not in (*_ROWS, "part")]
        return self is other or self.table().select(columns) == other.table().select(columns)

    def table(self) -> pa.Table:
        """Read all rows, in the order of the source."""
        with self._lock:
            return self._file.read()


def make_plan(
    job: Location, source: Source, settings: Settings, facts: Sequence[FileFacts], form: RowForm
) -> Plan:
    """Decide what becomes of every sample and where it goes; JobError if none can be read.

    ``facts`` are in the order of the source. ``form`` is that of the rows that divide the shards:
    the store's own, or those of another codec of the same job.
    """
    columns, rows, z_rows = measure_samples(settings, facts)
    try:
        placed = assign_rows(rows, z_rows, form, settings.target_shard_bytes)
    except StoreError as error:
        raise JobError(
            f"none of the {len(facts)} images below {source.root} can be encoded; the first, "
            f"{source.samples.column('path')[0].as_py()}: {columns['status'][0]}: "
            f"{columns['reason'][0]}"
        ) from error
    header = Header(
        **{name: getattr(settings, name) for name in Described.model_fields},
        layout=placed.layout,
        provenance=Provenance(
            latentset=__version__,
            **settings.software.model_dump(),
            python=platform.python_version(),
            numpy=version_of("numpy"),
            zarr=version_of("zarr"),
            created=creation_time(),
        ),
    )
    return write_plan(job, header, settings, source, columns, placed)


def creation_time() -> str:
    """Now, or SOURCE_DATE_EPOCH (reproducible-builds.org), in ISO 8601; JobError if it is none."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        seconds = time.gmtime(float(given) if given else None)
    except (ValueError, OverflowError, OSError) as error:
        raise JobError(
            f"SOURCE_DATE_EPOCH: expected seconds since 1970, such as 1700000000, got {given!r}"
        ) from error
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", seconds)


def measure_samples(
    settings: Settings, facts: Sequence[FileFacts]
) -> tuple[dict[str, list[Any]], NDArray[np.int64], NDArray[np.int64]]:
    """Compute the columns of the plan that follow from the sizes of samples.

    With them come, for each sample, the positions of its grid and those of its ``z_hat`` grid, 0
    if it cannot be encoded.
    """
    of_image, content = ImageSizes(settings.content, settings.resize), settings.content
    columns: dict[str, list[Any]] = {name: [] for name in _MEASURED}
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
        values = (fact.height, fact.width, *encoded, *grid, fact.bytes, status, reason)
        for name, value in zip(_MEASURED, values, strict=True):
            columns[name].append(value)
    return columns, np.array(rows, np.int64), np.array(z_rows, np.int64)


def describe_enlarged(plan: Plan) -> str:
    """A line about images that the resize rule enlarges; empty if there are none."""
    table = plan.table()
    larger = [
        pc.greater(table[f"encoded_{side}"], table[side]).combine_chunks()
        for side in ("height", "width")
    ]
    rows = table.filter(pc.or_(*larger))
    if not rows.num_rows:
        return ""
    first = PlannedSample(**rows.slice(0, 1).to_pylist()[0])
    return (
        f"{rows.num_rows} of {table.num_rows} images are smaller than --resize makes them, and are "
        f"enlarged; the first, {printable(first.path)}, from {first.height}x{first.width} to "
        f"{first.encoded_height}x{first.encoded_width} pixels"
    )


def write_plan(
    job: Location,
    header: Header,
    settings: Settings,
    source: Source,
    columns: dict[str, list[Any]],
    placed: Assignment,
    first_shard: int = 0,
) -> Plan:
    """Write a plan of a source's samples, their measured columns and their rows."""
    given = {"part": pa.nulls(source.samples.num_rows, PART.type)}
    given |= {name: source.samples.column(name) for name in source.samples.column_names}
    placement = {name: getattr(placed, name) for name in ("first_row", "z_first_row", "shard")}
    table = pa.table({**columns, **placement, **given}, schema=PLAN_SCHEMA)
    sink = io.BytesIO()
    bounds = np.searchsorted(placed.shard, np.arange(first_shard, header.layout.shards + 1))
    with pq.ParquetWriter(sink, PLAN_SCHEMA, compression="zstd", store_schema=False) as writer:
        for first, last in pairwise(bounds):
            rows = table.slice(int(first), int(last - first))
            writer.write_table(rows, row_group_size=max(1, rows.num_rows))
    content = sink.getvalue()
    job.write("plan.parquet", content)
    document = PlanDocument(
        fingerprint=settings.fingerprint,
        header=header,
        table_sha256=sha256_of(content),
        first_shard=first_shard,
        root=str(source.root),
    )
    job.write("plan.json", document.model_dump_json(indent=1).encode() + b"\n")
    return Plan(job)


def find_plan(job: Location, say: Callable[[str], None]) -> Plan | None:
    """Open the plan of an earlier run of the same job, if there is one that is whole."""
    if job.size("plan.json") is None:
        return None
    try:
        return Plan(job)
    except JobError:
        say("the plan of the earlier run cannot be read; planning again")
        return None


def find_root(store: Store) -> str | None:
    """The root of the images that a store was made of, as its job recorded it.

    Only a store in a folder is asked: one from elsewhere does not choose what is read here.
    """
    if not isinstance(store.location, Folder):
        return None
    job = store.location.beside(".job") / store.fingerprint
    with suppress(StoreError, ValidationError):
        document = PlanDocument.model_validate_json(read_if_there(job, "plan.json") or b"")
        return document.root or None
    return None


@lru_cache(maxsize=4)
def open_plan_once(job: Location, table_sha256: str) -> Plan:
    """Open a plan, or take the one that this process has opened; JobError if it is another one."""
    plan = Plan(job)
    if plan.table_sha256 != table_sha256:
        raise JobError(
            f"{job}: this worker sees another plan than the client: is the folder of the store "
            "the same file system for all?"
        )
    return plan
