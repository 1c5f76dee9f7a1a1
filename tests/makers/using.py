"""What commands do with a store, without a terminal."""

from pathlib import Path

from latentset.datasets.errors import LatentSetError
from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.findings import silent
from latentset.datasets.store.statistics import measure_channels
from latentset.datasets.store.summary import failed_lines, make_table, summarise
from latentset.datasets.store.verify import verify


def use(store: Path, scratch: Path) -> str:
    """Do with a store what all commands do; what the first of them said, or ``sound``."""
    outcomes = []
    for command in (inspect, check, read, copy):
        try:
            outcomes.append(command(store, scratch))
        except LatentSetError as error:
            outcomes.append(type(error).__name__)
    return outcomes[0]


def inspect(store: Path, scratch: Path) -> str:
    opened = open_store(store)
    make_table("store", summarise(opened))
    failed_lines(opened, 5)
    return "opened"


def check(store: Path, scratch: Path) -> str:
    findings = verify(store)
    findings.histogram()
    return findings.outcome


def read(store: Path, scratch: Path) -> str:
    opened = open_store(store)
    opened.read(opened.indices()[:50])
    name = opened.header.arrays[0]
    if name in ("y_hat", "pixels"):
        measure_channels(opened, name, silent)
    return "read"


def copy(store: Path, scratch: Path) -> str:
    convert(open_store(store), Folder(scratch / "copy.h5"), "hdf5")
    convert(open_store(store), Folder(scratch / "copy.zarr"), "zarr", shard_bytes=1 << 20)
    return "converted"
