"""Stores of made-up latents: for tests and benchmarks of what reads stores, without any codec."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from latentset.datasets.store.header import (
    ARRAYS,
    CodecInfo,
    Header,
    Provenance,
    SourceInfo,
)
from latentset.datasets.store.layout import assign_rows
from latentset.datasets.store.manifest import ShardSummary
from latentset.datasets.store.objects import sha256_of
from latentset.datasets.store.places import open_place
from latentset.datasets.store.samples import OK, SAMPLES_SCHEMA
from latentset.datasets.store.scales import number_scales
from latentset.datasets.store.writer import (
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
) -> Location:
    """Write a small complete store. The class can be told from the latents.

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

    Returns:
        ``path``.
    """
    random = np.random.default_rng(seed)
    codec = number_scales(
        CodecInfo(
            name="synthetic",
            sha256=sha256_of(b"synthetic"),
            form="tfc2",
            tensors={},
            channels=channels,
            z_channels=z_channels,
            scale_table=SCALE_TABLE,
            z_offset=(0.0,) * z_channels,
        )
    )
    of_sample = [sizes[k % len(sizes)] for k in range(samples)]
    grids = [(0, 0) if k in failed else codec.y_size(*of_sample[k]) for k in range(samples)]
    z_grids = [(0, 0) if k in failed else codec.z_size(*of_sample[k]) for k in range(samples)]
    placed = assign_rows(
        np.array([h * w for h, w in grids], np.int64),
        np.array([h * w for h, w in z_grids], np.int64),
        channels,
        shard_bytes,
    )
    header = Header(
        codec=codec,
        arrays=(*ARRAYS, "sigma_hat") if sigma_hat else ARRAYS,
        resize="none",
        source=SourceInfo(
            kind="synthetic",
            name="synthetic",
            samples=samples,
            classes=tuple(classes),
            listing_sha256=sha256_of(f"{samples} {sizes} {seed}".encode()),
        ),
        layout=placed.layout,
        provenance=Provenance(
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
        ),
    )
    place = open_place(path)
    objects = write_objects(place, metadata_objects(header))
    rows: list[dict[str, Any]] = []
    summaries = []
    for index in range(placed.layout.shards):
        buffer = ShardBuffer(header, index)
        members = np.flatnonzero(placed.shard == index).tolist()
        for k in members:
            ok = k not in failed
            label = k % len(classes)
            if ok:
                _put_random(
                    buffer,
                    placed.first_row[k],
                    placed.z_first_row[k],
                    grids[k],
                    z_grids[k],
                    codec,
                    label / len(classes),
                    random,
                )
            rows.append(
                {
                    "id": f"{classes[label]}/{k:06d}",
                    "path": f"{classes[label]}/{k:06d}.png",
                    "label": label,
                    "split": splits[k // len(classes) % len(splits)],
                    "height": of_sample[k][0],
                    "width": of_sample[k][1],
                    "latent_height": grids[k][0],
                    "latent_width": grids[k][1],
                    "first_row": int(placed.first_row[k]),
                    "z_first_row": int(placed.z_first_row[k]),
                    "shard": index,
                    "rate_bpp": 0.25 + 0.01 * label if ok else None,
                    "source_bytes": 1000 + k,
                    "source_sha256": sha256_of(str(k).encode()),
                    "status": OK if ok else "truncated",
                    "reason": "" if ok else "made up",
                }
            )
        objects += write_objects(place, shard_objects(header, index, buffer.rows()))
        fails = sum(k in failed for k in members)
        summaries.append(
            ShardSummary(index=index, samples=len(members), ok=len(members) - fails, failed=fails)
        )
    finish_store(
        place,
        fingerprint=sha256_of(header.model_dump_json().encode()),
        samples=pa.Table.from_pylist(rows, schema=SAMPLES_SCHEMA),
        shards=summaries,
        objects=objects,
    )
    return path


def _put_random(
    buffer: ShardBuffer,
    first_row: int,
    z_first_row: int,
    grid: tuple[int, int],
    z_grid: tuple[int, int],
    codec: CodecInfo,
    place: float,
    random: np.random.Generator,
) -> None:
    """Latents whose scale falls off with the distance of the channel from ``place``."""
    channel = np.arange(codec.channels) / codec.channels
    activity = 40 * (1 - 2 * np.abs(channel - place - 0.25))
    index = np.clip(random.normal(activity, 2.0, (*grid, codec.channels)).round(), 0, 63)
    scale_index = index.astype(np.int32)
    y_hat = random.normal(0, np.asarray(SCALE_TABLE)[scale_index]).round().astype(np.int32)
    z_hat = random.integers(-3, 4, (*z_grid, codec.z_channels), np.int32)
    buffer.put(int(first_row), int(z_first_row), y_hat, scale_index, z_hat)
