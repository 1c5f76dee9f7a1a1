"""Pulling a store: its objects, each compared with the manifest as it comes, and the manifest last.

What is there with the right digest is not fetched again, so that the same command resumes. A note
in ``STORE.job/`` says of which manifest an incomplete store is, and nothing else is overwritten.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from latentset.datasets.errors import (
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreIncompleteError,
)
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.atomic import PARTIAL, try_lock
from latentset.datasets.storage.location import (
    Folder,
    Location,
    Web,
    open_location,
    read_if_there,
)
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.fetching import check_targets, fetch_objects
from latentset.datasets.store.findings import Report, silent
from latentset.datasets.store.formats import choose_format
from latentset.datasets.store.header import Frozen, Sha256
from latentset.datasets.store.manifest import MANIFEST, Manifest, is_card_file, parse_manifest
from latentset.datasets.store.mirror import StoreCache
from latentset.datasets.store.samples import OK
from latentset.datasets.store.target_checks import is_free, refuse_nested
from latentset.datasets.store.zarr.reader import (
    ZarrStore,
    manifest_problems,
    read_header,
    shard_paths,
)

NOTE = "pull.json"
"""Name of the note in ``STORE.job/``."""

_SHOWN = 10
"""Lines about single objects in a message."""


class PullNote(Frozen):
    """The note beside a store that is not complete."""

    source_manifest: Sha256


def pull(source: str | Path | Location, target: str | Path, report: Report = silent) -> Store:
    """Fetch a whole store into a folder, or what is missing there of it.

    ``report`` is called with bytes.

    Raises:
        StoreCorruptError: Objects are missing or damaged at the source; all others were fetched.
        StoreUnreachableError: The source cannot be read.
        StoreError: Something else is at the target, or it has no room.
    """
    location, folder = open_location(source), open_location(target)
    if not isinstance(folder, Folder):
        raise StoreError(f"{folder}: expected a folder to pull into")
    if isinstance(location, Folder):
        _refuse_file(location)
        if location.path == folder.path:
            raise StoreError(f"{folder} is the source itself: name another folder")
    if choose_format(folder, None) == "hdf5":
        raise StoreError(f"{folder}: a store of Zarr objects is pulled: name a folder, NAME.zarr")
    refuse_nested(folder)
    content, manifest = _read_manifest(location)
    _refuse_others(folder, content, manifest)
    check_targets(manifest.objects, folder.path)
    with _held(folder, PullNote(source_manifest=sha256_of(content)), content):
        problems = fetch_objects(location, manifest.objects, folder.path, report)
        if problems:
            raise _incomplete(location, folder, manifest, problems)
        folder.sweep()
        folder.write(MANIFEST, content)
        return open_store(folder)


def _refuse_file(location: Folder) -> None:
    if location.is_file():
        raise StoreFormatError(
            f"{location}: expected a store of Zarr objects; a store in HDF5 is one file, which is "
            f"copied as it is, or converted: latentset convert {location} STORE.zarr"
        )


def _read_manifest(location: Location) -> tuple[bytes, Manifest]:
    header = read_header(location)
    content = read_if_there(location, MANIFEST)
    if content is None:
        raise StoreIncompleteError(
            f"{location} is not complete: {MANIFEST} is missing. It is still being made or "
            f"published; whoever does so runs the same {header.command} or publish again"
        )
    manifest = parse_manifest(content, str(location))
    for problem in manifest_problems(header, manifest):  # before anything that it names is written
        raise StoreCorruptError(f"{location}: {problem}")
    return content, manifest


def _refuse_others(folder: Folder, content: bytes, manifest: Manifest) -> None:
    """Refuse a folder that holds another store, or what is no part of this one."""
    if folder.is_file():
        raise StoreError(f"{folder} is a file: name a folder to pull into")
    there = read_if_there(folder, MANIFEST)
    if there is not None and there != content:
        raise StoreError(
            f"{folder} holds another store, or another revision of this one: name another folder"
        )
    for path in sorted(folder.sizes().keys() - manifest.listed.keys() - {MANIFEST}):
        if PARTIAL not in path and not is_card_file(path):
            raise StoreError(
                f"{folder} holds {path}, which is no part of this store: name another folder"
            )


@contextmanager
def _held(folder: Folder, note: PullNote, manifest: bytes) -> Iterator[None]:
    """Leave the note beside the folder, or find it there; hold it; remove it at the end."""
    job, content = folder.beside(".job"), note.model_dump_json().encode() + b"\n"
    if job.size(NOTE) is None:
        others = sorted(path for path in job.sizes() if PARTIAL not in path)
        is_complete = read_if_there(folder, MANIFEST) == manifest
        if not is_complete and (others or not is_free(folder)):
            what = f"{job} holds {others[0]}" if others else f"{folder} is not empty"
            raise StoreError(
                f"{what}: nothing was changed there. A store is pulled into a new folder only, or "
                "into what the same pull started"
            )
        job.create(NOTE, content)
    path = job.path / NOTE
    with reading(path):
        file = path.open("r+b")  # NFS gives the lock only to those who may write
    with file:
        if not try_lock(file) or not path.exists():
            raise StoreError(f"another latentset pull is at work on {folder}: wait until it ends")
        if file.read() != content:
            raise StoreError(
                f"{folder} is what a pull of another store, or of another revision, started: pull "
                f"that one (@REVISION), or remove {folder} and {job}, or name another folder"
            )
        yield
        job.remove(NOTE)
        with suppress(OSError):  # not empty: not ours
            job.path.rmdir()


def _incomplete(
    location: Location, folder: Folder, manifest: Manifest, problems: Sequence[StoreCorruptError]
) -> StoreCorruptError:
    lines = [problem.what.removeprefix(f"{location}: ") for problem in problems]
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    advice = "Once the source was published again, the same command fetches the others"
    if isinstance(location, Web) and location.is_commit:
        advice = "This commit will not change: name another one, at which the store is sound"
    return StoreCorruptError(
        "\n".join([f"{folder} is not complete, as {location} is damaged:", *lines[:_SHOWN], *more]),
        f"{len(manifest.objects) - len(problems)} of {len(manifest.objects)} objects are here and "
        f"verified. {advice}",
    )


@dataclass(frozen=True)
class Selection:
    """Some samples of a store elsewhere, whose shards are in the cache."""

    store: Store
    samples: int
    shards: int
    """That hold them, of all."""
    bytes: int
    """Of these shards."""
    total_bytes: int
    """Of all shards."""


def pull_selection(
    source: str | Location,
    cache: StoreCache,
    *,
    splits: Sequence[str] = (),
    classes: Sequence[str] = (),
    report: Report = silent,
) -> Selection:
    """Fetch the shards of some splits and classes into the cache that ``open_store`` reads.

    They are no store of their own: a folder without all that the manifest lists would not be one.

    Raises:
        StoreError: There is no such split or class, or no room; or as ``pull``.
    """
    location = open_location(source)
    if isinstance(location, Folder):
        raise StoreError(
            f"{location}: splits and classes are pulled into the cache from a bucket or the web; "
            "a folder of this machine needs none: use it as it is"
        )
    store = open_store(location, cache=cache.folder, cache_bytes=cache.limit_bytes)
    if not isinstance(store, ZarrStore) or store.mirror is None:
        raise StoreFormatError(f"{location}: expected a store of Zarr objects")
    names, table = store.header.source.classes, store.samples
    _refuse_unknown(location, "split", splits, sorted(table["split"].unique().to_pylist()))
    _refuse_unknown(location, "class", classes, names)
    wanted = pc.equal(table["status"], OK).to_numpy()
    if splits:
        wanted &= np.isin(table["split"].to_numpy().astype(str), splits)
    if classes:
        wanted &= np.isin(table["label"].to_numpy(), [names.index(name) for name in classes])
    firsts = table["first_row"].to_numpy().astype(np.int64)
    arrays = store.header.arrays
    needed = shard_paths(store.header, arrays, firsts[wanted])
    listed = store.mirror.objects
    store.mirror.fetch(needed, report, verify=True)
    everything = [f"{name}/c/{k}/0" for name in arrays for k in range(store.header.layout.shards)]
    return Selection(
        store,
        samples=int(wanted.sum()),
        shards=len(needed) // len(arrays),
        bytes=sum(listed[path].bytes for path in needed),
        total_bytes=sum(listed[path].bytes for path in everything),
    )


def _refuse_unknown(
    location: Location, what: str, wanted: Sequence[str], known: Sequence[str]
) -> None:
    for name in wanted:
        if name not in known:
            found = ", ".join(known[:_SHOWN])
            raise StoreError(f"{location} has no {what} {name!r}; it has {found}")
