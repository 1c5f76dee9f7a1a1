"""One task: the photographs of one shard -> the objects of that shard and its record.

A job may make several stores, one a codec: each photograph is read and decoded once for all. A
task that is run twice writes the same bytes; one that finds its record and the objects unaltered
writes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecError, JobError, PhotographFailedError, StoreError
from latentset.datasets.photographs import ResizeRule, decoder_version
from latentset.datasets.store.formats import Format
from latentset.datasets.store.hdf5 import encode_part
from latentset.datasets.store.header import Header
from latentset.datasets.store.objects import are_unaltered
from latentset.datasets.store.places import Place
from latentset.datasets.store.samples import OK
from latentset.datasets.store.scales import number_scales
from latentset.datasets.store.writer import ShardBuffer, shard_objects, write_objects
from latentset.pipeline.encoding.decoding import Photograph, decode_batches
from latentset.pipeline.encoding.engine import EncodedBatch, Encoder, Engine, load_once
from latentset.pipeline.encoding.lock import Lease
from latentset.pipeline.encoding.plan import PlanFile, open_plan_once
from latentset.pipeline.encoding.record import ShardRecord, part_path, read_record, write_record
from latentset.pipeline.encoding.settings import Software, software_of

_GIVEN_UP = (
    "The codec gives values that a store cannot hold; nothing was clipped or wrapped. Leave the "
    "sample out of the source, or use another codec"
)


@dataclass(frozen=True)
class ShardTarget:
    """One of the stores that a task writes a shard of."""

    objects: Place
    """Where its objects go."""
    job: Place
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
    """Root of the photographs."""
    batch: int
    """Images a batch, at most."""
    fail: bool
    """Stop at a photograph that cannot be encoded."""
    engine: Engine
    """Runs the codecs."""
    leases: tuple[Lease, ...] = ()
    """The locks of the stores, which must be this job's when something is written."""


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


class _Shard:
    """A shard of one store that is being filled."""

    def __init__(self, target: ShardTarget, plan: PlanFile, codec: Encoder, index: int) -> None:
        self._target, self._plan, self._codec, self._index = target, plan, codec, index
        self._buffer = ShardBuffer(plan.header, index)
        self._rows = {row["id"]: row for row in plan.rows(index)}
        self._rate_bpp: dict[str, float] = {}

    def encode(self, images: NDArray[np.uint8], ids: Sequence[str]) -> None:
        """Encode images of one size and place their latents."""
        latents = self._latents(images, ids)
        for k, name in enumerate(ids):
            row = self._rows[name]
            try:
                self._buffer.put(
                    row["first_row"],
                    row["z_first_row"],
                    latents.y_hat[k],
                    latents.scale_index[k],
                    latents.z_hat[k],
                )
            except StoreError as error:
                raise JobError(f"sample {name!r}: {error}. {_GIVEN_UP}") from error
        pixels = images.shape[1] * images.shape[2]
        for name, bits in zip(ids, self._codec.rate_bits(latents), strict=True):
            if not isfinite(bits):
                raise JobError(
                    f"sample {name!r}: expected a finite number of bits, got {bits}. {_GIVEN_UP}"
                )
            self._rate_bpp[name] = float(bits) / pixels

    def _latents(self, images: NDArray[np.uint8], ids: Sequence[str]) -> EncodedBatch:
        """Run the codec; if it fails, find out at which sample."""
        try:
            return self._codec.encode(images)
        except CodecError as error:
            for k, name in enumerate(ids):
                try:
                    self._codec.encode(images[k : k + 1])
                except CodecError as alone:
                    raise JobError(f"sample {name!r}: {alone}. {_GIVEN_UP}") from alone
            raise JobError(f"samples {ids[0]!r} to {ids[-1]!r}: {error}. {_GIVEN_UP}") from error

    def write(self, photographs: Sequence[Photograph]) -> None:
        """Write the shard's objects, and then its record."""
        header, rows = self._plan.header, self._buffer.rows()
        if self._target.container == "zarr":
            objects = shard_objects(header, self._index, rows)
        else:
            objects = {part_path(self._index): encode_part(header, self._index, rows)}
        record = ShardRecord(
            fingerprint=self._plan.fingerprint,
            plan_sha256=self._target.plan_sha256,
            index=self._index,
            objects=tuple(write_objects(self._target.objects, objects)),
            status=tuple(p.status for p in photographs),
            reason=tuple(p.reason for p in photographs),
            rate_bpp=tuple(self._rate_bpp.get(p.row["id"]) for p in photographs),
            source_bytes=tuple(p.source_bytes for p in photographs),
            source_sha256=tuple(p.source_sha256 for p in photographs),
        )
        write_record(self._target.job, record)


