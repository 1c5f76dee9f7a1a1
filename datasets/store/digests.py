"""The objects of a store, known by their digest."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.limits import Count
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.location import Location
from latentset.datasets.storage.threads import check_stop, stoppable_threads
from latentset.datasets.store.header import Frozen, Sha256


class StoredObject(Frozen):
    """One object of a store, as its manifest lists it."""

    path: str
    """Relative to the store, with ``/``."""
    bytes: Count
    sha256: Sha256


def sha256_of(content: bytes | memoryview) -> str:
    """SHA-256 of some bytes, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def describe_object(path: str, content: bytes) -> StoredObject:
    """The manifest's entry of an object with this content."""
    return StoredObject(path=path, bytes=len(content), sha256=sha256_of(content))


class Digest:
    """Size and digest of an object that comes in pieces."""

    def __init__(self) -> None:
        self._bytes = 0
        self._hash = hashlib.sha256()

    def update(self, piece: bytes) -> None:
        """Append a piece."""
        self._bytes += len(piece)
        self._hash.update(piece)

    def describe(self, path: str) -> StoredObject:
        """The manifest's entry of the object."""
        return StoredObject(path=path, bytes=self._bytes, sha256=self._hash.hexdigest())


def stream_object(store: Location, item: StoredObject) -> Iterator[bytes]:
    """Read an object in pieces, never more bytes than it is listed with.

    Raises:
        StoreCorruptError: It is missing, longer or shorter.
        StoreUnreachableError: It cannot be read.
    """
    size = 0
    with reading(f"{store}/{item.path}"):
        try:
            for piece in store.stream(item.path):
                size += len(piece)
                if size > item.bytes:
                    break
                yield piece
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreCorruptError(f"{store}: {item.path} is missing") from error
    if size != item.bytes:
        found = "more" if size > item.bytes else f"{size} bytes"
        raise StoreCorruptError(f"{store}: {item.path}: expected {item.bytes} bytes, got {found}")


def read_object(store: Location, item: StoredObject) -> bytes | None:
    """Read an object; None if it is missing or differs from its description."""
    try:
        if store.size(item.path) != item.bytes:
            return None
        content = store.read(item.path)
    except OSError:
        return None
    return content if sha256_of(content) == item.sha256 else None


def are_unaltered(store: Location, items: Iterable[StoredObject]) -> bool:
    """Whether every object is there, as described, byte for byte."""
    return all(read_object(store, item) is not None for item in items)


class BackgroundCheck:
    """Objects that threads compare with their digests while others use them."""

    def __init__(self, checks: Sequence[Future[None]] = ()) -> None:
        self._checks = checks
        self._done = 0

    def look(self) -> None:
        """Raise the error of an object that was found altered, missing or unreadable so far."""
        while self._done < len(self._checks) and self._checks[self._done].done():
            self._checks[self._done].result()
            self._done += 1

    def wait(self) -> None:
        """Wait until all objects are compared; raises as ``look``."""
        for check in self._checks[self._done :]:
            check.result()
        self._done = len(self._checks)


@contextmanager
def check_in_background(checks: Iterable[Callable[[], None]]) -> Iterator[BackgroundCheck]:
    """Run checks in a thread until the block ends, the first ones first."""
    with stoppable_threads(1, "latentset-digests") as threads:
        yield BackgroundCheck([threads.submit(check) for check in checks])


def check_object(store: Location, item: StoredObject, sound: set[str]) -> None:
    """Compare an object with its digest, in the background; add its path to ``sound``."""
    digest = Digest()
    for piece in stream_object(store, item):
        check_stop()
        digest.update(piece)
    if digest.describe(item.path) != item:
        raise StoreCorruptError(
            f"{store}: {item.path} differs from its sha256 in the manifest: it is another "
            "shard, or was altered"
        )
    sound.add(item.path)
