"""One task: the photographs of one shard -> the objects of that shard and its record.

Reading, hashing, decoding and resizing of the next batch go on in a thread of their own while the
codec works on this one. A task that is run twice writes the same bytes; one that finds its record
and the objects unaltered writes nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import (
    JobError,
    PhotographError,
    PhotographFailedError,
    SourceError,
    StoreError,
)
from latentset.datasets.photographs import (
    ResizeRule,
    decode_photograph,
    decoder_version,
    read_bytes,
)
from latentset.datasets.sources import resolve_inside
from latentset.datasets.store.header import Header
from latentset.datasets.store.objects import are_unaltered, sha256_of
from latentset.datasets.store.samples import OK
from latentset.datasets.store.scales import number_scales
from latentset.datasets.store.writer import ShardBuffer, write_objects
from latentset.pipeline.encoding.engine import Encoder, Engine, load_once
from latentset.pipeline.encoding.plan import open_plan_once
from latentset.pipeline.encoding.record import ShardRecord, read_record, write_record
from latentset.pipeline.encoding.settings import Software, settings_of

BATCH_PIXELS = 1 << 21
"""Pixels of a batch, whatever number of images was asked for (32 of 256x256): a bound on memory,
of which the codec's first layer takes about 300 bytes a pixel."""

AHEAD = 2
"""Batches decoded ahead of the codec."""


@dataclass(frozen=True)
class Task:
    """What every task of a job is told; small, because it travels with each."""

    store: Path
    """The store's folder."""
    job: Path
    """The job's folder, ``STORE.job/FINGERPRINT``."""
    plan_sha256: str
    """Digest of the plan's table."""
    source: Path
    """Root of the photographs."""
    codec: str
    """Name or path of the codec."""
    batch: int
    """Images a batch, at most."""
    fail: bool
    """Stop at a photograph that cannot be encoded."""
    engine: Engine
    """Runs the codec."""


@dataclass(frozen=True)
class ShardDone:
    """What a task gives back to the client."""

    index: int
    """Number of the shard."""
    samples: int
    """Its samples."""
    reused: bool
    """It was there already, recorded and unaltered."""
    failed: tuple[str, ...] = ()
    """``path: status: reason`` of its samples without latents."""


@dataclass
class _Photograph:
    """A sample on its way through the task."""

    row: dict[str, Any]
    """Its row of the plan."""
    status: str = OK
    reason: str = ""
    rate_bpp: float | None = None
    source_bytes: int = 0
    source_sha256: str = ""
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)

    def fail(self, status: str, reason: str) -> None:
        self.status, self.reason, self.pixels = status, reason, None

    def describe(self) -> str:
        return f"{self.row['path']}: {self.status}: {self.reason}"


def encode_shard(task: Task, index: int, report: Callable[[int], None]) -> ShardDone:
    """Encode one shard, unless its record says that this was done.

    Args:
        task: What every task is told.
        index: Number of the shard.
        report: Called with the number of samples done so far.

    Returns:
        A summary; the facts are in the record.

    Raises:
        PhotographFailedError: A photograph cannot be encoded and ``task.fail`` is set.
        JobError: The worker's software or codec is not the client's, or a value does not fit.
        StoreError: An object cannot be written.
    """
    plan = open_plan_once(task.job, task.plan_sha256)
    record = read_record(task.job, index, plan.fingerprint, task.plan_sha256)
    if record is not None and are_unaltered(task.store, record.objects):
        return _summarise(record, plan.rows(index), reused=True)

    codec = _load(task, plan.header)
    photographs = [_Photograph(row) for row in plan.rows(index)]
    buffer = ShardBuffer(plan.header, index)
    done = 0
    for batch in _decoded(task, photographs, ResizeRule.parse(plan.header.resize)):
        if task.fail:
            for photograph in batch:
                if photograph.status != OK:
                    raise photograph_failed(photograph.describe())
        _encode_batch(codec, batch, buffer)
        done += len(batch)
        report(done)
    record = ShardRecord(
        fingerprint=plan.fingerprint,
        plan_sha256=task.plan_sha256,
        index=index,
        objects=tuple(write_objects(task.store, buffer.encode())),
        status=tuple(p.status for p in photographs),
        reason=tuple(p.reason for p in photographs),
        rate_bpp=tuple(p.rate_bpp for p in photographs),
        source_bytes=tuple(p.source_bytes for p in photographs),
        source_sha256=tuple(p.source_sha256 for p in photographs),
    )
    write_record(task.job, record)
    return _summarise(record, plan.rows(index), reused=False)


