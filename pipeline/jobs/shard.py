"""What encode and decode tasks share: one shard's samples, batches, objects and record.

A task that is run twice writes the same bytes; one that finds its record and the objects unaltered
writes nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AllowInfNan,
    ConfigDict,
    FiniteFloat,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from latentset.datasets.errors import JobError
from latentset.datasets.storage.location import Location
from latentset.datasets.storage.lock import Lease
from latentset.datasets.store.digests import StoredObject, are_unaltered
from latentset.datasets.store.header import ArrayName, Frozen, Sha256
from latentset.datasets.store.manifest import ShardSummary
from latentset.datasets.store.samples import OK
from latentset.datasets.store.summary import format_bytes
from latentset.datasets.store.zarr.writer import shard_objects, write_objects
from latentset.datasets.terminal import printable
from latentset.pipeline.jobs.coder import Engine
from latentset.pipeline.jobs.plan import Plan, PlannedSample

BATCH_PIXELS = 1 << 21
"""Pixels of a batch, whatever number of images was asked for (32 of 256x256): a bound on memory."""

CODEC_BYTES = 300
"""Memory that a codec's first layers take for a pixel, about."""


Measure = Annotated[float, AllowInfNan(True)] | None
"""A float that may be infinite, or nothing."""


class ShardRecord(Frozen):
    """``STORE.job/FINGERPRINT/shards/NNNNNN.json``.

    The lists have one entry a sample, in the order of the plan.
    """

    fingerprint: Sha256
    plan_sha256: Sha256
    index: NonNegativeInt
    objects: tuple[StoredObject, ...]
    status: tuple[str, ...]
    """``ok``, or why a sample has no latents."""
    reason: tuple[str, ...]
    rate_bpp: tuple[FiniteFloat | None, ...]
    """Bits a pixel of the encoded image; None without latents."""
    psnr_db: tuple[Measure, ...] = ()
    """Of decoded images against the originals, dB; infinite where they are equal, None where it
    was not measured. Empty in a store of anything else, as is ``ms_ssim``."""
    ms_ssim: tuple[Measure, ...] = ()
    source_bytes: tuple[NonNegativeInt, ...]
    """Size of the image's file; 0 = could not be read."""
    source_sha256: tuple[str, ...]
    """Digest of the image's file; empty = could not be read."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    @model_validator(mode="after")
    def _check(self) -> Self:
        lists = (self.status, self.reason, self.rate_bpp, self.source_bytes, self.source_sha256)
        measures = {len(items) for items in (self.psnr_db, self.ms_ssim)} - {0}
        if len({len(items) for items in lists} | measures) != 1:
            raise ValueError("lists differ in length")
        return self

    @property
    def summary(self) -> ShardSummary:
        """The shard's entry in the manifest."""
        ok = Counter(self.status)[OK]
        return ShardSummary(
            index=self.index, samples=len(self.status), ok=ok, failed=len(self.status) - ok
        )


@dataclass(frozen=True)
class ShardTarget:
    """One of the stores that a task writes a shard of."""

    objects: Location
    """Where its objects go."""
    job: Location
    """The folder of its plan and records, ``STORE.job/FINGERPRINT``."""
    plan_sha256: str
    codec: str


@dataclass(frozen=True)
class ShardTask:
    """What every task of a job carries; small, because it travels with each."""

    targets: tuple[ShardTarget, ...]
    """The stores: their plans are equal but for the rows."""
    batch: int
    """Images a batch, at most."""
    engine: Engine
    leases: tuple[Lease, ...]
    """The locks of the stores, which must be this job's when something is written."""

    def check_leases(self) -> None:
        """Stop if another job has taken a store over."""
        check_leases(self.leases)


def check_leases(leases: Sequence[Lease]) -> None:
    """Stop if another job has taken one of these stores over."""
    for lease in leases:
        lease.check()


@dataclass(frozen=True)
class ShardDone:
    """What a task returns to the client."""

    samples: int
    reused: tuple[bool, ...]
    """For each store: the shard was recorded already, and is unaltered."""
    clipped: tuple[str, ...] = ()
    """Paths of images of more than 8 bits that became nearly all white or black."""


