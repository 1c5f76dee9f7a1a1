"""How fast the training reader reads a store in random order, against bare decompression.

    python benchmarks/reader.py [--store STORE] [--samples 4000] [--repeats 7]

Claim: in true random order, y_hat + scale_index of 192x16x16, on two cores, at least half as fast
as decompressing the same chunks, held in memory, in a bare loop over numcodecs on two threads.

Without ``--store`` a store of made-up latents is written into a temporary folder (about 0.1 GB).
The reader reads the files, checks every chunk's checksum, decompresses, copies samples into batches
of 64 and draws crops; the bare loop does nothing with what it decompressed. Rates are of wall-clock
time; those a CPU second are shown because other programs may share the machine.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

import measure
import numcodecs.blosc  # comes with zarr
import numpy as np

from latentset.datasets.store import Store, open_store
from latentset.datasets.store.header import ArrayName
from latentset.train.data.batches import LatentReader
from latentset.train.data.crop import RandomCrop
from latentset.train.data.split import Split, select_split, split_names
from tests.makers.synthetic import write_synthetic_store

CHANNELS, SIDE = 192, 16


def read_epoch(store: Store, split: Split, names: tuple[ArrayName, ...], epoch: int) -> int:
    """Read one epoch and return its samples."""
    reader = LatentReader(
        store, split, batch_size=64, shuffle=True, drop_last=True, crop=RandomCrop(), names=names
    )
    return sum(len(batch.labels) for batch in reader.batches(epoch))


def chunks_of(store: Store, name: str) -> list[bytes]:
    """The compressed chunks of an array, read from its shards by the words of Zarr's sharding."""
    layout, chunks = store.header.layout, []
    number = layout.shard_rows // layout.chunk_rows
    for shard in range(layout.shards):
        content = store.location.read(f"{name}/c/{shard}/0")
        index = np.frombuffer(content[-16 * number - 4 : -4], "<u8").reshape(number, 2)
        chunks += [content[at : at + size - 4] for at, size in index.tolist()]  # 4: crc32c
    return chunks


def decompress(chunks: list[bytes]) -> None:
    """Decode chunks on two threads, and do nothing with them."""
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(numcodecs.blosc.decompress, chunks, chunksize=64):
            pass


def in_both_times(work: Callable[[], int], cpu: list[float]) -> float:
    """Return items a second, and note items a CPU second."""
    start, start_cpu = time.perf_counter(), time.process_time()
    items = work()
    cpu.append(items / (time.process_time() - start_cpu))
    return items / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, help="a store of one size of samples")
    parser.add_argument("--samples", type=int, default=4000, help="of the store made up")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    measure.describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        path = options.store or write_synthetic_store(
            Path(folder) / "store.zarr",
            samples=options.samples,
            sizes=((16 * SIDE, 16 * SIDE),),
            splits=("train",),
            channels=CHANNELS,
            z_channels=8,
            shard_bytes=32 << 20,
        )
        store = open_store(path)
        split = select_split(store, split_names(store)[0])
        epochs = count()
        pairs: tuple[tuple[ArrayName, ...], ...] = (("y_hat", "scale_index"), ("y_hat",))
        for names in pairs:
            chunks = [chunk for name in names for chunk in chunks_of(store, name)]
            size = sum(map(len, chunks)) / len(split)
            print(f"{' + '.join(names)}, {size:,.0f} bytes a sample")

            def bare(chunks: list[bytes] = chunks) -> int:
                decompress(chunks)
                return len(split)

            def reader(names: tuple[ArrayName, ...] = names) -> int:
                return read_epoch(store, split, names, next(epochs))

            works: dict[str, Callable[[], int]] = {
                "training reader, random order": reader,
                "bare decompression": bare,
            }
            cpu: dict[str, list[float]] = {name: [] for name in works}
            found = measure.in_turn(
                {name: partial(in_both_times, work, cpu[name]) for name, work in works.items()},
                options.repeats,
                "samples/s",
            )
            for name, values in cpu.items():
                measure.Series(f"  {name}", tuple(values[1:]), "samples/CPU s").show()
            bar = 0.5 if len(names) == 2 else None
            reading, decompressing = found.values()
            measure.ratio("reader against bare decompression", reading, decompressing, bar)


if __name__ == "__main__":
    main()
