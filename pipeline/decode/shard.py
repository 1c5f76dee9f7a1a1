"""One task: the latents of some samples -> one shard of pixels and its record.

A task that is run twice writes the same bytes; one that finds its record and the objects unaltered
writes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import (
    CodecError,
    ImageError,
    JobError,
    SourceError,
)
from latentset.datasets.sources import resolve_inside
from latentset.datasets.sources.images import decode_image, read_bytes
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.location import Location
from latentset.datasets.storage.lock import Lease
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.arrays import ImageSizes
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.samples import OK
from latentset.datasets.store.zarr.writer import PixelBuffer
from latentset.pipeline.encode.engine import Coder, Engine, load_once
from latentset.pipeline.encode.images import SourceImage, group_by_size
from latentset.pipeline.encode.shard import (
    ShardDone,
    ShardTarget,
    codec_differs,
    enough_memory,
    find_record,
    list_failed,
    require_software,
    write_shard,
)
from latentset.pipeline.jobs.plan import PlanFile, open_plan_once


@dataclass(frozen=True)
class DecodeTask:
    """What every task of a job is told; small, because it travels with each."""

    targets: tuple[ShardTarget]
    """The store of pixels."""
    latents: Location
    """The store of latents."""
    manifest_sha256: str
    """Digest of its manifest: what the client has seen."""
    originals: Path | None
    """Root of the images to compare with; None compares with nothing."""
    batch: int
    """Images a batch, at most."""
    engine: Engine
    """Runs the codec."""
    leases: tuple[Lease, ...] = ()
    """The lock of the store of pixels, which must be this job's when something is written."""
    fail: bool = False
    """A sample without latents has no pixels: that is no failure of this job."""
    what: str = "decoding"
    """What the tasks do, for people."""


def decode_shard(task: DecodeTask, index: int, report: Callable[[int], None]) -> ShardDone:
    """Decode one shard, unless its record says that this was done.

    Args:
        task: What every task is told.
        index: Number of the shard.
        report: Called with the number of samples done so far.

    Returns:
        A summary; the facts are in the record.

    Raises:
        JobError: The worker's software, codec or latents are not the client's, an image is
            not the one that was encoded, or another job has taken the store over.
        StoreError: Latents cannot be read, or an object cannot be written.
    """
    (target,) = task.targets
    plan = open_plan_once(target.job, target.plan_sha256)
    record, rows = find_record(target, plan, index), plan.rows(index)
    if record is not None:
        return ShardDone(index, len(rows), (True,), list_failed(rows, record))
    with enough_memory(index):
        shard = _Shard(task, target, plan, index)
        done = 0
        for batch in group_by_size(shard.samples, shard.coded_size, task.batch):
            ready = [sample for sample in batch if sample.status == OK]
            if ready:
                shard.decode(ready)
            done += len(batch)
            report(done)
        for lease in task.leases:
            lease.check()
        shard.write()
    failed = tuple(sample.describe() for sample in shard.samples if sample.status != OK)
    return ShardDone(index, len(rows), (False,), failed)


