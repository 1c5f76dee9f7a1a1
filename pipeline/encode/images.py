"""The images of a task on their way from files to batches of pixels.

Reading, hashing, decoding and resizing of the next batches go on in a thread of their own while the
codec works on this one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import ImageError, SourceError
from latentset.datasets.sources import resolve_inside
from latentset.datasets.sources.images import decode_image, read_bytes
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.samples import OK

BATCH_PIXELS = 1 << 21
"""Pixels of a batch, whatever number of images was asked for (32 of 256x256): a bound on memory,
of which the codec's first layer takes about 300 bytes a pixel."""

AHEAD = 2
"""Batches decoded ahead of the codec."""


@dataclass
class SourceImage:
    """A sample on its way through the task."""

    row: dict[str, Any]
    """Its row of the plan."""
    status: str = OK
    """``ok``, or why it has no latents."""
    reason: str = ""
    """The same in words."""
    source_bytes: int = 0
    """Size of its file; 0 = could not be read."""
    source_sha256: str = ""
    """Digest of its file; empty = could not be read."""
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)
    """The image to encode (H, W, 3), between decoding and encoding."""

    def fail(self, status: str, reason: str) -> None:
        """Note that it cannot be encoded."""
        self.status, self.reason, self.pixels = status, reason, None

    def describe(self) -> str:
        """Say what became of it, for a message."""
        return f"{self.row['path']}: {self.status}: {self.reason}"


def decode_batches(
    images: Sequence[SourceImage], source: Path, rule: ResizeRule, size: int
) -> Iterator[list[SourceImage]]:
    """Read, hash, decode and resize images in a thread, which begins before it is asked.

    Args:
        images: As they were planned; what is found is noted in each.
        source: Root of their paths.
        rule: The resize rule.
        size: Images a batch, at most.

    Returns:
        Batches of one size, the largest images first; those that have failed hold no pixels.
    """

    def decode(batch: list[SourceImage]) -> list[SourceImage]:
        for image in batch:
            _decode(source, image, rule)
        return batch

    def encoded_size(image: SourceImage) -> tuple[int, int]:
        return image.row["encoded_height"], image.row["encoded_width"]

    batches = iter(group_by_size(images, encoded_size, size))
    thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
    pending = [thread.submit(decode, batch) for batch in islice(batches, AHEAD)]

    def take() -> Iterator[list[SourceImage]]:
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


def group_by_size(
    images: Sequence[SourceImage], size: Callable[[SourceImage], tuple[int, int]], batch: int
) -> list[list[SourceImage]]:
    """Divide a shard into batches of one size, those that failed in planning last.

    Args:
        images: Of the shard.
        size: Says how large each is: height and width, 0 for one that has failed.
        batch: Images a batch, at most; fewer where they are large.

    Returns:
        The batches, the largest images first.
    """
    by_size: dict[tuple[int, int], list[SourceImage]] = defaultdict(list)
    for image in images:
        by_size[size(image)].append(image)
    batches = []
    for (height, width), members in sorted(by_size.items(), reverse=True):
        step = min(batch, max(1, BATCH_PIXELS // max(1, height * width)))
        batches += [members[k : k + step] for k in range(0, len(members), step)]
    return batches


def _decode(root: Path, image: SourceImage, rule: ResizeRule) -> None:
    """Read the file once: hash it, and decode and resize it from memory."""
    row = image.row
    try:
        content = read_bytes(resolve_inside(root, row["path"]))
        image.source_bytes = len(content)
        image.source_sha256 = sha256_of(content)
        if row["status"] != OK:
            image.fail(row["status"], row["reason"])
            return
        if len(content) != row["source_bytes"]:
            image.fail(
                "changed",
                f"{row['source_bytes']} bytes when planned, {len(content)} when encoded",
            )
            return
        pixels = decode_image(content)
        planned = (row["height"], row["width"])
        if pixels.shape[:2] != planned:
            image.fail(
                "changed",
                f"{planned[0]}x{planned[1]} pixels when planned, "
                f"{pixels.shape[0]}x{pixels.shape[1]} when encoded",
            )
            return
        image.pixels = rule.apply(pixels)
    except ImageError as error:
        image.fail(error.status, str(error))
    except SourceError as error:
        image.fail("unreadable", str(error).replace(str(root), "SOURCE"))
