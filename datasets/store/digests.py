"""The objects of a store, known by their digest."""

import hashlib
from collections.abc import Iterable

from pydantic import NonNegativeInt

from latentset.datasets.storage.location import Location
from latentset.datasets.store.header import Frozen, Sha256


class StoredObject(Frozen):
    """One object of a store, as its manifest lists it."""

    path: str
    """Relative to the store, with ``/``."""
    bytes: NonNegativeInt
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
