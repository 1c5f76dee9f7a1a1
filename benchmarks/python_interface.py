"""How fast one's own code reads a store, against the trainer's reader, in random order.

    python benchmarks/python_interface.py [--store STORE] [--samples 4000] [--repeats 5]

Claim: ``latentset.torch.LatentBatches`` is as fast as the reader below it, by CPU time.

Without ``--store`` a store of made-up latents of 192x16x16 is written into a temporary folder. Each
way reads all samples once, ``y_hat`` and ``scale_index``, 64 a batch: LatentReader as the trainer
uses it, LatentBatches, a DataLoader of LatentDataset with collate (0 and 2 workers, started once a
run), and ``Store.read_stored``.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import measure
import numpy as np
from torch.utils.data import DataLoader

from latentset.datasets.store import Store, open_store
from latentset.torch import LatentBatches, LatentDataset, collate
from latentset.train.data.batches import LatentReader
from latentset.train.data.split import select_split
from tests.makers.synthetic import write_synthetic_store

BATCH = 64


def count_samples(batches: Iterable[Any]) -> int:
    """Read batches and count their samples."""
    return sum(len(batch.labels) for batch in batches)


def read_arrays(store: Store) -> int:
    """Read batches of NumPy arrays, as they are stored."""
    order = np.random.default_rng(0).permutation(store.indices("train"))
    for first in range(0, len(order), BATCH):
        store.read_stored(order[first : first + BATCH], "y_hat")
        store.read_stored(order[first : first + BATCH], "scale_index")
    return len(order)


def rate(work: Callable[[], int], clock: Callable[[], float]) -> float:
    """Samples a second."""
    start = clock()
    samples = work()
    return samples / (clock() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, help="a store with a split train")
    parser.add_argument("--samples", type=int, default=4000, help="of the store made up")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    measure.describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(
            options.store
            or write_synthetic_store(
                Path(folder) / "store.zarr",
                samples=options.samples,
                sizes=((256, 256),),
                splits=("train",),
                channels=192,
                z_channels=8,
                shard_bytes=32 << 20,
            )
        )
        reader = LatentReader(store, select_split(store, "train"), batch_size=BATCH, shuffle=True)
        batches = LatentBatches(store, batch_size=BATCH, shuffle=True)
        epochs = count()

        def load(workers: int) -> int:
            dataset = LatentDataset(store)
            loader: Any = DataLoader(
                dataset, BATCH, shuffle=True, num_workers=workers, collate_fn=collate
            )
            return count_samples(loader)

        works: dict[str, Callable[[], int]] = {
            "the trainer's reader": lambda: count_samples(reader.batches(next(epochs))),
            "LatentBatches": lambda: count_samples(batches),
            "DataLoader of LatentDataset, no worker": partial(load, 0),
            "DataLoader of LatentDataset, 2 workers": partial(load, 2),
            "Store.read_stored": partial(read_arrays, store),
        }
        measure.in_turn(
            {name: partial(rate, work, time.perf_counter) for name, work in works.items()},
            options.repeats,
            "samples/s",
        )
        trainers, ours = measure.in_turn(
            {name: partial(rate, works[name], time.process_time) for name in list(works)[:2]},
            options.repeats,
            "samples/CPU s",
        ).values()
        measure.ratio("LatentBatches against the trainer's reader", ours, trainers, 0.95)


if __name__ == "__main__":
    main()
