"""Bytes of a store's pixels under Blosc's settings, planes apart or together.

    python benchmarks/pixel_coding.py STORE [--samples N]

Reads the first N images of a store of pixels and writes them in memory as Zarr would store them,
one image a chunk: its three planes one after the other or its pixels one after the other, with each
shuffle and some levels. Prints bytes a value and MB/s (of values) of writing and reading.
"""

import argparse
import time
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, TransposeCodec
from zarr.storage import MemoryStore

from latentset.datasets.store import open_store

SHUFFLES: tuple[Literal["noshuffle", "shuffle", "bitshuffle"], ...] = (
    "noshuffle",
    "shuffle",
    "bitshuffle",
)
CHOSEN = (True, "bitshuffle", 5)


def measure(
    rows: NDArray[np.uint8],
    chunk_rows: int,
    planes: bool,
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"],
    level: int,
) -> tuple[int, float, float]:
    """Write and read an array; bytes, and seconds of each."""
    content: dict[str, Any] = {}
    started = time.perf_counter()
    array = zarr.create_array(
        MemoryStore(content),
        name="pixels",
        shape=rows.shape,
        dtype=rows.dtype,
        chunks=(chunk_rows, 3),
        shards=rows.shape,
        filters=[TransposeCodec(order=(1, 0))] if planes else [],
        serializer=BytesCodec(),
        compressors=[
            BloscCodec(cname="zstd", clevel=level, shuffle=shuffle, typesize=1),
            Crc32cCodec(),
        ],
    )
    array[:] = rows
    written = time.perf_counter()
    if not np.array_equal(np.asarray(array[:]), rows):
        raise ValueError("what was read differs from what was written")
    read = time.perf_counter()
    return sum(len(value) for value in content.values()), written - started, read - written


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", help="a store of pixels, of one size, made of Zarr objects")
    parser.add_argument("--samples", type=int, default=200, help="images")
    options = parser.parse_args()
    store = open_store(options.store)
    chunk_rows = store.header.layout.chunk_rows
    images = [store.read_grid(k, "pixels") for k in range(options.samples)]
    rows = np.concatenate([image.reshape(-1, 3) for image in images])
    for planes in (True, False):
        for shuffle in SHUFFLES:
            for level in (1, 3, 5, 7, 9) if (planes, shuffle) == CHOSEN[:2] else (5,):
                size, writing, reading = measure(rows, chunk_rows, planes, shuffle, level)
                what = f"{'planes' if planes else 'pixels'}, {shuffle}, level {level}"
                chosen = "  <- the store's" if (planes, shuffle, level) == CHOSEN else ""
                print(
                    f"{what:30s} {size / rows.size:.3f} bytes a value   "
                    f"{rows.nbytes / 1e6 / writing:5.0f} MB/s written, "
                    f"{rows.nbytes / 1e6 / reading:5.0f} read{chosen}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
