"""How many bytes a store has, by array, against the codec's own strings.

    python benchmarks/store_bytes.py STORE IMAGES [--codec NAME] [--strings 400]

STORE is a Zarr store of IMAGES (TrashNet with a codec that is shipped). Claim: y_hat +
scale_index + z_hat take at most 2.5 times the bytes of the codec's real strings; y_hat alone at
most 1.7 times.

Real strings are made by the codec's own sender, for some images picked at random; what the
store's ``rate_bpp`` says of the same images is shown beside, and its sum over all of the
store's samples, times the ratio of the two, stands for the strings of the whole store.
"""

import argparse
from pathlib import Path
from typing import Any

import measure
import numpy as np

from latentset.datasets.sources.images import decode_image, read_bytes
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.samples import OK
from latentset.pipeline.codec.load.codec import Codec, load_codec


def string_bytes(
    codec: Codec, store: Store, root: Path, count: int
) -> tuple[float, float, float, float]:
    """Encode some images into strings.

    Returns:
        Bytes a pixel of the strings of y and of z; what rate_bpp says of the same, in bytes a
        pixel; and the standard error of their ratio.
    """
    table = store.samples
    ok = [row for row in table.to_pylist() if row["status"] == OK]
    chosen = np.random.default_rng(0).permutation(len(ok))[:count]
    rule = ResizeRule.parse(store.header.resize)
    y, z, implied, pixels = [], [], [], 0
    for k in chosen.tolist():
        image = rule.apply(decode_image(read_bytes(root / ok[k]["path"])))
        area = image.shape[0] * image.shape[1]
        strings = [c for c in codec.sender(image) if c.dtype.kind in "OS"]
        y_length, z_length = (sum(map(len, c.ravel())) for c in strings)
        y.append(y_length)
        z.append(z_length)
        implied.append(ok[k]["rate_bpp"] * area / 8)
        pixels += area
    ratios = (np.array(y) + np.array(z)) / np.array(implied)
    error = float(ratios.std() / len(ratios) ** 0.5)
    return sum(y) / pixels, sum(z) / pixels, sum(implied) / pixels, error


def parts_of(store: Store, name: str) -> dict[str, int]:
    """Bytes of an array's objects, by what they are."""
    layout = store.header.layout
    rows = ("z_shard_rows", "z_chunk_rows") if name == "z_hat" else ("shard_rows", "chunk_rows")
    number = getattr(layout, rows[0]) // getattr(layout, rows[1])
    parts = {"compressed chunks": 0, "checksums and indexes": 0}
    for shard in range(layout.shards):
        content = store.location.read(f"{name}/c/{shard}/0")
        index = np.frombuffer(content[-16 * number - 4 : -4], "<u8").reshape(number, 2)
        chunks = int(index[:, 1].sum()) - 4 * number  # each ends on its crc32c
        parts["compressed chunks"] += chunks
        parts["checksums and indexes"] += len(content) - chunks
    return parts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("images", type=Path, help="what it was made from")
    parser.add_argument("--codec", help="name or file of its codec, if not the name it records")
    parser.add_argument("--strings", type=int, default=400, help="images encoded to strings")
    options = parser.parse_args()
    measure.describe_machine()
    store = open_store(options.store)
    made_by = store.header.codec
    if made_by is None:
        raise SystemExit(f"{options.store}: expected a store of latents")
    codec = load_codec(options.codec or made_by.name)
    if codec.info.sha256 != made_by.sha256:
        raise SystemExit(f"{options.store} was made with another codec than {codec.info.name}")
    y, z, implied, error = string_bytes(codec, store, options.images, options.strings)
    rows: list[dict[str, Any]] = [r for r in store.samples.to_pylist() if r["status"] == OK]
    bpp = np.array([row["rate_bpp"] for row in rows])
    rule = ResizeRule.parse(store.header.resize)
    area = np.array([np.prod(rule.size(row["height"], row["width"])) for row in rows])
    strings = float((bpp * area).sum() / 8 * (y + z) / implied)
    print(
        f"{len(rows)} samples, {codec.info.name}, {store.header.resize}; strings of "
        f"{options.strings}: {(y + z) / implied:.4f} times what rate_bpp says (± {error:.4f}); "
        f"y {y / (y + z):.1%}, z {z / (y + z):.1%}"
    )

    def line(name: str, size: float, verdict: str = "") -> None:
        each = size / len(rows)
        print(f"{name:44s} {size:14,.0f} {each:10,.0f} {size / strings:8.3f}{verdict}")

    print(f"\n{'':44s} {'bytes':>14s} {'a sample':>10s} {'/strings':>8s}")
    line("strings", strings)
    total = 0
    for name in ("y_hat", "scale_index", "z_hat"):
        parts = parts_of(store, name)
        size = sum(parts.values())
        total += size
        ratio = size / strings
        line(name, size, measure.judge(ratio, 1.7, "at most") if name == "y_hat" else "")
        for part, part_size in parts.items():
            line(f"  {part}", part_size)
    line("y_hat + scale_index + z_hat", total, measure.judge(total / strings, 2.5, "at most"))
    sizes = store.location.sizes() or {}
    everything = sum(sizes.values())
    line("samples table, metadata, manifest", everything - total)
    line("the whole store", everything)
    images = sum(row["source_bytes"] for row in rows)
    line("the images' files", images)


if __name__ == "__main__":
    main()
