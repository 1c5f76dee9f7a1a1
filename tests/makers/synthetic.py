"""Stores made up: for tests and benchmarks of what reads stores, without any codec."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latentset.datasets.storage.location import open_location
from latentset.datasets.store.arrays import rows_of
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.header import (
    ARRAYS,
    PIXEL_ARRAYS,
    ArrayName,
    CodecInfo,
    Header,
    LatentsInfo,
    PixelInfo,
    Provenance,
    SourceInfo,
    format_version_of,
)
from latentset.datasets.store.layout import Assignment, assign_rows
from latentset.datasets.store.manifest import ShardSummary
from latentset.datasets.store.samples import OK, samples_schema
from latentset.datasets.store.scales import number_scales
from latentset.datasets.store.zarr.writer import (
    PixelBuffer,
    ShardBuffer,
    finish_store,
    metadata_objects,
    shard_objects,
    write_objects,
)

SCALE_TABLE = tuple(
    math.exp(math.log(0.11) + k * (math.log(256.0) - math.log(0.11)) / 63) for k in range(64)
)
"""The scale table of the published codecs: 64 values from 0.11 to 256, evenly spaced in log."""

Location = TypeVar("Location", Path, str)


@dataclass(frozen=True)
class _Made:
    """What all made-up stores have."""

    samples: int
    sizes: Sequence[tuple[int, int]]
    classes: Sequence[str]
    splits: Sequence[str]
    failed: Collection[int]
    shard_bytes: int
    seed: int
    labelled: bool = True

    def size(self, k: int) -> tuple[int, int]:
        """(height, width) of the image of a sample."""
        return self.sizes[k % len(self.sizes)]

    def location(self, k: int) -> float:
        """The class of a sample among all, 0 to 1."""
        return k % len(self.classes) / len(self.classes)

    def row(self, k: int, grid: tuple[int, int], placed: Assignment) -> dict[str, Any]:
        """The row of a sample in the samples table."""
        label, ok = k % len(self.classes), k not in self.failed
        return {
            "id": f"{self.classes[label]}/{k:06d}",
            "path": f"{self.classes[label]}/{k:06d}.png",
            "label": label if self.labelled else -1,
            "split": self.splits[k // len(self.classes) % len(self.splits)],
            "height": self.size(k)[0],
            "width": self.size(k)[1],
            "latent_height": grid[0],
            "latent_width": grid[1],
            "first_row": int(placed.first_row[k]),
            "z_first_row": int(placed.z_first_row[k]),
            "shard": int(placed.shard[k]),
            "rate_bpp": 0.25 + 0.01 * label if ok else None,
            "source_bytes": 1000 + k,
            "source_sha256": sha256_of(str(k).encode()),
            "status": OK if ok else "truncated",
            "reason": "" if ok else "made up",
        }


class _Buffer(Protocol):
    """The rows of a shard, as they come."""

    def rows(self) -> dict[ArrayName, NDArray[Any]]:
        """All rows of the shard."""


Buffer = TypeVar("Buffer", bound=_Buffer)


def write_synthetic_store(
    path: Location,
    *,
    samples: int = 24,
    sizes: Sequence[tuple[int, int]] = ((64, 64),),
    classes: Sequence[str] = ("even", "odd"),
    splits: Sequence[str] = ("train", "train", "train", "val"),
    channels: int = 8,
    z_channels: int = 4,
    failed: Collection[int] = (),
    sigma_hat: bool = False,
    shard_bytes: int = 1 << 20,
    seed: int = 0,
    cpu_isa: str | None = None,
    h_s_exact_to: int | None = None,
    labelled: bool = True,
) -> Location:
    """Write a small complete store of latents. The class can be told from the latents.

    Sample ``k`` has label ``k % len(classes)``, split ``splits[k // len(classes) % len(splits)]``
    and size ``sizes[k % len(sizes)]``. Channel ``c`` of a sample is more active, the nearer ``c``
    is to the class's own channels.

    Args:
        path: Folder or URL to make.
        samples: Number of samples.
        sizes: (height, width) of the images, pixels.
        classes: Class names.
        splits: Splits.
        channels: Channels of ``y_hat``.
        z_channels: Channels of ``z_hat``.
        failed: Samples that get the status ``truncated`` and no latents.
        sigma_hat: Store ``sigma_hat`` as well.
        shard_bytes: Size of a shard of ``y_hat`` before compression.
        seed: Of the random numbers.
        cpu_isa: As in the header; so is ``h_s_exact_to``.
        labelled: Whether the header has the classes, and the samples have labels.
    """
    made: _Made = _Made(samples, sizes, classes, splits, failed, shard_bytes, seed, labelled)
    random = np.random.default_rng(seed)
    made_by = _make_codec(channels, z_channels).model_copy(update={"h_s_exact_to": h_s_exact_to})
    codec = number_scales(made_by)

    def fill(buffer: ShardBuffer, k: int, first_row: int, z_first_row: int) -> None:
        grids = codec.y_size(*made.size(k)), codec.z_size(*made.size(k))
        buffer.put(
            first_row, z_first_row, *_random_latents(codec, *grids, made.location(k), random)
        )

    arrays = (*ARRAYS, "sigma_hat") if sigma_hat else ARRAYS
    fields = {
        "codec": codec,
        "arrays": arrays,
        "provenance": _NOTHING.model_copy(update={"cpu_isa": cpu_isa}),
        "format_version": format_version_of(arrays, cpu_isa, h_s_exact_to),
    }
    return _write(path, made, fields, ShardBuffer, fill)


def write_mixed_store(path: Path) -> Path:
    """96 samples of three classes and three sizes; one failed, in split train."""
    return write_synthetic_store(
        path,
        samples=96,
        sizes=((64, 64), (100, 50), (30, 170)),
        classes=("glass", "metal", "paper"),
        splits=("train", "train", "val", "test"),
        failed=(1,),
        seed=3,
    )


def write_synthetic_pixels(
    path: Location,
    *,
    samples: int = 24,
    sizes: Sequence[tuple[int, int]] = ((64, 64),),
    classes: Sequence[str] = ("even", "odd"),
    splits: Sequence[str] = ("train", "train", "train", "val"),
    decoded: bool = False,
    failed: Collection[int] = (),
    shard_bytes: int = 1 << 20,
    seed: int = 0,
) -> Location:
    """Write a small complete store of pixels. The class can be told from the colour.

    Args:
        path: Folder or URL to make.
        samples: Number of samples; label, split and size as of :func:`write_synthetic_store`.
        sizes: (height, width) of the images, pixels.
        classes: Class names.
        splits: Splits.
        decoded: Say that the pixels were decoded and measured, else that they are originals.
        failed: Samples that get the status ``truncated`` and no pixels.
        shard_bytes: Size of a shard before compression.
        seed: Of the random numbers.
    """
    made: _Made = _Made(samples, sizes, classes, splits, failed, shard_bytes, seed)
    random = np.random.default_rng(seed)

    def fill(buffer: PixelBuffer, k: int, first_row: int, z_first_row: int) -> None:
        colour = 255 * made.location(k) * np.array([1.0, 0.5, 0.25]) + 32
        noise = random.normal(0, 8, (*made.size(k), 3))
        buffer.put(first_row, np.clip(colour + noise, 0, 255).astype(np.uint8))

    fields: dict[str, Any] = {
        "pixels": PixelInfo(kind="original"),
        "arrays": PIXEL_ARRAYS,
        "provenance": _NOTHING,
        "format_version": format_version_of(PIXEL_ARRAYS),
    }
    if decoded:
        latents = LatentsInfo(
            fingerprint=sha256_of(b"latents"), resize="none", provenance=_NOTHING, measured=True
        )
        fields["codec"] = number_scales(_make_codec(8, 4))
        fields["pixels"] = PixelInfo(kind="decoded", latents=latents)
    return _write(path, made, fields, PixelBuffer, fill)


_NOTHING = Provenance(
    latentset="synthetic",
    tensorflow="",
    tensorflow_compression="",
    onednn=False,
    device="none",
    decoder="none",
    python="",
    numpy="",
    zarr="",
    created="1970-01-01T00:00:00Z",
)


def _make_codec(channels: int, z_channels: int) -> CodecInfo:
    return CodecInfo(
        name="synthetic",
        sha256=sha256_of(b"synthetic"),
        form="tfc2",
        tensors={},
        channels=channels,
        z_channels=z_channels,
        scale_table=SCALE_TABLE,
        z_offset=(0.0,) * z_channels,
    )


def _write(
    path: Location,
    made: _Made,
    fields: dict[str, Any],
    make_buffer: Callable[[Header, int], Buffer],
    fill: Callable[[Buffer, int, int, int], None],
) -> Location:
    """Write a store of which the header's fields, and how a sample's rows come about, are given."""
    count = made.samples
    content = fields.get("pixels") or fields["codec"]
    nothing = (0, 0)
    grids = [nothing if k in made.failed else content.y_size(*made.size(k)) for k in range(count)]
    z_grids = [nothing if k in made.failed else content.z_size(*made.size(k)) for k in range(count)]
    placed = assign_rows(
        np.array([h * w for h, w in grids], np.int64),
        np.array([h * w for h, w in z_grids], np.int64),
        rows_of(content),
        made.shard_bytes,
    )
    header = Header(
        resize="none",
        source=SourceInfo(
            kind="synthetic",
            name="synthetic",
            samples=count,
            classes=tuple(made.classes) if made.labelled else (),
            listing_sha256=sha256_of(f"{count} {made.sizes} {made.seed}".encode()),
        ),
        layout=placed.layout,
        **fields,
    )
    rows = [made.row(k, grids[k], placed) for k in range(count)]
    if "psnr_db" in samples_schema(header).names:
        for k, row in enumerate(rows):
            row["psnr_db"], row["ms_ssim"] = (None, None) if k in made.failed else (30.0, None)

    def make_shard(index: int) -> Mapping[ArrayName, NDArray[Any]]:
        buffer = make_buffer(header, index)
        for k in np.flatnonzero(placed.shard == index).tolist():
            if k not in made.failed:
                fill(buffer, k, int(placed.first_row[k]), int(placed.z_first_row[k]))
        return buffer.rows()

    write_store(path, header, rows, make_shard)
    return path


def write_store(
    path: Path | str,
    header: Header,
    rows: Sequence[Mapping[str, Any]],
    make_shard: Callable[[int], Mapping[ArrayName, NDArray[Any]]],
) -> None:
    """Write a store of these rows of the samples table; ``make_shard`` gives a shard's arrays."""
    location = open_location(path)
    objects, summaries = write_objects(location, metadata_objects(header)), []
    for index in range(header.layout.shards):
        objects += write_objects(location, shard_objects(header, index, make_shard(index)))
        statuses = [row["status"] for row in rows if row["shard"] == index]
        total, ok = len(statuses), statuses.count("ok")
        summaries.append(ShardSummary(index=index, samples=total, ok=ok, failed=total - ok))
    finish_store(
        location,
        header=header,
        fingerprint=sha256_of(header.model_dump_json().encode()),
        samples=pa.Table.from_pylist(rows, schema=samples_schema(header)),
        shards=summaries,
        objects=objects,
    )


def _random_latents(
    codec: CodecInfo,
    grid: tuple[int, int],
    z_grid: tuple[int, int],
    location: float,
    random: np.random.Generator,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Latents whose scale falls off with the distance of the channel from ``location``."""
    channel = np.arange(codec.channels) / codec.channels
    activity = 40 * (1 - 2 * np.abs(channel - location - 0.25))
    index = np.clip(random.normal(activity, 2.0, (*grid, codec.channels)).round(), 0, 63)
    scale_index = index.astype(np.int32)
    y_hat = random.normal(0, np.asarray(SCALE_TABLE)[scale_index]).round().astype(np.int32)
    z_hat = random.integers(-3, 4, (*z_grid, codec.z_channels), np.int32)
    return y_hat, scale_index, z_hat
