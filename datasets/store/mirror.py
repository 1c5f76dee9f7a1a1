"""A store elsewhere, read through a cache on this machine (docs/remote.md).

``CACHE/stores/DIGEST/`` holds objects of the store whose manifest has that SHA-256, each fetched
whole, and compared with the manifest, when it is first needed. So it is never a whole store by
itself: it has no manifest. Processes share it by the system's locks (``flock``), which end with
them: one on the objects that are being fetched, and on ``DIGEST.lock`` one for the store's use,
against which nobody evicts it.
"""

import asyncio
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.storage.access import READ_BYTES, changing
from latentset.datasets.storage.atomic import PARTIAL, lock, try_lock
from latentset.datasets.storage.folder import user_cache
from latentset.datasets.storage.location import Folder, Location
from latentset.datasets.storage.threads import LOOK_S, pause, stoppable_threads
from latentset.datasets.store.digests import StoredObject
from latentset.datasets.store.fetching import (
    FETCHERS,
    check_room,
    fetch_object,
    free_bytes,
    has_size,
    target_path,
)
from latentset.datasets.store.findings import Report, silent


def default_cache() -> Path:
    """``LATENTSET_CACHE``, or the user's cache folder of this package."""
    return Path(os.environ.get("LATENTSET_CACHE") or user_cache())


@dataclass(frozen=True)
class StoreCache:
    """Where objects of stores elsewhere are kept."""

    folder: Path
    limit_bytes: int | None = None
    """Of all stores together; None: what the disk has room for."""

    @property
    def stores(self) -> Folder:
        """The folder of the stores."""
        return Folder(self.folder.resolve() / "stores")


