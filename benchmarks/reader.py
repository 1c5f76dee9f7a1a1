"""How fast the training reader reads a store in random order, against bare decompression.

    python benchmarks/reader.py [--samples 4000] [--repeats 5]

Writes a store of made-up latents of 192x16x16 into a temporary folder (about 0.1 GB), then reads
epochs of it, `y_hat` alone and with `scale_index`, and decodes the same chunks in a bare loop
over numcodecs. Prints medians over the repeats, samples/s of wall-clock time and, because other
programs may share the machine, of processor time.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numcodecs.blosc  # comes with zarr
import numpy as np

from latentset.datasets.store import Store, open_store
from latentset.datasets.store.header import ArrayName
from latentset.datasets.store.synthetic import write_synthetic_store
from latentset.train.reader import LatentReader
from latentset.train.recipe import Data
from latentset.train.split import Split, select_split

CHANNELS, SIDE = 192, 16


def read_epoch(store: Store, split: Split, names: tuple[ArrayName, ...], epoch: int) -> int:
    """Read one epoch and return its samples."""
    reader = LatentReader(store, split, Data(batch_size=64), seed=0, training=True, names=names)
    return sum(len(batch.labels) for batch in reader.batches(epoch))


def chunks_of(store: Store, name: str) -> list[bytes]:
    """The compressed chunks of an array, read from its shards by the words of Zarr's sharding."""
    layout, chunks = store.header.layout, []
    number = layout.shard_rows // layout.chunk_rows
    for shard in range(layout.shards):
        content = store.place.read(f"{name}/c/{shard}/0")
        index = np.frombuffer(content[-16 * number - 4 : -4], "<u8").reshape(number, 2)
        chunks += [content[at : at + size - 4] for at, size in index.tolist()]  # 4: crc32c
    return chunks


def decompress(chunks: list[bytes]) -> None:
    """Decode chunks on two threads, and do nothing with them."""
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(numcodecs.blosc.decompress, chunks, chunksize=64):
            pass


def measure(what: str, work: Callable[[int], int], repeats: int) -> float:
    """Print and return the median of samples/s."""
    wall, cpu = [], []
    for number in range(repeats + 1):
        start, start_cpu = time.perf_counter(), time.process_time()
        samples = work(number)
        if number:  # the first one warms the page cache
            wall.append(samples / (time.perf_counter() - start))
            cpu.append(samples / (time.process_time() - start_cpu))
    rate = statistics.median(wall)
    print(f"{what:44s} {rate:8,.0f} samples/s {statistics.median(cpu):8,.0f} per CPU second")
    return rate


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_synthetic_store(
            Path(folder) / "store.zarr",
            samples=options.samples,
            sizes=((16 * SIDE, 16 * SIDE),),
            splits=("train",),
            channels=CHANNELS,
            z_channels=8,
            shard_bytes=32 << 20,
        )
        store = open_store(path)
        split = select_split(store, "train")
        pairs: tuple[tuple[ArrayName, ...], ...] = (("y_hat",), ("y_hat", "scale_index"))
        for names in pairs:
            chunks = [chunk for name in names for chunk in chunks_of(store, name)]
            title, size = " + ".join(names), sum(map(len, chunks)) / len(split)

            def bare(number: int, chunks: list[bytes] = chunks) -> int:
                decompress(chunks)
                return int(options.samples)

            def reader(number: int, names: tuple[ArrayName, ...] = names) -> int:
                return read_epoch(store, split, names, number)

            print(f"{title}, {CHANNELS}x{SIDE}x{SIDE}, {size:,.0f} bytes a sample")
            ratio = measure("  training reader, random order", reader, options.repeats)
            ratio /= measure("  bare decompression, two threads", bare, options.repeats)
            print(f"  ratio {ratio:.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:,.0f} MiB, with the writing of the store and its chunks in memory")


if __name__ == "__main__":
    main()
