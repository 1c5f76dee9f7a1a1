"""One task: the images of one shard -> the objects of that shard and its record.

A job may make several stores, one a codec: each image is read and decoded once for all. A
task that is run twice writes the same bytes; one that finds its record and the objects unaltered
writes nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import ImageFailedError, JobError
from latentset.datasets.sources.images import decoder_version
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.location import Location
from latentset.datasets.storage.lock import Lease
from latentset.datasets.store.digests import are_unaltered
from latentset.datasets.store.formats import Format
from latentset.datasets.store.hdf5.parts import encode_part
from latentset.datasets.store.header import ArrayName, CodecInfo, Header
from latentset.datasets.store.samples import OK
from latentset.datasets.store.scales import number_scales
from latentset.datasets.store.zarr.writer import shard_objects, write_objects
from latentset.pipeline.cpu_isa import CpuIsa
from latentset.pipeline.encode.contents import Contents, LatentContents, PixelContents
from latentset.pipeline.encode.engine import Coder, Engine, load_once
from latentset.pipeline.encode.images import SourceImage, decode_batches
from latentset.pipeline.jobs.plan import PlanFile, open_plan_once
from latentset.pipeline.jobs.record import ShardRecord, part_path, read_record, write_record
from latentset.pipeline.jobs.settings import Software, software_of


@dataclass(frozen=True)
class ShardTarget:
    """One of the stores that a task writes a shard of."""

    objects: Location
    """Where its objects go."""
    job: Location
    """The job's folder, ``STORE.job/FINGERPRINT``."""
    plan_sha256: str
    """Digest of the plan's table."""
    container: Format
    """What its objects are: of Zarr, or an HDF5 file that is put together later."""
    codec: str
    """Name or path of the codec."""


@dataclass(frozen=True)
class Task:
    """What every task of a job is told; small, because it travels with each."""

    targets: tuple[ShardTarget, ...]
    """The stores: their plans are equal but for the rows."""
    source: Path
    """Root of the images."""
    batch: int
    """Images a batch, at most."""
    fail: bool
    """Stop at an image that cannot be encoded."""
    engine: Engine
    """Runs the codecs."""
    leases: tuple[Lease, ...] = ()
    """The locks of the stores, which must be this job's when something is written."""
    what: str = "encoding"
    """What the tasks do, for people."""


@dataclass(frozen=True)
class ShardDone:
    """What a task gives back to the client."""

    index: int
    """Number of the shard."""
    samples: int
    """Its samples."""
    reused: tuple[bool, ...]
    """For each store: the shard was there already, recorded and unaltered."""
    failed: tuple[str, ...] = ()
    """``path: status: reason`` of its samples without latents."""


def write_shard(
    target: ShardTarget,
    plan: PlanFile,
    index: int,
    rows: Mapping[ArrayName, NDArray[Any]],
    images: Sequence[SourceImage],
    **figures: Mapping[str, float],
) -> None:
    """Write a shard's objects, and then its record.

    Args:
        target: The store.
        plan: Its plan.
        index: Number of the shard.
        rows: All rows of the shard, by array.
        images: Its samples, and what became of each.
        **figures: For each column of the record that has numbers, its numbers by the sample's id.

    Raises:
        StoreError: An object cannot be written.
    """
    if target.container == "zarr":
        objects = shard_objects(plan.header, index, rows)
    else:
        objects = {part_path(index): encode_part(plan.header, index, rows)}
    columns = {
        name: tuple(numbers.get(p.row["id"]) for p in images) for name, numbers in figures.items()
    }
    record = ShardRecord(
        fingerprint=plan.fingerprint,
        plan_sha256=target.plan_sha256,
        index=index,
        objects=tuple(write_objects(target.objects, objects)),
        status=tuple(p.status for p in images),
        reason=tuple(p.reason for p in images),
        source_bytes=tuple(p.source_bytes for p in images),
        source_sha256=tuple(p.source_sha256 for p in images),
        **columns,
    )
    write_record(target.job, record)