class Mirror:
    """The objects of one store in the cache, fetched when they are first needed.

    It is read as a location is. Threads and processes may share it.
    """

    def __init__(
        self,
        source: Location,
        manifest_sha256: str,
        objects: Mapping[str, StoredObject],
        cache: StoreCache,
    ) -> None:
        self.source = source
        self.folder = cache.stores / manifest_sha256
        self.objects = objects
        self._manifest_sha256, self._cache = manifest_sha256, cache
        self._present: set[str] = set()
        self._reserved: set[str] = set()

    def __str__(self) -> str:
        return str(self.source)

    @property
    def name(self) -> str:
        """Last part of the source."""
        return self.source.name

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it without what this machine has."""
        return Mirror, (self.source, self._manifest_sha256, self.objects, self._cache)

    def read(self, path: str, limit: int = READ_BYTES) -> bytes:
        """Read an object, fetched if need be."""
        self.fetch([path])
        return self.folder.read(path, limit)

    def read_part(self, path: str, first: int, size: int) -> bytes:
        """Read bytes of an object, as Folder does, fetched if need be."""
        self.fetch([path])
        return self.folder.read_part(path, first, size)

    def sizes(self) -> None:
        """Nothing is compared before it is needed."""

    def zarr_store(self) -> Any:
        """A store of zarr-python, for reading."""
        return _FetchingStore(self)

    def kvstore(self, path: str) -> dict[str, Any]:
        """TensorStore's specification of the objects below ``path`` that have been fetched."""
        return self.folder.kvstore(path)

    def _item(self, path: str) -> StoredObject:
        if path not in self.objects:
            raise StoreCorruptError(f"{self}: the manifest does not list {path}")
        return self.objects[path]

    def missing(self, paths: Iterable[str]) -> list[StoredObject]:
        """Those of some objects that have not been fetched."""
        items = [self._item(path) for path in paths]
        return [item for item in items if not has_size(self.folder.path / item.path, item)]

    def fetch(self, paths: Iterable[str], report: Report = silent, *, verify: bool = False) -> None:
        """Fetch what is not there of some objects, in parallel; raises as ``fetch_object``.

        With ``verify`` also what is there with another digest. ``report`` is called with bytes.
        """
        needed = [path for path in paths if verify or path not in self._present]
        if len(needed) == 1:
            self._fetch(needed[0], verify)
        elif needed:
            self.reserve(needed)
            done, total = 0, sum(self._item(path).bytes for path in needed)
            with stoppable_threads(FETCHERS, "fetch", defer_ctrl_c=True) as pool:
                fetched = {pool.submit(self._fetch, path, verify): path for path in needed}
                for future in as_completed(fetched):
                    future.result()
                    done += self.objects[fetched[future]].bytes
                    report("fetching", done, total)

    @contextmanager
    def fetch_ahead(self, paths: Sequence[str]) -> Iterator[None]:
        """Fetch objects, in this order, in the background, until the context ends.

        What fails here fails again, with its error, where the object is read.

        Raises:
            StoreError: There is no room for all of them.
        """
        self.reserve(paths)
        with stoppable_threads(FETCHERS, "fetch-ahead") as pool:
            for path in paths:
                if path not in self._present:
                    pool.submit(self._fetch, path)
            yield

    def _fetch(self, path: str, verify: bool = False) -> None:
        _use(os.getpid(), self.folder.path)
        item = self._item(path)
        target = target_path(self.folder.path, item)
        if verify or not has_size(target, item):
            with _locked(self._cache.stores.path / "locks" / item.sha256[:2]):
                if verify or not has_size(target, item):  # nobody else has fetched it
                    for partial in target.parent.glob(f".{target.name}{PARTIAL}*"):
                        partial.unlink(missing_ok=True)  # of a process that was killed
                    self.reserve([path])
                    fetch_object(self.source, item, target)
        self._present.add(path)

    def reserve(self, paths: Iterable[str]) -> None:
        """Make room for objects: evict other stores, the one first that was not used for longest.

        What was reserved before counts too, where it has not been fetched yet.

        Raises:
            StoreError: There is no room for all of them.
        """
        wanted = self._reserved.union(paths)
        if wanted == self._reserved:
            return
        missing = sum(item.bytes for item in self.missing(wanted))
        limit, stores = self._cache.limit_bytes, self._cache.stores
        if limit is not None and missing:
            kept = sum(self.folder.sizes().values())
            if kept + missing > limit:
                raise StoreError(
                    f"{self}: {kept + missing:,} bytes are needed in the cache {stores}, "
                    f"{limit:,} are allowed (--cache-bytes): allow more, or read fewer splits"
                )
            others = self._others()
            excess = kept + sum(size for _, size in others) + missing - limit
            for path, size in others:
                if excess > 0 and _evict(path):
                    excess -= size
            if excess > 0:
                raise StoreError(
                    f"{self}: {missing:,} bytes more are needed in the cache {stores}, "
                    f"{missing - excess:,} of the allowed {limit:,} (--cache-bytes) are free, and "
                    "the other stores in it are in use: allow more, or name another folder"
                )
        if missing > free_bytes(stores.path):
            for path, _ in self._others():
                if missing > free_bytes(stores.path):
                    _evict(path)
            check_room(stores.path, missing)
        self._reserved = wanted

    def _others(self) -> list[tuple[Path, int]]:
        """Other stores in the cache and their bytes, the one first that was not used longest."""
        used = {path.with_suffix(""): path for path in self._cache.stores.path.glob("*.lock")}
        found = []
        for folder in sorted(used, key=lambda folder: used[folder].stat().st_mtime):
            if folder != self.folder.path:
                with suppress(StoreError):  # another process is just removing it
                    found.append((folder, sum(Folder(folder).sizes().values())))
        return found


class _FetchingStore(LocalStore):
    """The folder of a mirror, for zarr-python."""

    def __init__(self, mirror: Mirror) -> None:
        super().__init__(mirror.folder.path, read_only=True)
        self._mirror = mirror

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read from an object, fetched if need be."""
        if key in self._mirror.objects:
            await asyncio.to_thread(self._mirror.fetch, [key])
        return await super().get(key, prototype, byte_range)


@cache
def _use(process: int, folder: Path) -> None:
    """Hold the lock of a store's use until the process ends; a child takes one of its own."""
    path = folder.with_name(folder.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), shared=True)
        os.utime(path)
    except OSError as error:
        raise StoreError(
            f"cannot write to the cache {path.parent}: {error.strerror}. Name another folder: "
            "--cache FOLDER, or LATENTSET_CACHE"
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with changing("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        while not try_lock(file):
            pause(LOOK_S)
        yield


def _evict(folder: Path) -> bool:
    """Remove a store from the cache, unless a process is using it."""
    try:
        with folder.with_name(folder.name + ".lock").open("ab") as file:
            if not try_lock(file):
                return False
            shutil.rmtree(folder)
    except OSError:  # another user's
        return False
    return True