def _summarise(record: ShardRecord, rows: list[dict[str, Any]], *, reused: bool) -> ShardDone:
    failed = tuple(
        f"{row['path']}: {status}: {reason}"
        for row, status, reason in zip(rows, record.status, record.reason, strict=True)
        if status != OK
    )
    return ShardDone(record.index, len(rows), reused, failed)


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


def _load(task: Task, header: Header) -> Encoder:
    """Load the codec and make sure that this worker computes what the others do."""
    expected = settings_of(header)
    found = read_software(task.engine)
    if found != expected.software:
        raise JobError(
            f"this worker has {found}, but the job was planned with {expected.software}. "
            "Latents could differ: give every worker the client's environment"
        )
    codec = load_once(task.engine, task.codec, header.codec.sha256)
    if number_scales(codec.info) != header.codec:
        raise JobError(
            f"this worker's codec {task.codec} is {codec.info.sha256[:12]}…, but the job was "
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


def _decoded(
    task: Task, photographs: Sequence[_Photograph], rule: ResizeRule
) -> Iterator[list[_Photograph]]:
    """Yield batches of one size, decoded ahead in a thread."""

    def decode(batch: list[_Photograph]) -> list[_Photograph]:
        for photograph in batch:
            _decode(task.source, photograph, rule)
        return batch

    batches = iter(_group(photographs, task.batch))
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as thread:
        pending: list[Future[list[_Photograph]]] = []
        try:
            for _, batch in zip(range(AHEAD), batches, strict=False):
                pending.append(thread.submit(decode, batch))
            while pending:
                ready = pending.pop(0).result()
                following = next(batches, None)
                if following is not None:
                    pending.append(thread.submit(decode, following))
                yield ready
        finally:
            for future in pending:
                future.cancel()


def _group(photographs: Sequence[_Photograph], batch: int) -> list[list[_Photograph]]:
    """Divide a shard into batches of one size, those that failed in planning last."""
    by_size: dict[tuple[int, int], list[_Photograph]] = defaultdict(list)
    for photograph in photographs:
        by_size[photograph.row["encoded_height"], photograph.row["encoded_width"]].append(
            photograph
        )
    batches = []
    for (height, width), members in sorted(by_size.items(), reverse=True):
        step = min(batch, max(1, BATCH_PIXELS // max(1, height * width)))
        batches += [members[k : k + step] for k in range(0, len(members), step)]
    return batches


def _decode(root: Path, photograph: _Photograph, rule: ResizeRule) -> None:
    """Read the file once: hash it, and decode and resize it from memory."""
    row = photograph.row
    try:
        content = read_bytes(resolve_inside(root, row["path"]))
        photograph.source_bytes = len(content)
        photograph.source_sha256 = sha256_of(content)
        if row["status"] != OK:
            photograph.fail(row["status"], row["reason"])
            return
        if len(content) != row["source_bytes"]:
            photograph.fail(
                "changed",
                f"{row['source_bytes']} bytes when planned, {len(content)} when encoded",
            )
            return
        pixels = decode_photograph(content)
        planned = (row["height"], row["width"])
        if pixels.shape[:2] != planned:
            photograph.fail(
                "changed",
                f"{planned[0]}x{planned[1]} pixels when planned, "
                f"{pixels.shape[0]}x{pixels.shape[1]} when encoded",
            )
            return
        photograph.pixels = rule.apply(pixels)
    except PhotographError as error:
        photograph.fail(error.status, str(error))
    except SourceError as error:
        photograph.fail("unreadable", str(error).replace(str(root), "SOURCE"))


def _encode_batch(codec: Encoder, batch: Sequence[_Photograph], buffer: ShardBuffer) -> None:
    """Encode the photographs of a batch that could be decoded, and place their latents."""
    ready = [photograph for photograph in batch if photograph.pixels is not None]
    if not ready:
        return
    images = np.stack([photograph.pixels for photograph in ready if photograph.pixels is not None])
    latents = codec.encode(images)
    for k, photograph in enumerate(ready):
        row = photograph.row
        try:
            buffer.put(
                row["first_row"],
                row["z_first_row"],
                latents.y_hat[k],
                latents.scale_index[k],
                latents.z_hat[k],
            )
        except StoreError as error:
            raise JobError(
                f"sample {row['id']!r}: {error}. The codec gives values that a store cannot hold; "
                "nothing was clipped or wrapped"
            ) from error
    pixels = images.shape[1] * images.shape[2]
    for photograph, bits in zip(ready, codec.rate_bits(latents), strict=True):
        photograph.rate_bpp = float(bits) / pixels
        photograph.pixels = None