def encode_shard(task: Task, index: int, report: Callable[[int], None]) -> ShardDone:
    """Encode one shard of every store, unless its record says that this was done.

    Args:
        task: What every task is told.
        index: Number of the shard.
        report: Called with the number of samples done so far.

    Returns:
        A summary; the facts are in the records.

    Raises:
        ImageFailedError: An image cannot be encoded and ``task.fail`` is set.
        JobError: The worker's software or codec is not the client's, a value does not fit, or
            another job has taken a store over.
        StoreError: An object cannot be written.
    """
    plans = [open_plan_once(target.job, target.plan_sha256) for target in task.targets]
    records = [
        find_record(target, plan, index) for target, plan in zip(task.targets, plans, strict=True)
    ]
    rows = plans[0].rows(index)
    reused = tuple(record is not None for record in records)
    if all(reused):
        return ShardDone(index, len(rows), reused, list_failed(rows, records[0]))

    images = [SourceImage(row) for row in rows]
    with enough_memory(index):
        rule = ResizeRule.parse(plans[0].header.resize)
        batches = decode_batches(images, task.source, rule, task.batch)
        shards = [  # their codecs are loaded here, unless this worker has them
            (target, plan, _begin(task.engine, target.codec, plan, index))
            for target, plan, found in zip(task.targets, plans, reused, strict=True)
            if not found
        ]
        done = 0
        for batch in batches:
            if task.fail:
                for image in batch:
                    if image.status != OK:
                        raise image_failed(image.describe())
            ready = [image for image in batch if image.pixels is not None]
            if ready:
                pixels = np.stack([p.pixels for p in ready if p.pixels is not None])
                for _, _, contents in shards:
                    contents.add(pixels, [p.row["id"] for p in ready])
            for image in ready:
                image.pixels = None
            done += len(batch)
            report(done)
        for lease in task.leases:
            lease.check()
        for target, plan, contents in shards:
            rows_of_shard, rate_bpp = contents.rows(), contents.rate_bpp
            write_shard(target, plan, index, rows_of_shard, images, rate_bpp=rate_bpp)
    failed = tuple(p.describe() for p in images if p.status != OK)
    return ShardDone(index, len(rows), reused, failed)


@contextmanager
def enough_memory(index: int) -> Iterator[None]:
    """Put into words that there was no memory for a shard.

    Args:
        index: Number of the shard.

    Raises:
        JobError: There was none.
    """
    try:
        yield
    except MemoryError as error:
        raise JobError(
            f"shard {index}: a worker ran out of memory ({error}). Run the same command again with "
            "a smaller --batch or fewer --workers; or begin another STORE with a smaller "
            "--shard-mib"
        ) from error


def find_record(target: ShardTarget, plan: PlanFile, index: int) -> ShardRecord | None:
    """Find the record of a shard that is done.

    Args:
        target: The store.
        plan: Its plan.
        index: Number of the shard.

    Returns:
        The record, if there is one and its objects are what it says.
    """
    record = read_record(target.job, index, plan.fingerprint, target.plan_sha256)
    if record is None or not are_unaltered(target.objects, record.objects):
        return None
    return record


def list_failed(rows: list[dict[str, Any]], record: ShardRecord | None) -> tuple[str, ...]:
    """List the samples of a shard that was done before and that have failed.

    Args:
        rows: Of the plan.
        record: Of the shard.

    Returns:
        ``path: status: reason`` of each.
    """
    if record is None:
        return ()
    return tuple(
        f"{row['path']}: {status}: {reason}"
        for row, status, reason in zip(rows, record.status, record.reason, strict=True)
        if status != OK
    )


def image_failed(what: str) -> ImageFailedError:
    """Word the error that stops a job at an image.

    Args:
        what: ``path: status: reason``.

    Returns:
        The error.
    """
    return ImageFailedError(
        f"{what}. Leave it out of the source, or run with --on-error record to go on without it"
    )


def _begin(engine: Engine, name: str, plan: PlanFile, index: int) -> Contents:
    """Begin a shard; its codec is loaded if it has one."""
    info = plan.header.codec
    require_software(engine, plan.header)
    if info is None:
        return PixelContents(plan, index)
    codec = load_once(engine, name, info.sha256)
    if number_scales(codec.info) != info:
        raise codec_differs(name, codec, info)
    return LatentContents(plan, index, codec)


def codec_differs(name: str, codec: Coder, planned: CodecInfo) -> JobError:
    """Word the error of a worker that has another codec than the client.

    Args:
        name: Name or path of the codec.
        codec: What was loaded.
        planned: What should have been.

    Returns:
        The error.
    """
    return JobError(
        f"this worker's codec {name} is {codec.info.sha256[:12]}…, but the job was planned with "
        f"{planned.sha256[:12]}…: give every worker the same file"
    )


def require_software(engine: Engine, header: Header) -> None:
    """Make sure that this worker computes what the others do; before it computes anything.

    Args:
        engine: Runs the codec.
        header: What the store was planned with.

    Raises:
        JobError: It has other software, or cannot use the job's vector instructions.
    """
    expected = software_of(header)
    if engine.fix_cpu_isa is not None:
        engine.fix_cpu_isa(expected.cpu_isa or CpuIsa.native)
    found = read_software(engine)
    if found != expected:
        raise JobError(
            f"this worker has {found}, but the job was planned with {expected}. "
            f"{header.noun.capitalize()} could differ: give every worker the client's environment"
        )


def read_software(engine: Engine) -> Software:
    """Say what this process computes with.

    Args:
        engine: Runs the codec.

    Returns:
        Versions and flags that decide the values.
    """
    found = engine.environment()
    return Software(
        tensorflow=found["tensorflow"],
        tensorflow_compression=found["tensorflow_compression"],
        onednn=found["onednn"] == "1",
        device=found["device"],
        cpu_isa=found.get("cpu_isa"),
        decoder=decoder_version(),
    )