@dataclass
class Sample:
    """A sample on its way through a task; what it becomes is recorded (:class:`ShardRecord`)."""

    plan: PlannedSample
    status: str = OK
    reason: str = ""
    source_bytes: int = 0
    source_sha256: str = ""
    psnr_db: float | None = None
    ms_ssim: float | None = None
    is_clipped: bool = False
    """It has more than 8 bits, and became nearly all white or black."""
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)
    """The image to encode (H, W, 3), between decoding and encoding."""

    def fail(self, status: str, reason: str) -> None:
        """Record that it cannot be encoded."""
        self.status, self.reason, self.pixels = status, reason, None


def group_by_size(
    samples: Sequence[Sample], size: Callable[[Sample], tuple[int, int]], batch: int
) -> list[list[Sample]]:
    """Divide a shard into batches of one size, the largest images first, failed ones last.

    ``size`` gives height and width, 0 for a sample that has failed. A batch has at most ``batch``
    images, fewer where they are large.
    """
    by_size: dict[tuple[int, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        by_size[size(sample)].append(sample)
    batches = []
    for (height, width), members in sorted(by_size.items(), reverse=True):
        step = min(batch, max(1, BATCH_PIXELS // max(1, height * width)))
        batches += [members[k : k + step] for k in range(0, len(members), step)]
    return batches


def record_path(index: int) -> str:
    """Path of a shard's record below the job's folder."""
    return f"shards/{index:06d}.json"


def read_record(plan: Plan, index: int) -> ShardRecord | None:
    """Read a shard's record; None if none is there that is whole and belongs to this plan."""
    try:
        record = ShardRecord.model_validate_json(plan.job.read(record_path(index)))
    except (OSError, ValidationError):
        return None
    expected = (plan.fingerprint, plan.table_sha256, index)
    found = (record.fingerprint, record.plan_sha256, record.index)
    return record if found == expected else None


def find_record(target: ShardTarget, plan: Plan, index: int) -> ShardRecord | None:
    """Find the record of a shard that is done: its objects are as recorded."""
    record = read_record(plan, index)
    if record is None or not are_unaltered(target.objects, record.objects):
        return None
    return record


def write_shard(
    target: ShardTarget,
    plan: Plan,
    index: int,
    rows: Mapping[ArrayName, NDArray[Any]],
    samples: Sequence[Sample],
    rate_bpp: Mapping[str, float],
) -> None:
    """Write a shard's objects, and then its record.

    ``rows`` are all rows of the shard, by array; ``rate_bpp`` is by the sample's id.
    """
    measures = {}
    if plan.header.pixels is not None and plan.header.pixels.kind == "decoded":
        measures = {n: tuple(getattr(s, n) for s in samples) for n in ("psnr_db", "ms_ssim")}
    objects = write_objects(target.objects, shard_objects(plan.header, index, rows))
    record = ShardRecord(
        fingerprint=plan.fingerprint,
        plan_sha256=plan.table_sha256,
        index=index,
        objects=tuple(objects),
        status=tuple(s.status for s in samples),
        reason=tuple(s.reason for s in samples),
        rate_bpp=tuple(rate_bpp.get(s.plan.id) for s in samples),
        source_bytes=tuple(s.source_bytes for s in samples),
        source_sha256=tuple(s.source_sha256 for s in samples),
        **measures,
    )
    plan.job.write(record_path(index), record.model_dump_json().encode() + b"\n")


def advise_memory(rows: Sequence[PlannedSample]) -> str:
    """What helps where a shard takes too much memory; an image that is too large is named."""
    again = "run the same command again with"
    largest = max(rows, key=lambda row: row.encoded_height * row.encoded_width)
    pixels = largest.encoded_height * largest.encoded_width
    if pixels <= BATCH_PIXELS:
        return f"{again} a smaller --batch or fewer --workers"
    return (
        f"its largest image, {printable(largest.path)}, has {largest.encoded_height}x"
        f"{largest.encoded_width} pixels when encoded, for which a codec takes about "
        f"{format_bytes(CODEC_BYTES * pixels)}: {again} fewer --workers; or exclude that image "
        "from the source, or start another STORE with a smaller --resize"
    )


@contextmanager
def enough_memory(index: int, rows: Sequence[PlannedSample]) -> Iterator[None]:
    """Raise a JobError where there was no memory for a shard."""
    try:
        yield
    except MemoryError as error:
        raise JobError(
            f"shard {index}: a worker ran out of memory ({error}); {advise_memory(rows)}; or "
            "start another STORE with a smaller --shard-bytes"
        ) from error
