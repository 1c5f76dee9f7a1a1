"""How the training reader compares with other libraries' formats for the same latents.

    python benchmarks/reader_formats.py FOLDER [--repeats 5] [--only NAME ...]

FOLDER is what make_store.py made; ``FOLDER/formats`` gets the same latents in each format, once.
Claim: the training reader is ahead of WebDataset, MosaicML MDS, LitData and Hugging Face datasets,
each in its compressed form; uncompressed forms and bytes on disk are shown beside. Each is set up
as its documentation advises (latent_formats.py), shuffled, batches of 64, two workers.

Run it in the bench environment. Every library has a process of its own, which may use all cores
and is idle while others are measured.
"""

import argparse
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import latent_formats
import measure
import numpy as np

from latentset.datasets.store import open_store


def write_plain(store_path: Path, folder: Path) -> None:
    """Put the store's samples down as plain arrays, channel by channel, for the writers."""
    if (folder / "label.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    store = open_store(store_path)
    table = store.samples
    shape = (table.num_rows, store.header.content.channels, 16, 16)
    for name in ("y_hat", "scale_index"):
        rows = np.asarray(store.array(name)[:])
        first = table["first_row"].to_numpy()
        grids = rows[first[:, None] + np.arange(256)]  # (N, 256, C)
        np.save(folder / f"{name}.npy", np.ascontiguousarray(grids.swapaxes(1, 2)).reshape(shape))
    np.save(folder / "label.npy", table["label"].to_numpy())


def disk_bytes(folder: Path) -> int:
    """Sum of the sizes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="made by make_store.py")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement, at least")
    parser.add_argument("--only", nargs="*", default=latent_formats.FORMATS[1:])
    options = parser.parse_args()
    measure.describe_machine()
    store, formats = options.folder / "store.zarr", options.folder / "formats"
    write_plain(store, formats / "plain")
    samples = open_store(store).samples.num_rows
    cores = [measure.cores()]
    variants = {(name, compressed) for name in options.only for compressed in (True, False)}
    titles = {("latentset", True): f"latentset, {store.name}"}
    folders = {("latentset", True): store}
    for name, compressed in sorted(variants):
        folder = formats / f"{name}{'-compressed' if compressed else ''}"
        titles[name, compressed] = f"{name}, {'compressed' if compressed else 'uncompressed'}"
        folders[name, compressed] = folder
        arguments = name, compressed, str(formats / "plain"), str(folder)
        with measure.Workers(latent_formats.write, *arguments, cores=cores):
            pass
    print("bytes a sample on disk")
    for key, folder in folders.items():
        size = disk_bytes(folder)
        if key == ("latentset", True):  # z_hat is not among what the others hold
            size -= disk_bytes(folder / "z_hat")
        print(f"  {titles[key]:40s} {size / samples:10,.0f}")
    with ExitStack() as stack:
        works = {}
        for key, folder in folders.items():
            workers = measure.Workers(latent_formats.read, *key, str(folder), cores=cores)
            rate = stack.enter_context(workers).rate
            works[titles[key]] = partial(rate, "epoch", options.seconds)
        found = measure.in_turn(works, options.repeats, "samples/s")
    ours = found[titles["latentset", True]]
    for key in sorted(variants, key=lambda key: (not key[1], key[0])):
        bar = 1.0 if key[1] else None
        measure.ratio(f"latentset against {titles[key]}", ours, found[titles[key]], bar)


if __name__ == "__main__":
    main()
