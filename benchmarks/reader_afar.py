"""Training from a store that is far away: the first epoch and the second, against local and others.

    python benchmarks/reader_afar.py FOLDER [--repeats 5] [--latency-ms 20] [--mb-per-s 100]

FOLDER is what make_store.py made; ``FOLDER/formats`` gets the same latents in each format, once.
All are read from one server on loopback with that latency and rate (slow_server.py): ours by http,
MosaicML MDS and LitData, compressed, from it as S3. Each run is a process of its own with an empty
cache; epoch 1 starts before the data set is opened. Shuffled batches of 64, two workers (MDS: one).
Claims: epochs 2 and 3 have at least 0.95 of the speed of those of a local copy; epoch 1 takes less
time than those of MDS and LitData.

Run it in the bench environment.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import latent_formats
import measure
from reader_formats import write_plain

NAMES = ("latentset", "local", "mds", "litdata")
EPOCHS = 3


def open_latentset(source: str, cache: str) -> Callable[[int], int]:
    """Our reader, of a folder or an address."""
    from latentset.datasets.store import open_store
    from latentset.train.data.batches import LatentReader
    from latentset.train.data.crop import RandomCrop
    from latentset.train.data.split import select_split, split_names

    store = open_store(source, cache=Path(cache))
    split = select_split(store, split_names(store)[0])
    size, crop = latent_formats.BATCH, RandomCrop()
    reader = LatentReader(store, split, batch_size=size, shuffle=True, drop_last=True, crop=crop)
    return lambda epoch: sum(len(batch.labels) for batch in reader.batches(epoch))


def open_mds(source: str, cache: str) -> Callable[[int], int]:
    """MosaicML streaming."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    size = latent_formats.BATCH
    data = StreamingDataset(remote=source, local=cache, shuffle=True, batch_size=size)
    # With two workers, streaming 0.13 decompresses shards that the other has not fetched whole.
    loader: Any = DataLoader(data, size, num_workers=1, drop_last=True, persistent_workers=True)
    return lambda epoch: sum(len(batch["label"]) for batch in loader)


def open_litdata(source: str, cache: str) -> Callable[[int], int]:
    """LitData."""
    import litdata
    from litdata.streaming import downloader

    # Its own client speaks https alone, unless told so.
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"
    access = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    data = litdata.StreamingDataset(
        source, cache_dir=cache, shuffle=True, drop_last=True, storage_options=access
    )
    loader = litdata.StreamingDataLoader(
        data,
        batch_size=latent_formats.BATCH,
        num_workers=latent_formats.WORKERS,
        drop_last=True,
        persistent_workers=True,
    )
    return lambda epoch: sum(len(batch["label"]) for batch in loader)


OPENERS = {
    "latentset": open_latentset,
    "local": open_latentset,
    "mds": open_mds,
    "litdata": open_litdata,
}


def run_one(name: str, source: str) -> None:
    """Read the epochs in this process, and print seconds and samples of each as JSON."""
    import torch  # noqa: F401  before the clock starts: all use it

    found = []
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        read = OPENERS[name](source, cache)
        for epoch in range(EPOCHS):
            samples = read(epoch)
            found.append((time.perf_counter() - started, samples))
            started = time.perf_counter()
    print(json.dumps(found))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="made by make_store.py")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--mb-per-s", type=float, default=100)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SOURCE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(*options.one)
        return
    measure.describe_machine()
    folder = options.folder.resolve()
    plain = folder / "formats" / "plain"
    write_plain(folder / "store.zarr", plain)
    for name in ("mds", "litdata"):
        target = folder / "formats" / f"{name}-compressed"
        arguments = name, True, str(plain), str(target)
        with measure.Workers(latent_formats.write, *arguments, cores=[measure.cores()]):
            pass
    server = [sys.executable, str(Path(__file__).with_name("slow_server.py")), str(folder)]
    server += ["--latency-ms", str(options.latency_ms), "--mb-per-s", str(options.mb_per_s)]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = f"http://127.0.0.1:{int((process.stdout or sys.stdin).readline())}"
            sources = {
                "latentset": f"{address}/store.zarr",
                "local": str(folder / "store.zarr"),
                "mds": "s3://formats/mds-compressed",
                "litdata": "s3://formats/litdata-compressed",
            }
            os.environ |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
            os.environ |= {"AWS_ENDPOINT_URL": address, "S3_ENDPOINT_URL": address}
            os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"}
            show(sources, options.folder, options.repeats)
        finally:
            process.kill()


def show(sources: dict[str, str], folder: Path, repeats: int) -> None:
    """Measure every source in turn, and print epochs and ratios."""
    runs: dict[str, list[list[tuple[float, int]]]] = {name: [] for name in NAMES}

    def first_epoch(name: str) -> float:
        arguments = str(folder), "--one", name, sources[name]
        found = measure.run_script(Path(sys.executable), Path(__file__), *arguments)
        runs[name].append(found)
        return float(found[0][0])

    seconds = measure.in_turn({n: partial(first_epoch, n) for n in NAMES}, repeats, "s, epoch 1")
    second = {
        name: measure.Series(
            f"{name}, epochs 2 and 3",
            tuple(
                sum(n for _, n in run[1:]) / sum(s for s, _ in run[1:]) for run in found[1:]
            ),  # the first warms up
            "samples/s",
        ).show()
        for name, found in runs.items()
    }
    measure.ratio(
        "epoch 2 and 3, from afar against local", second["latentset"], second["local"], 0.95
    )
    for other in ("mds", "litdata"):
        measure.ratio(
            f"time of epoch 1, {other} against ours", seconds[other], seconds["latentset"], 1
        )
        measure.ratio(f"epoch 2 and 3, ours against {other}", second["latentset"], second[other])


if __name__ == "__main__":
    main()
