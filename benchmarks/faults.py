"""Damage a store at random and see who notices: `latentset verify`, and the training reader.

    python benchmarks/faults.py [--flips N] [--truncations N] [--deletions N] [--exchanges N]
                                [--stale N] [--seed N]

Flips one bit of one byte, or cuts an object off, or deletes it; each time one fault in an otherwise
sound store, over all objects, of both formats. Flips fall on objects by their size, and on small
ones as often: half of them choose the object first. After each fault the store is verified, and
read whole by the training reader (y_hat and scale_index of all samples), whose every value is
compared with the undamaged store's. Counted are faults that verify did not find, and faults after
which the reader gave other values than before without an error.

A store of Zarr has many objects, so a deletion is of any of them; HDF5's one file is deleted whole.

Two more faults are of whole objects, and of Zarr only: two shards of one array and of one size
change places, and a shard is replaced by one of an earlier store that has its name and size, as
copying by size alone would do. Such an object agrees with its own checksums: only its digest shows
it, which verify compares, and training in the background before it saves anything.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentset.datasets.errors import LatentSetError
from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.verify import verify
from latentset.train.data.batches import LatentReader
from latentset.train.data.split import select_split

sys.path.append(str(Path(__file__).parents[1]))
from tests.makers.synthetic import write_synthetic_store

Fault = Callable[[Path, np.random.Generator], str]


def silence(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def flip(path: Path, random: np.random.Generator) -> str:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    location, bit = int(random.integers(len(content))), int(random.integers(8))
    content[location] ^= 1 << bit
    path.write_bytes(bytes(content))
    return f"bit {bit} of byte {location} of {len(content)}"


def truncate(path: Path, random: np.random.Generator) -> str:
    """Cut a file off at a random length."""
    size = path.stat().st_size
    length = int(random.integers(size))
    with path.open("r+b") as file:
        file.truncate(length)
    return f"cut off at {length} of {size}"


def delete(path: Path, random: np.random.Generator) -> str:
    """Delete a file."""
    path.unlink()
    return "deleted"


def shards(store: Path) -> list[Path]:
    """The shards that training reads; none in HDF5, where they are no files."""
    return sorted(path for name in ("y_hat", "scale_index") for path in store.glob(f"{name}/c/*/0"))


def twins(path: Path) -> list[Path]:
    """The shards of the same array that have the same size and another content."""
    content = path.read_bytes()
    return [
        other
        for other in sorted(path.parents[1].glob("*/0"))
        if other.stat().st_size == len(content) and other.read_bytes() != content
    ]


def with_twins(store: Path) -> list[Path]:
    """The shards that can change places with another one."""
    return [path for path in shards(store) if twins(path)]


def exchange(path: Path, random: np.random.Generator) -> str:
    """Let two shards change places."""
    others = twins(path)
    other = others[int(random.integers(len(others)))]
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)
    return f"exchanged with {other.relative_to(path.parents[2])}"


@dataclass(frozen=True)
class Stale:
    """Replaces a shard by one of an earlier store."""

    earlier: list[Path]
    """Stores of the same layout."""

    def candidates(self, path: Path) -> list[Path]:
        """Shards of the same name and size, and of another content."""
        content, name = path.read_bytes(), path.relative_to(path.parents[3])
        return [
            store / name
            for store in self.earlier
            if (store / name).stat().st_size == len(content)
            and (store / name).read_bytes() != content
        ]

    def among(self, store: Path) -> list[Path]:
        """The shards that have such a copy."""
        return [path for path in shards(store) if self.candidates(path)]

    def __call__(self, path: Path, random: np.random.Generator) -> str:
        """Put a copy in place of a shard."""
        found = self.candidates(path)
        chosen = found[int(random.integers(len(found)))]
        path.write_bytes(chosen.read_bytes())
        return f"of {chosen.parents[3].name}"


def files(store: Path) -> list[Path]:
    """All objects of a store."""
    if store.is_file():
        return [store]
    return sorted(path for path in store.rglob("*") if path.is_file())


def choose(objects: list[Path], random: np.random.Generator) -> Path:
    """Choose an object, by its size as often as by its name."""
    weight = np.array([path.stat().st_size for path in objects], np.float64)
    if random.random() < 0.5:
        weight[:] = 1
    return objects[int(random.choice(len(objects), p=weight / weight.sum()))]


@contextmanager
def restored(store: Path) -> Iterator[None]:
    """Give all files their content back afterwards."""
    contents = {path: path.read_bytes() for path in files(store)}
    try:
        yield
    finally:
        for path, content in contents.items():
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)


def read_all(store: Path) -> Iterator[tuple[list[int], dict[str, bytes]]]:
    """Read a store as training does: samples and their values, batch by batch."""
    opened = open_store(store)
    for name in ("train", "val"):
        split = select_split(opened, name)
        reader = LatentReader(opened, split, batch_size=8, check_shards=True)
        for batch in reader.batches(0):
            values = {key: rows.numpy().tobytes() for key, rows in batch.rows.items()}
            values["labels"] = batch.labels.numpy().tobytes()
            values["windows"] = batch.windows.numpy().tobytes()
            yield batch.samples.tolist(), values


def is_read_silently(store: Path, expected: list[tuple[list[int], dict[str, bytes]]]) -> bool:
    """Whether the reader gives something else than before, and no error by its end."""
    try:
        return list(read_all(store)) != expected
    except LatentSetError:
        return False


def inject(
    store: Path,
    fault: Fault,
    count: int,
    seed: int,
    among: Callable[[Path], list[Path]] = files,
) -> Counter[str]:
    """Make faults one after the other, each in a sound store.

    Args:
        store: The store; it is sound again afterwards.
        fault: What to do to an object.
        count: How many times.
        seed: Of objects and locations.
        among: Gives the objects that it can be done to.

    Returns:
        Counts: ``made``, ``missed by verify``, ``read silently``, ``crashed`` (an error that is
        not LatentSet's own), and ``refused at opening``.
    """
    random = np.random.default_rng(seed)
    expected = list(read_all(store))
    counts: Counter[str] = Counter(made=0)
    for _ in range(count):
        path = choose(among(store), random)
        with restored(store):
            what = f"{path.relative_to(store.parent)}: {fault(path, random)}"
            counts["made"] += 1
            try:
                if verify(store, silence).outcome == "sound":
                    counts["missed by verify"] += 1
                    print(f"  missed by verify: {what}")
                if is_read_silently(store, expected):
                    counts["read silently"] += 1
                    print(f"  read silently: {what}")
                open_store(store)
            except LatentSetError:
                counts["refused at opening"] += 1
            except Exception as error:
                counts["crashed"] += 1
                print(f"  crashed: {what}: {type(error).__name__}: {error}")
    return counts


def write_small_store(path: Path, seed: int) -> Path:
    """Write a store of some 30 small shards."""
    return write_synthetic_store(
        path,
        samples=24,
        sizes=((64, 64), (100, 50)),
        failed=(5,),
        shard_bytes=1 << 11,
        seed=seed,
    )


def main() -> None:
    """Make faults and print counts; exit status 1 if one was missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--truncations", type=int, default=100)
    parser.add_argument("--deletions", type=int, default=100)
    parser.add_argument("--exchanges", type=int, default=100)
    parser.add_argument("--stale", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        zarr = write_small_store(Path(folder) / "store.zarr", 0)
        stale = Stale([write_small_store(Path(folder) / f"{k}.zarr", k) for k in range(1, 9)])
        hdf5 = zarr.with_suffix(".h5")
        convert(open_store(zarr), Folder(hdf5), "hdf5", silence)
        shutil.rmtree(zarr.with_name("store.h5.job"), ignore_errors=True)
        for store in (zarr, hdf5):
            print(f"{store.name}: {len(files(store))} objects")
            kinds: list[tuple[str, Fault, int, Callable[[Path], list[Path]]]] = [
                ("flips", flip, options.flips, files),
                ("truncations", truncate, options.truncations, files),
                ("deletions", delete, options.deletions, files),
            ]
            if store == zarr:
                kinds.append(("exchanges", exchange, options.exchanges, with_twins))
                kinds.append(("stale", stale, options.stale, stale.among))
            for name, fault, count, among in kinds:
                counts = inject(store, fault, count, options.seed, among)
                missed += counts["missed by verify"] + counts["crashed"] + counts["read silently"]
                print(
                    f"  {counts['made']:5d} {name:12s} missed by verify "
                    f"{counts['missed by verify']}, read silently {counts['read silently']}, "
                    f"other errors {counts['crashed']} (refused at opening "
                    f"{counts['refused at opening']})",
                    flush=True,
                )
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
