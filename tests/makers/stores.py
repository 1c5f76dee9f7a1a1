"""Stores of made-up latents and pixels, of any codec: as the recipes of the paper want them."""

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store import Store, open_store
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
from latentset.datasets.store.layout import assign_rows
from latentset.datasets.store.samples import samples_schema
from latentset.datasets.store.scales import number_scales
from latentset.datasets.store.zarr.writer import (
    PixelBuffer,
    ShardBuffer,
)
from tests.makers.synthetic import write_store

SIDE = 48
SAMPLES = 32
CLASSES = ("dark", "bright")
SPLITS = ("train", "train", "val", "test")
ZERO_CHANNEL = 1
"""Channel of y_hat that is 0 everywhere; the others are nowhere."""

PROVENANCE = Provenance(
    latentset="", tensorflow="", tensorflow_compression="", onednn=False, device="", decoder="",
    python="", numpy="", zarr="", created="",
)  # fmt: skip
SOURCE = SourceInfo(
    kind="list", name="made-up", samples=SAMPLES, classes=CLASSES, listing_sha256=sha256_of(b"")
)

Rows = dict[ArrayName, NDArray[Any]]


def codec_info(name: str) -> CodecInfo:
    return number_scales(
        CodecInfo(
            name=name,
            sha256=sha256_of(name.encode()),
            form="tfc2",
            tensors={},
            channels=4,
            z_channels=2,
            scale_table=tuple(0.11 * 2**k for k in range(8)),
            z_offset=(0.0, 0.0),
        )
    )


def resized(header: Header) -> tuple[int, int]:
    """Height and width of the images as they were encoded."""
    return ResizeRule.parse(header.resize).size(SIDE, SIDE)


def write_latents(
    path: Path,
    codec: str,
    *,
    rate_bpp: float = 0.5,
    resize: str = "none",
    source: SourceInfo = SOURCE,
) -> Path:
    """32 samples of 48x48 pixels; label k % 2, split by k // 2. val and train cost double."""
    info = codec_info(codec)

    def fill(rows: list[dict[str, Any]], header: Header, index: int) -> Rows:
        buffer = ShardBuffer(header, index)
        for row in rows:
            grid = row["latent_height"], row["latent_width"]
            y_hat = np.full((*grid, 4), 1 + row["label"])
            y_hat[:, :, ZERO_CHANNEL] = 0
            scales = np.full((*grid, 4), 2 + row["label"])
            z_hat = np.zeros((*info.z_size(*resized(header)), 2), np.int64)
            buffer.put(row["first_row"], row["z_first_row"], y_hat, scales, z_hat)
        return buffer.rows()

    fields = {"codec": info, "arrays": ARRAYS, "resize": resize, "source": source}
    return _write(path, fields, info, rate_bpp, fill)


def write_pixels(path: Path, latents: Path, *, decoded: bool, resize: str = "none") -> Path:
    """Their pixels. Decoded, PSNR is 30 and MS-SSIM 0.9 on the test split, else 20 and 0.8.

    But the last one's PSNR is infinite, as if it was decoded exactly.

    Red in the upper left corner is 7 in originals, and in what is decoded 10 times the bits per
    pixel of the test split.
    """
    store: Store = open_store(latents)
    info = PixelInfo(kind="original")
    fields: dict[str, Any] = {"resize": resize, "source": store.header.source}
    if decoded:
        made = LatentsInfo(
            fingerprint=store.fingerprint,
            resize=store.header.resize,
            provenance=PROVENANCE,
            measured=True,
        )
        info = PixelInfo(kind="decoded", latents=made)
        fields |= {"codec": store.header.codec}

    rate = store.samples["rate_bpp"].to_pylist()[-1] if decoded else 3.0

    def fill(rows: list[dict[str, Any]], header: Header, index: int) -> Rows:
        buffer = PixelBuffer(header, index)
        for row in rows:
            pixels = np.full((*resized(header), 3), 50 + 150 * row["label"], np.uint8)
            pixels[::2] += 20
            pixels[0, 0, 0] = round(10 * rate) if decoded else 7
            buffer.put(row["first_row"], pixels)
        return buffer.rows()

    return _write(path, {**fields, "pixels": info, "arrays": PIXEL_ARRAYS}, info, rate, fill)


def _write(
    path: Path,
    fields: dict[str, Any],
    content: CodecInfo | PixelInfo,
    rate_bpp: float,
    fill: Callable[[list[dict[str, Any]], Header, int], Rows],
) -> Path:
    sides = ResizeRule.parse(fields["resize"]).size(SIDE, SIDE)
    (height, width), (z_height, z_width) = content.y_size(*sides), content.z_size(*sides)
    placed = assign_rows(
        np.full(SAMPLES, height * width), np.full(SAMPLES, z_height * z_width),
        rows_of(content), 1 << 20,
    )  # fmt: skip
    header = Header(
        format_version=format_version_of(fields["arrays"]),
        layout=placed.layout,
        provenance=PROVENANCE,
        **fields,
    )
    rows = []
    for k in range(SAMPLES):
        split = SPLITS[k // 2 % 4]
        rows.append(
            {
                "id": f"{CLASSES[k % 2]}/{k:02d}",
                "path": f"{CLASSES[k % 2]}/{k:02d}.png",
                "label": k % 2,
                "split": split,
                "height": SIDE,
                "width": SIDE,
                "latent_height": height,
                "latent_width": width,
                "first_row": int(placed.first_row[k]),
                "z_first_row": int(placed.z_first_row[k]),
                "shard": int(placed.shard[k]),
                "rate_bpp": rate_bpp if split == "test" else 2 * rate_bpp,
                "source_bytes": 1000,
                "source_sha256": sha256_of(str(k).encode()),
                "status": "ok",
                "reason": "",
            }
        )
        if "ms_ssim" in samples_schema(header).names:
            test = split == "test"
            rows[-1] |= {"psnr_db": 30.0 if test else 20.0, "ms_ssim": 0.9 if test else 0.8}
            if k == SAMPLES - 1:  # of the split test
                rows[-1]["psnr_db"] = inf
    write_store(
        path,
        header,
        rows,
        lambda index: fill([row for row in rows if row["shard"] == index], header, index),
    )
    return path
