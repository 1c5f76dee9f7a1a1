"""One task: the images of one shard -> the objects of that shard and its record.

A job may make several stores, one a codec: each image is read and decoded once for all.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import (
    CodecError,
    ImageError,
    ImageFailedError,
    JobError,
    SourceError,
    StoreError,
)
from latentset.datasets.sources import ImageRoot, resolve_inside
from latentset.datasets.sources.images import decode_image, is_clipped, read_bytes
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.threads import check_stop, stoppable_threads
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.samples import OK
from latentset.datasets.store.zarr.writer import PixelBuffer, ShardBuffer
from latentset.pipeline.jobs.coder import Coder, Engine, load_planned
from latentset.pipeline.jobs.plan import Plan, PlannedSample, open_plan_once
from latentset.pipeline.jobs.shard import (
    Sample,
    ShardDone,
    ShardTask,
    enough_memory,
    find_record,
    group_by_size,
    write_shard,
)

AHEAD = 2
"""Batches decoded ahead of the codec."""

_GIVEN_UP = (
    "The codec gives values that a store cannot hold; nothing was clipped or wrapped. Exclude the "
    "sample from the source, or use another codec"
)


@dataclass(frozen=True)
class EncodeTask(ShardTask):
    """What every task of an encode job carries."""

    source: ImageRoot
    """Root of the images."""
    fail: bool
    """Stop at an image that cannot be encoded."""


def encode_shard(index: int, task: EncodeTask, report: Callable[[int, int], None]) -> ShardDone:
    """Encode one shard of every store, unless its record says that this was done.

    ``report`` is called with the shard and the number of samples done so far.

    Raises:
        ImageFailedError: An image cannot be encoded and ``task.fail`` is set.
        JobError: The worker's software or codec is not the client's, a value does not fit, or
            another job has taken a store over.
    """
    plans = [open_plan_once(target.job, target.plan_sha256) for target in task.targets]
    pairs = list(zip(task.targets, plans, strict=True))
    records = [find_record(target, plan, index) for target, plan in pairs]
    reused = tuple(record is not None for record in records)
    rows = plans[0].rows(index)
    if all(reused):
        if task.fail and records[0] is not None:
            for row, status, reason in zip(rows, records[0].status, records[0].reason, strict=True):
                refuse_failed(row.path, status, reason)
        return ShardDone(len(rows), reused)

    samples = [Sample(row) for row in rows]
    rule = ResizeRule.parse(plans[0].header.resize)
    with (
        enough_memory(index, rows),
        # The thread that decodes starts before codecs are loaded.
        decode_batches(samples, task.source, rule, task.batch) as batches,
    ):
        shards = [
            (target, plan, ShardEncoder(task.engine, target.codec, plan, index))
            for (target, plan), done in zip(pairs, reused, strict=True)
            if not done
        ]
        count = 0
        for batch in batches:
            if task.fail:
                for sample in batch:
                    refuse_failed(sample.plan.path, sample.status, sample.reason)
            images = [sample.pixels for sample in batch if sample.pixels is not None]
            encoded = [sample.plan for sample in batch if sample.pixels is not None]
            if images:
                stacked = np.stack(images)
                for _, _, encoder in shards:
                    encoder.add(stacked, encoded)
            for sample in batch:
                sample.pixels = None
            count += len(batch)
            report(index, count)
        task.check_leases()
        for target, plan, encoder in shards:
            write_shard(target, plan, index, encoder.buffer.rows(), samples, encoder.rate_bpp)
    clipped = tuple(sample.plan.path for sample in samples if sample.is_clipped)
    return ShardDone(len(rows), reused, clipped)


def refuse_failed(path: str, status: str, reason: str) -> None:
    """Stop a job at an image that cannot be encoded; nothing if its status is ``ok``."""
    if status != OK:
        raise ImageFailedError(
            f"{path}: {status}: {reason}. Exclude it from the source, or run with --on-error "
            "record to encode the others"
        )


def refuse_planned(plan: Plan) -> None:
    """Stop a job in whose plan an image has failed already."""
    for row in plan.table().select(["path", "status", "reason"]).to_pylist():
        refuse_failed(**row)


@contextmanager
def decode_batches(
    samples: Sequence[Sample], source: ImageRoot, rule: ResizeRule, size: int
) -> Iterator[Iterator[list[Sample]]]:
    """Read, hash, decode and resize images in a thread while the codec works on earlier ones.

    It starts at once, and has ended where the block ends. What is found is recorded in each sample;
    those that failed hold no pixels.
    """

    def encoded_size(sample: Sample) -> tuple[int, int]:
        return sample.plan.encoded_height, sample.plan.encoded_width

    batches = iter(group_by_size(samples, encoded_size, size))
    with stoppable_threads(1, "decode") as thread:
        pending = [thread.submit(_decode, batch, source, rule) for batch in islice(batches, AHEAD)]

        def take() -> Iterator[list[Sample]]:
            while pending:
                ready = pending.pop(0).result()
                for following in islice(batches, 1):
                    pending.append(thread.submit(_decode, following, source, rule))
                yield ready

        yield take()


def _decode(batch: list[Sample], root: ImageRoot, rule: ResizeRule) -> list[Sample]:
    """Read each file once: hash it, and decode and resize it from memory."""
    for sample in batch:
        check_stop()
        plan = sample.plan
        try:
            content = read_bytes(resolve_inside(root, plan.path, plan.part))
            sample.source_bytes, sample.source_sha256 = len(content), sha256_of(content)
            if plan.status != OK:
                sample.fail(plan.status, plan.reason)
                continue
            planned, now = f"{plan.source_bytes} bytes", f"{len(content)}"
            if len(content) == plan.source_bytes:
                pixels = decode_image(content)
                sample.is_clipped = is_clipped(content, pixels)
                if pixels.shape[:2] == (plan.height, plan.width):
                    sample.pixels = rule.apply(pixels)
                    continue
                planned = f"{plan.height}x{plan.width} pixels"
                now = f"{pixels.shape[0]}x{pixels.shape[1]}"
            sample.fail("changed", f"{planned} when planned, {now} when encoded")
        except ImageError as error:
            sample.fail(error.status, str(error))
        except SourceError as error:
            sample.fail("unreadable", str(error).replace(str(root), "SOURCE"))
    return batch


class ShardEncoder:
    """Makes the rows of a shard of one store: latents by its codec, or the pixels themselves."""

    def __init__(self, engine: Engine, codec: str, plan: Plan, index: int) -> None:
        self._codec = load_planned(engine, codec, plan.header)
        make = PixelBuffer if self._codec is None else ShardBuffer
        self.buffer = make(plan.header, index)
        self.rate_bpp: dict[str, float] = {}
        """Bits a pixel of each sample so far, by its id; of the file where pixels are stored."""

    def add(self, images: NDArray[np.uint8], samples: Sequence[PlannedSample]) -> None:
        """Take resized images of one size (N, H, W, 3); JobError if a value cannot be stored."""
        if isinstance(self.buffer, PixelBuffer):
            for image, sample in zip(images, samples, strict=True):
                self.buffer.put(sample.first_row, image)
                self.rate_bpp[sample.id] = 8 * sample.source_bytes / (sample.height * sample.width)
        elif self._codec is not None:
            try:
                latents = self._codec.encode(images)
            except CodecError as error:
                raise _describe_failure(self._codec, images, samples, error) from error
            for k, sample in enumerate(samples):
                y_hat, scale_index = latents.y_hat[k], latents.scale_index[k]
                first, z_first = sample.first_row, sample.z_first_row
                try:
                    self.buffer.put(first, z_first, y_hat, scale_index, latents.z_hat[k])
                except StoreError as error:
                    raise JobError(f"sample {sample.id!r}: {error}. {_GIVEN_UP}") from error
            for sample, bits in zip(samples, self._codec.rate_bits(latents), strict=True):
                if not isfinite(bits):
                    raise JobError(
                        f"sample {sample.id!r}: expected a finite number of bits, got {bits}. "
                        f"{_GIVEN_UP}"
                    )
                self.rate_bpp[sample.id] = float(bits) / (images.shape[1] * images.shape[2])


def _describe_failure(
    codec: Coder, images: NDArray[np.uint8], samples: Sequence[PlannedSample], error: CodecError
) -> JobError:
    """Find out at which sample of a batch the codec fails."""
    for k, sample in enumerate(samples):
        try:
            codec.encode(images[k : k + 1])
        except CodecError as alone:
            return JobError(f"sample {sample.id!r}: {alone}. {_GIVEN_UP}")
    return JobError(f"samples {samples[0].id!r} to {samples[-1].id!r}: {error}. {_GIVEN_UP}")
