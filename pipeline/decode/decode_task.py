"""One task: the latents of some samples -> one shard of pixels and its record."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecError, ImageError, JobError, SourceError
from latentset.datasets.sources import resolve_inside
from latentset.datasets.sources.images import decode_image, read_bytes
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.location import Location
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.arrays import ImageSizes
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.samples import OK
from latentset.datasets.store.zarr.writer import PixelBuffer
from latentset.pipeline.jobs.coder import Coder, codec_differs, load_once, require_software
from latentset.pipeline.jobs.plan import PlanFile, open_plan_once
from latentset.pipeline.jobs.shard import (
    Sample,
    ShardDone,
    ShardTarget,
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
    originals: Path | None
    """Root of the images to compare with; None compares with nothing."""


def decode_shard(task: DecodeTask, index: int, report: Callable[[int], None]) -> ShardDone:
    """Decode one shard, unless its record says that this was done.

    Args:
        task: What every task carries.
        index: Number of the shard.
        report: Called with the number of samples done so far.

    Raises:
        JobError: The worker's software, codec or latents are not the client's, an image is
            not the one that was encoded, or another job has taken the store over.
        StoreError: Latents cannot be read, or an object cannot be written.
    """
    (target,) = task.targets
    plan = open_plan_once(target.job, target.plan_sha256)
    rows = plan.rows(index)
    if find_record(target, plan, index) is not None:
        return ShardDone(index, len(rows), (True,))
    latents = open_latents_once(task.latents, task.manifest_sha256)
    # The plan has the samples of the latents, in their order.
    first = plan.first(index)
    known = latents.samples.slice(first, len(rows)).to_pylist()
    samples = [
        Sample(
            row,
            status=row.status,
            reason=row.reason,
            source_bytes=found["source_bytes"],
            source_sha256=found["source_sha256"],
        )
        for row, found in zip(rows, known, strict=True)
    ]
    number = {row.id: first + k for k, row in enumerate(rows)}
    rate_bpp = {
        row.id: found["rate_bpp"]
        for row, found in zip(rows, known, strict=True)
        if row.status == OK
    }
    with enough_memory(index):
        decoder = _Decoder(task, target, plan, latents)
        buffer, rule = PixelBuffer(plan.header, index), ResizeRule.parse(plan.header.resize)
        count = 0
        for batch in group_by_size(samples, decoder.coded_size, task.batch):
            ready = [sample for sample in batch if sample.status == OK]
            if ready:
                images = decoder.decode(ready, [number[sample.plan.id] for sample in ready])
                for sample, image in zip(ready, images, strict=True):
                    if task.originals is not None:
                        decoder.measure(task.originals, sample, image)
                    buffer.put(sample.plan.first_row, rule.apply(image))
            count += len(batch)
            report(count)
        task.check_leases()
        write_shard(target, plan, index, buffer.rows(), samples, rate_bpp)
    return ShardDone(index, len(rows), (False,))


class _Decoder:
    """The codec of a job, on the latents."""

    def __init__(
        self, task: DecodeTask, target: ShardTarget, plan: PlanFile, latents: Store
    ) -> None:
        header = plan.header
        if header.codec is None or header.pixels is None or header.pixels.latents is None:
            raise JobError(f"{target.job}: expected a plan of pixels that are decoded")
        require_software(task.engine, header)
        self._codec: Coder = load_once(task.engine, target.codec, header.codec.sha256)
        if self._codec.info.sha256 != header.codec.sha256:
            raise codec_differs(target.codec, self._codec, header.codec)
        self._latents = latents
        self._coded = ResizeRule.parse(header.pixels.latents.resize)
        self._of_image = ImageSizes(header.content, header.resize)

    def coded_size(self, sample: Sample) -> tuple[int, int]:
        """Height and width of what the codec was given; 0 for a sample without latents."""
        if sample.status != OK:
            return 0, 0
        return self._of_image.coded(sample.plan.height, sample.plan.width)

    def decode(self, samples: list[Sample], numbers: list[int]) -> NDArray[np.uint8]:
        """Decode samples of one size, which have these numbers in the store of latents."""
        symbols: list[NDArray[Any]] = [
            np.stack([self._latents.read_grid(k, name) for k in numbers])
            for name in ("y_hat", "z_hat")
        ]
        try:
            return self._codec.decode(symbols[0], symbols[1], self.coded_size(samples[0]))
        except CodecError as error:
            first, last = samples[0].plan.id, samples[-1].plan.id
            raise JobError(f"samples {first!r} to {last!r} cannot be decoded: {error}") from error

    def measure(self, root: Path, sample: Sample, decoded: NDArray[np.uint8]) -> None:
        """Compare a decoded image with its original."""
        from latentset.pipeline.decode.quality import mean_ms_ssim, psnr_db

        content = read_original(root, sample.plan.path, sample.source_sha256)
        original = self._coded.apply(decode_image(content))
        sample.psnr_db = psnr_db(original, decoded)
        sample.ms_ssim = mean_ms_ssim(original, decoded)


def read_original(root: Path, path: str, sha256: str) -> bytes:
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
    """Open a store of latents, or take the one that this process has opened before.

    Raises:
        StoreError: It cannot be read.
        JobError: Its manifest is not the one that the client has seen.
    """
    store = open_store(location)
    if digest_of(store) != manifest_sha256:
        raise JobError(
            f"{location}: this worker sees other latents than the client: is that the same file "
            "system for all? Or were they changed just now (encode --retry-failed)?"
        )
    return store


def digest_of(store: Store) -> str:
    """SHA-256 of a store's manifest, which names everything else in it; empty without one."""
    return sha256_of(store.manifest.to_bytes()) if store.manifest else ""
