"""Bytes of a store's chunks under the filters that HDF5 has built in, and Blosc's for comparison.

    python benchmarks/hdf5_filters.py STORE [--shards N]

Reads N shards of a store and writes each array in memory as HDF5 would store it: rows by channels
or channels by rows, with each chain of filters. Prints bytes against the store's own, and MB/s (of
values) of writing and reading through h5py. With hdf5plugin installed, Blosc is measured as well.
"""

import argparse
import time
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from latentset.datasets.store import open_store


def arrangements() -> dict[str, tuple[bool, Mapping[str, Any]]]:
    """What is compared: whether channels come first, and the filters."""
    found: dict[str, tuple[bool, Mapping[str, Any]]] = {
        "rows x channels, shuffle, deflate 4": (False, _deflate(4, shuffle=True)),
        "channels x rows, shuffle, deflate 4": (True, _deflate(4, shuffle=True)),
        "channels x rows, shuffle, deflate 6": (True, _deflate(6, shuffle=True)),
        "channels x rows, deflate 1": (True, _deflate(1)),
        "channels x rows, deflate 4": (True, _deflate(4)),
        "channels x rows, deflate 6": (True, _deflate(6)),
        # Scale-offset and fletcher32 do not go together: h5py refuses them.
        "channels x rows, scale-offset, deflate 6": (
            True,
            {"scaleoffset": 0, "compression": "gzip", "compression_opts": 6},
        ),
        "channels x rows, shuffle, LZF": (
            True,
            {"shuffle": True, "compression": "lzf", "fletcher32": True},
        ),
    }
    try:
        import hdf5plugin
    except ImportError:
        return found
    blosc = hdf5plugin.Blosc(cname="zstd", clevel=5, shuffle=hdf5plugin.Blosc.BITSHUFFLE)
    found["channels x rows, blosc-zstd 5, bitshuffle"] = (True, {**blosc, "fletcher32": True})
    return found


def _deflate(level: int, *, shuffle: bool = False) -> dict[str, Any]:
    return {
        "compression": "gzip",
        "compression_opts": level,
        "shuffle": shuffle,
        "fletcher32": True,
    }


def measure(
    values: NDArray[Any], chunk_rows: int, transposed: bool, filters: Mapping[str, Any]
) -> tuple[int, float, float]:
    """Store an array in memory.

    Args:
        values: (rows, channels).
        chunk_rows: Rows of a chunk.
        transposed: Store (channels, rows).
        filters: Keywords of h5py's ``create_dataset``.

    Returns:
        Bytes stored, seconds of writing, seconds of reading.
    """
    channels = values.shape[1]
    data = np.ascontiguousarray(values.T) if transposed else values
    chunks = (channels, chunk_rows) if transposed else (chunk_rows, channels)
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        started = time.perf_counter()
        dataset = file.create_dataset("values", data=data, chunks=chunks, **filters)
        file.flush()
        written = time.perf_counter()
        found = dataset[...]
        read = time.perf_counter()
        if not np.array_equal(found, data):
            raise ValueError("what was read differs from what was written")
        return dataset.id.get_storage_size(), written - started, read - written


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", help="a store made of Zarr objects")
    parser.add_argument("--shards", type=int, default=2, help="shards to read")
    options = parser.parse_args()
    store = open_store(options.store)
    layout, manifest = store.header.layout, store.manifest
    if manifest is None:
        raise SystemExit(f"{store.location} is not complete")
    step = max(1, layout.shards // options.shards)
    indexes = range(0, layout.shards, step)[: options.shards]
    shards = [store.read_shard(index) for index in indexes]
    for name in store.header.arrays:
        values = np.concatenate([rows[name] for rows in shards])
        paths = {f"{name}/c/{index}/0" for index in indexes}
        own = sum(item.bytes for item in manifest.objects if item.path in paths)
        chunk_rows = layout.z_chunk_rows if name == "z_hat" else layout.chunk_rows
        print(f"{name}: {values.nbytes} bytes, {own} in the store")
        for what, (transposed, filters) in arrangements().items():
            size, writing, reading = measure(values, chunk_rows, transposed, filters)
            megabytes = values.nbytes / 1e6
            print(
                f"  {what:45s} {size / own:5.2f} of the store's bytes   "
                f"{megabytes / writing:6.0f} MB/s written, {megabytes / reading:6.0f} read",
                flush=True,
            )


if __name__ == "__main__":
    main()
