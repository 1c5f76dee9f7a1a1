"""The images of a task on their way from files to batches of pixels.

A thread reads, hashes, decodes and resizes the next batches while the codec works on this one.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from latentset.datasets.errors import ImageError, SourceError
from latentset.datasets.sources import resolve_inside
from latentset.datasets.sources.images import decode_image, read_bytes
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store.objects import sha256_of
from latentset.datasets.store.samples import OK
from latentset.pipeline.jobs.shard import Sample, group_by_size

AHEAD = 2
"""Batches decoded ahead of the codec."""


def decode_batches(
    samples: Sequence[Sample], source: Path, rule: ResizeRule, size: int
) -> Iterator[list[Sample]]:
    """Read, hash, decode and resize images in a thread, which starts at once.

    What is found is recorded in each sample. Batches are of one size and at most ``size`` images,
    the largest images first; samples that have failed hold no pixels.
    """

    def decode(batch: list[Sample]) -> list[Sample]:
        for sample in batch:
            _decode(source, sample, rule)
        return batch

    def encoded_size(sample: Sample) -> tuple[int, int]:
        return sample.plan.encoded_height, sample.plan.encoded_width

    batches = iter(group_by_size(samples, encoded_size, size))
    thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
    pending = [thread.submit(decode, batch) for batch in islice(batches, AHEAD)]

    def take() -> Iterator[list[Sample]]:
        try:
            while pending:
                ready = pending.pop(0).result()
                following = next(batches, None)
                if following is not None:
                    pending.append(thread.submit(decode, following))
                yield ready
        finally:
            thread.shutdown(cancel_futures=True)

    return take()


def _decode(root: Path, sample: Sample, rule: ResizeRule) -> None:
    """Read the file once: hash it, and decode and resize it from memory."""
    plan = sample.plan
    try:
        content = read_bytes(resolve_inside(root, plan.path))
        sample.source_bytes = len(content)
        sample.source_sha256 = sha256_of(content)
        if plan.status != OK:
            sample.fail(plan.status, plan.reason)
            return
        if len(content) != plan.source_bytes:
            sample.fail(
                "changed", f"{plan.source_bytes} bytes when planned, {len(content)} when encoded"
            )
            return
        pixels = decode_image(content)
        height, width = pixels.shape[:2]
        if (height, width) != (plan.height, plan.width):
            sample.fail(
                "changed",
                f"{plan.height}x{plan.width} pixels when planned, {height}x{width} when encoded",
            )
            return
        sample.pixels = rule.apply(pixels)
    except ImageError as error:
        sample.fail(error.status, str(error))
    except SourceError as error:
        sample.fail("unreadable", str(error).replace(str(root), "SOURCE"))
