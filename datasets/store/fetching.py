"""Fetching objects of a store into a folder, each compared with its size and digest as it comes.

An object gets its name when it is whole and right, so that what has its name need not be fetched
again, and a fetch that was stopped at any moment resumes where it was.
"""

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from pathlib import Path

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.storage.access import changing, reading
from latentset.datasets.storage.atomic import atomic_file
from latentset.datasets.storage.location import Location
from latentset.datasets.storage.threads import check_stop, stoppable_threads
from latentset.datasets.store.digests import Digest, StoredObject, stream_object
from latentset.datasets.store.findings import Report, silent

FETCHERS = 8
"""Objects that are fetched at a time: enough for a line with 20 ms of latency, and polite."""


def fetch_object(
    source: Location,
    item: StoredObject,
    target: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Fetch an object into a file, unless the file is it already.

    ``advance`` is called with the bytes of each piece.

    Raises:
        StoreCorruptError: It is missing, or differs from its size or digest; nothing is kept.
        StoreUnreachableError: It cannot be read.
        StoreError: The file cannot be written.
    """
    if _is_there(target, item):
        advance(item.bytes)
        return
    digest = Digest()
    with changing("write", target), atomic_file(target) as partial, partial.open("wb") as file:
        for piece in stream_object(source, item):
            check_stop()
            file.write(piece)
            digest.update(piece)
            advance(len(piece))
        if digest.describe(item.path) != item:
            raise StoreCorruptError(f"{source}: {item.path} differs from its sha256")


def fetch_objects(
    source: Location,
    items: Iterable[StoredObject],
    folder: Path,
    report: Report = silent,
    workers: int = FETCHERS,
) -> list[StoreCorruptError]:
    """Fetch objects in parallel, as ``fetch_object``; return what is missing or damaged.

    ``report`` is called with bytes. What cannot be read at all, or not written, ends it.

    Raises:
        StoreUnreachableError: The source cannot be read.
        StoreError: An object would be outside of the folder, or the disk has no room.
    """
    items = list(items)
    targets = check_targets(items, folder)
    total, done, lock = sum(item.bytes for item in items), 0, threading.Lock()

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            report("fetching", min(done, total), total)

    problems = []
    with stoppable_threads(workers, "fetch", defer_ctrl_c=True) as pool:
        fetched = [
            pool.submit(fetch_object, source, item, target, advance)
            for item, target in zip(items, targets, strict=True)
        ]
        for future in as_completed(fetched):
            try:
                future.result()
            except StoreCorruptError as error:
                problems.append(error)
    return sorted(problems, key=str)


def check_targets(items: Sequence[StoredObject], folder: Path) -> list[Path]:
    """The files of objects; StoreError if one is outside of the folder, or the disk lacks room."""
    targets = [target_path(folder, item) for item in items]
    wanted = zip(items, targets, strict=True)
    check_room(folder, sum(item.bytes for item, target in wanted if not has_size(target, item)))
    return targets


def target_path(folder: Path, item: StoredObject) -> Path:
    """The file of an object; StoreError if a link on the way leads out of the folder."""
    target = folder / item.path
    with reading(target):
        parent = target.parent.resolve()
        if target.is_symlink() or parent != folder.resolve() / Path(item.path).parent:
            raise StoreError(
                f"{target} is not written: a symbolic link on the way leads to "
                f"{target.resolve()}. Remove the link, or name another folder"
            )
    return target


def has_size(target: Path, item: StoredObject) -> bool:
    """Whether a file of an object's size is there."""
    with reading(target):
        try:
            return target.is_file() and target.stat().st_size == item.bytes
        except FileNotFoundError:
            return False


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk of a folder, which need not exist."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    with reading(existing):
        return shutil.disk_usage(existing).free


def check_room(folder: Path, needed: int) -> None:
    """Raise a StoreError if the disk of a folder lacks room."""
    free = free_bytes(folder)
    if needed > free:
        raise StoreError(
            f"{folder}: expected room for {needed:,} bytes, got {free:,} bytes that are free. Make "
            "room, or name a folder on another disk"
        )


def _is_there(target: Path, item: StoredObject) -> bool:
    if not has_size(target, item):
        return False
    with reading(target), target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == item.sha256