class _Shard:
    """A shard of pixels that is being filled."""

    def __init__(self, task: DecodeTask, target: ShardTarget, plan: PlanFile, index: int) -> None:
        header = plan.header
        if header.codec is None or header.pixels is None or header.pixels.latents is None:
            raise JobError(f"{target.job}: the plan is none of pixels that are decoded")
        require_software(task.engine, header)
        self._codec: Coder = load_once(task.engine, target.codec, header.codec.sha256)
        if self._codec.info.sha256 != header.codec.sha256:
            raise codec_differs(target.codec, self._codec, header.codec)
        self._latents = open_latents_once(task.latents, task.manifest_sha256)
        self._coded = ResizeRule.parse(header.pixels.latents.resize)
        self._rule = ResizeRule.parse(header.resize)
        self._of_image = ImageSizes(header.content, header.resize)
        self._originals = task.originals
        self._target, self._plan, self._index = target, plan, index
        self._buffer = PixelBuffer(header, index)
        rows, first = plan.rows(index), plan.first(index)
        known = self._latents.samples.slice(first, len(rows)).to_pylist()
        self._number = {row["id"]: first + k for k, row in enumerate(known)}
        self.samples = [
            SourceImage(
                row,
                status=row["status"],
                reason=row["reason"],
                source_bytes=latents["source_bytes"],
                source_sha256=latents["source_sha256"],
            )
            for row, latents in zip(rows, known, strict=True)
        ]
        self._rate_bpp = {
            row["id"]: latents["rate_bpp"]
            for row, latents in zip(rows, known, strict=True)
            if row["status"] == OK
        }
        self._psnr_db: dict[str, float] = {}
        self._ms_ssim: dict[str, float] = {}

    def coded_size(self, sample: SourceImage) -> tuple[int, int]:
        """Height and width of what the codec was given; 0 for a sample without latents."""
        if sample.status != OK:
            return 0, 0
        return self._of_image.coded(sample.row["height"], sample.row["width"])

    def decode(self, samples: list[SourceImage]) -> None:
        """Decode samples of one size, measure them, and put them where they belong."""
        for sample, image in zip(samples, self._images(samples), strict=True):
            if self._originals is not None:
                self._measure(self._originals, sample, image)
            self._buffer.put(sample.row["first_row"], self._rule.apply(image))

    def _images(self, samples: list[SourceImage]) -> NDArray[np.uint8]:
        numbers = [self._number[sample.row["id"]] for sample in samples]
        symbols: list[NDArray[Any]] = [
            np.stack([self._latents.read_grid(k, name) for k in numbers])
            for name in ("y_hat", "z_hat")
        ]
        try:
            return self._codec.decode(symbols[0], symbols[1], self.coded_size(samples[0]))
        except CodecError as error:
            first, last = (samples[k].row["id"] for k in (0, -1))
            raise JobError(f"samples {first!r} to {last!r} cannot be decoded: {error}") from error

    def _measure(self, root: Path, sample: SourceImage, decoded: NDArray[np.uint8]) -> None:
        from latentset.pipeline.decode.quality import measure

        content = read_original(root, sample.row["path"], sample.source_sha256)
        found = measure(self._coded.apply(decode_image(content)), decoded)
        name = sample.row["id"]
        self._psnr_db[name] = found.psnr_db
        if found.ms_ssim is not None:
            self._ms_ssim[name] = found.ms_ssim

    def write(self) -> None:
        """Write the shard's objects, and then its record."""
        write_shard(
            self._target,
            self._plan,
            self._index,
            self._buffer.rows(),
            self.samples,
            rate_bpp=self._rate_bpp,
            psnr_db=self._psnr_db,
            ms_ssim=self._ms_ssim,
        )


def read_original(root: Path, path: str, sha256: str) -> bytes:
    """Read the image that a sample was encoded from.

    Args:
        root: Root of the images.
        path: Of the image, relative to it.
        sha256: Its digest, by the samples table.

    Returns:
        The bytes of its file.

    Raises:
        JobError: It is not there, or is another one.
    """
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

    Args:
        location: Where it lies.
        manifest_sha256: Digest of its manifest, as the client has seen it.

    Returns:
        The store.

    Raises:
        StoreError: It cannot be read.
        JobError: It is not the one that the client has seen.
    """
    store = open_store(location)
    if digest_of(store) != manifest_sha256:
        raise JobError(
            f"{location}: this worker sees other latents than the client: is that the same file "
            "system for all? Or were they changed just now (encode --retry-failed)?"
        )
    return store


def digest_of(store: Store) -> str:
    """Digest a store's manifest, which names everything else in it.

    Args:
        store: A complete store.

    Returns:
        SHA-256; empty of a store that is not complete.
    """
    return sha256_of(store.manifest.to_bytes()) if store.manifest else ""
