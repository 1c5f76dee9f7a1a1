"""A folder or a bucket to which a store is published."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.storage.location import Bucket, Folder, read_if_there
from latentset.datasets.store.digests import StoredObject, sha256_of
from latentset.datasets.store.findings import Report

_WORKERS = 4
"""Objects that are written at a time; each is in memory."""


@dataclass(frozen=True)
class LocationTarget:
    """Objects are known by their size and digest: in a bucket, that in their metadata."""

    location: Folder | Bucket

    def __str__(self) -> str:
        return str(self.location)

    @property
    def address(self) -> str:
        """From where the store is pulled."""
        return str(self.location)

    def sizes(self) -> dict[str, int]:
        """Bytes of everything that is there, by path."""
        return self.location.sizes() or {}

    def missing(
        self, source: Folder, items: Sequence[StoredObject], report: Report
    ) -> Iterator[StoredObject]:
        """Objects that are not there with this content."""
        there, done = self.sizes(), 0
        candidates = [item for item in items if there.get(item.path) == item.bytes]
        total = sum(item.bytes for item in candidates)
        found = set()
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="compare") as threads:
            digests = threads.map(lambda item: self.location.digest(item.path), candidates)
            for item, digest in zip(candidates, digests, strict=True):
                done += item.bytes
                report("comparing", done, total)
                if digest == item.sha256:
                    found.add(item.path)
        return (item for item in items if item.path not in found)

    def prepare(self) -> None:
        """Remove what a killed writer left."""
        self.location.sweep()

    def put(
        self, source: Folder, items: Iterable[StoredObject], advance: Callable[[int], None]
    ) -> None:
        """Write objects; each is there whole or not at all."""
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="publish") as threads:
            pending = [threads.submit(self._put, source, item) for item in items]
            try:
                for done in as_completed(pending):
                    advance(done.result())
            finally:
                for future in pending:
                    future.cancel()

    def _put(self, source: Folder, item: StoredObject) -> int:
        self.location.write(item.path, read_unaltered(source, item))
        return item.bytes

    def read(self, path: str) -> bytes:
        """Read an object that is there."""
        return read_if_there(self.location, path) or b""

    def remove(self, paths: Sequence[str]) -> None:
        """Remove objects."""
        for path in paths:
            self.location.remove(path)

    def removal(self, path: str) -> str:
        """The command that removes an object."""
        match self.location:
            case Folder():
                return f"rm {self.location}/{path}"
            case Bucket(protocol="s3" | "s3a"):
                return f"aws s3 rm {self.location}/{path}"
            case _:
                return f"gcloud storage rm {self.location}/{path}"


def read_unaltered(source: Folder, item: StoredObject) -> bytes:
    """Read an object of the store; StoreCorruptError unless its digest is the manifest's."""
    content = read_if_there(source, item.path, item.bytes)
    if content is None or sha256_of(content) != item.sha256:
        raise altered(source, item)
    return content


def altered(source: Folder, item: StoredObject) -> StoreCorruptError:
    """The error of an object that differs from the manifest."""
    return StoreCorruptError(
        f"{source}: {item.path} is missing or was altered after the manifest was written, and was "
        "not published"
    )
