"""One task: the images of one shard -> the objects of that shard and its record.

A job may make several stores, one a codec: each image is read and decoded once for all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentset.datasets.errors import ImageFailedError
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store.samples import OK
from latentset.datasets.store.scales import number_scales
from latentset.pipeline.encode.encoders import LatentEncoder, PixelEncoder, ShardEncoder
from latentset.pipeline.encode.reading import decode_batches
from latentset.pipeline.jobs.coder import Engine, codec_differs, load_once, require_software
from latentset.pipeline.jobs.plan import PlanFile, open_plan_once
from latentset.pipeline.jobs.shard import (
    Sample,
    ShardDone,
    ShardTask,
    enough_memory,
    find_record,
    write_shard,
)


@dataclass(frozen=True)
class EncodeTask(ShardTask):
    """What every task of an encode job carries."""

    source: Path
    """Root of the images."""
    fail: bool
    """Stop at an image that cannot be encoded."""


def encode_shard(task: EncodeTask, index: int, report: Callable[[int], None]) -> ShardDone:
    """Encode one shard of every store, unless its record says that this was done.

    Args:
        task: What every task carries.
        index: Number of the shard.
        report: Called with the number of samples done so far.

    Raises:
        ImageFailedError: An image cannot be encoded and ``task.fail`` is set.
        JobError: The worker's software or codec is not the client's, a value does not fit, or
            another job has taken a store over.
        StoreError: An object cannot be written.
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
        return ShardDone(index, len(rows), reused)

    samples = [Sample(row) for row in rows]
    with enough_memory(index):
        # The thread that decodes starts before codecs are loaded.
        rule = ResizeRule.parse(plans[0].header.resize)
        batches = decode_batches(samples, task.source, rule, task.batch)
        shards = [
            (target, plan, _start_encoder(task.engine, target.codec, plan, index))
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
            report(count)
        task.check_leases()
        for target, plan, encoder in shards:
            write_shard(target, plan, index, encoder.rows(), samples, encoder.rate_bpp)
    return ShardDone(index, len(rows), reused)


def refuse_failed(path: str, status: str, reason: str) -> None:
    """Stop a job at an image that cannot be encoded; nothing if its status is ``ok``."""
    if status != OK:
        raise ImageFailedError(
            f"{path}: {status}: {reason}. Exclude it from the source, or run with --on-error "
            "record to encode the others"
        )


def refuse_planned(plan: PlanFile) -> None:
    """Stop a job in whose plan an image has failed already."""
    for row in plan.table().select(["path", "status", "reason"]).to_pylist():
        refuse_failed(**row)


def _start_encoder(engine: Engine, name: str, plan: PlanFile, index: int) -> ShardEncoder:
    """Start a shard; its codec is loaded if it has one, unless this worker has it."""
    info = plan.header.codec
    require_software(engine, plan.header)
    if info is None:
        return PixelEncoder(plan.header, index)
    codec = load_once(engine, name, info.sha256)
    if number_scales(codec.info) != info:
        raise codec_differs(name, codec, info)
    return LatentEncoder(plan.header, index, codec)
