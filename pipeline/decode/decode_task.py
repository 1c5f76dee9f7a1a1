"""One task: the latents of some samples -> one shard of pixels and its record."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecError, ImageError, JobError, SourceError
from latentset.datasets.sources import ImageRoot, resolve_inside
from latentset.datasets.sources.images import decode_image, read_bytes
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.location import Location
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.arrays import ImageSizes
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.samples import OK
from latentset.datasets.store.zarr.writer import PixelBuffer
from latentset.pipeline.jobs.coder import Coder, load_planned
from latentset.pipeline.jobs.plan import open_plan_once
from latentset.pipeline.jobs.shard import (
    Sample,
    ShardDone,
    ShardTask,
    enough_memory,
    find_record,
    group_by_size,
    write_shard,
)


@dataclass(frozen=True)
class DecodeTask(ShardTask):
    """What every task of a decode job carries."""

    latents: Location
    """The store of latents."""
    manifest_sha256: str
    """Digest of its manifest: what the client has seen."""
    originals: ImageRoot | None
    """Root of the images to compare with; None compares with nothing."""


def decode_shard(index: int, task: DecodeTask, report: Callable[[int, int], None]) -> ShardDone:
    """Decode one shard, unless its record says that this was done.

    ``report`` is called with the shard and the number of samples done so far.

    Raises:
        JobError: The worker's software, codec or latents are not the client's, an image is
            not the one that was encoded, or another job has taken the store over.
    """
    (target,) = task.targets
    plan = open_plan_once(target.job, target.plan_sha256)
    rows, header = plan.rows(index), plan.header
    if find_record(target, plan, index) is not None:
        return ShardDone(len(rows), (True,))
    latents = open_latents_once(task.latents, task.manifest_sha256)
    # The plan has the samples of the latents, in their order.
    first = plan.first(index)
    number = {row.id: first + k for k, row in enumerate(rows)}
    known = latents.samples.slice(first, len(rows)).to_pylist()
    copied = ("source_bytes", "source_sha256")
    samples = [
        Sample(row, row.status, row.reason, **{name: found[name] for name in copied})
        for row, found in zip(rows, known, strict=True)
    ]
    rate_bpp = {
        row.id: found["rate_bpp"]
        for row, found in zip(rows, known, strict=True)
        if row.status == OK
    }
    sizes, rule = ImageSizes(header.content, header.resize), ResizeRule.parse(header.resize)

    def coded_size(sample: Sample) -> tuple[int, int]:
        """Height and width of what the codec was given; 0 for a sample without latents."""
        plan = sample.plan
        return sizes.coded(plan.height, plan.width) if sample.status == OK else (0, 0)

    with enough_memory(index, rows):
        codec = load_planned(task.engine, target.codec, header)
        if codec is None:
            raise JobError(f"{target.job}: expected a plan of pixels that are decoded")
        buffer, count = PixelBuffer(header, index), 0
        for batch in group_by_size(samples, coded_size, task.batch):
            ready = [sample for sample in batch if sample.status == OK]
            images = _decode(
                codec, latents, ready, [number[sample.plan.id] for sample in ready], coded_size
            )
            for sample, image in zip(ready, images, strict=True):
                if task.originals is not None:
                    _measure(task.originals, latents.header.resize, sample, image)
                buffer.put(sample.plan.first_row, rule.apply(image))
            count += len(batch)
            report(index, count)
        task.check_leases()
        write_shard(target, plan, index, buffer.rows(), samples, rate_bpp)
    return ShardDone(len(rows), (False,))


def _decode(
    codec: Coder,
    latents: Store,
    samples: list[Sample],
    numbers: list[int],
    size: Callable[[Sample], tuple[int, int]],
) -> Iterable[NDArray[np.uint8]]:
    """Decode samples of one size, which have these numbers in the store of latents."""
    if not samples:
        return []
    y_hat, z_hat = (
        np.stack([latents.read_grid(k, name) for k in numbers]) for name in ("y_hat", "z_hat")
    )
    try:
        return codec.decode(y_hat, z_hat, size(samples[0]))
    except CodecError as error:
        first, last = samples[0].plan.id, samples[-1].plan.id
        raise JobError(f"samples {first!r} to {last!r} cannot be decoded: {error}") from error


def _measure(root: ImageRoot, resize: str, sample: Sample, decoded: NDArray[np.uint8]) -> None:
    """Compare a decoded image with its original."""
    from latentset.pipeline.decode.quality import mean_ms_ssim, psnr_db

    content = read_original(root, sample.plan.path, sample.source_sha256)
    original = ResizeRule.parse(resize).apply(decode_image(content))
    sample.psnr_db = psnr_db(original, decoded)
    sample.ms_ssim = mean_ms_ssim(original, decoded)


def read_original(root: ImageRoot, path: str, sha256: str) -> bytes:
    """Read the image that a sample was encoded from; JobError if it is missing or another one."""
    advice = "give the root that the latents were encoded from, or leave --originals out"
    try:
        content = read_bytes(resolve_inside(root, path))
    except (ImageError, SourceError) as error:
        raise JobError(f"{root}: {path}: {error}: {advice}") from error
    if sha256_of(content) != sha256:
        raise JobError(
            f"{root}: {path}: expected the image that was encoded (sha256 {sha256[:12]}…), "
            f"got another ({sha256_of(content)[:12]}…): {advice}"
        )
    return content


@lru_cache(maxsize=2)
def open_latents_once(location: Location, manifest_sha256: str) -> Store:
    """Open latents, or take those that this process has opened; JobError if they are others."""
    store = open_store(location)
    if store.manifest_sha256 != manifest_sha256:
        raise JobError(
            f"{location}: this worker sees other latents than the client: is that the same file "
            "system for all? Or were they changed just now (encode --retry-failed)?"
        )
    return store