def encode_shard(task: Task, index: int, report: Callable[[int], None]) -> ShardDone:
    """Encode one shard of every store, unless its record says that this was done.

    Args:
        task: What every task is told.
        index: Number of the shard.
        report: Called with the number of samples done so far.

    Returns:
        A summary; the facts are in the records.

    Raises:
        PhotographFailedError: A photograph cannot be encoded and ``task.fail`` is set.
        JobError: The worker's software or codec is not the client's, a value does not fit, or
            another job has taken a store over.
        StoreError: An object cannot be written.
    """
    plans = [open_plan_once(target.job, target.plan_sha256) for target in task.targets]
    records = [_find(target, plan, index) for target, plan in zip(task.targets, plans, strict=True)]
    rows = plans[0].rows(index)
    reused = tuple(record is not None for record in records)
    if all(reused):
        return ShardDone(index, len(rows), reused, _failures(rows, records[0]))

    photographs = [Photograph(row) for row in rows]
    with _enough_memory(index):
        shards = [
            _Shard(target, plan, _load(task.engine, target.codec, plan.header), index)
            for target, plan, found in zip(task.targets, plans, reused, strict=True)
            if not found
        ]
        rule = ResizeRule.parse(plans[0].header.resize)
        done = 0
        for batch in decode_batches(photographs, task.source, rule, task.batch):
            if task.fail:
                for photograph in batch:
                    if photograph.status != OK:
                        raise photograph_failed(photograph.describe())
            ready = [photograph for photograph in batch if photograph.pixels is not None]
            if ready:
                images = np.stack([p.pixels for p in ready if p.pixels is not None])
                for shard in shards:
                    shard.encode(images, [p.row["id"] for p in ready])
            for photograph in ready:
                photograph.pixels = None
            done += len(batch)
            report(done)
        for lease in task.leases:
            lease.check()
        for shard in shards:
            shard.write(photographs)
    failed = tuple(p.describe() for p in photographs if p.status != OK)
    return ShardDone(index, len(rows), reused, failed)


@contextmanager
def _enough_memory(index: int) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise JobError(
            f"shard {index}: a worker ran out of memory ({error}). Run the same command again with "
            "a smaller --batch or fewer --workers; or begin another STORE with a smaller "
            "--shard-mib"
        ) from error


def _find(target: ShardTarget, plan: PlanFile, index: int) -> ShardRecord | None:
    """The record of a shard that is done, if its objects are what it says."""
    record = read_record(target.job, index, plan.fingerprint, target.plan_sha256)
    if record is None or not are_unaltered(target.objects, record.objects):
        return None
    return record


def _failures(rows: list[dict[str, Any]], record: ShardRecord | None) -> tuple[str, ...]:
    if record is None:
        return ()
    return tuple(
        f"{row['path']}: {status}: {reason}"
        for row, status, reason in zip(rows, record.status, record.reason, strict=True)
        if status != OK
    )


def photograph_failed(what: str) -> PhotographFailedError:
    """Word the error that stops a job at a photograph.

    Args:
        what: ``path: status: reason``.

    Returns:
        The error.
    """
    return PhotographFailedError(
        f"{what}. Leave it out of the source, or run with --on-error record to go on without it"
    )


def _load(engine: Engine, name: str, header: Header) -> Encoder:
    """Load the codec and make sure that this worker computes what the others do."""
    expected = software_of(header)
    found = read_software(engine)
    if found != expected:
        raise JobError(
            f"this worker has {found}, but the job was planned with {expected}. "
            "Latents could differ: give every worker the client's environment"
        )
    codec = load_once(engine, name, header.codec.sha256)
    if number_scales(codec.info) != header.codec:
        raise JobError(
            f"this worker's codec {name} is {codec.info.sha256[:12]}…, but the job was "
            f"planned with {header.codec.sha256[:12]}…: give every worker the same file"
        )
    return codec


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
        decoder=decoder_version(),
    )
