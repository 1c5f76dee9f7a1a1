"""An image within a tar file, read in place; nothing is unpacked."""

import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, NamedTuple

from latentset.datasets.errors import ImageError, SourceError
from latentset.datasets.sources.remote_image import RemoteImage
from latentset.datasets.storage.threads import check_stop

ENDING = ".tar"
"""Of tar files that are read: compressed ones have no offsets."""

Tar = Path | RemoteImage

_BLOCK = 512


class TarPart(NamedTuple):
    """Where a member lies in its tar file: bytes from ``start``, of which the first are headers."""

    start: int
    data: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of the member."""
        return self.end - self.data


@dataclass(frozen=True)
class TarMember:
    """A member of a tar file; what is not there is an ImageError."""

    tar: Tar
    name: str
    known: TarPart | None = None
    """Where it lies; None if the tar file is to be searched."""

    @cached_property
    def _part(self) -> TarPart:
        try:
            part = self.known or index_tar(self.tar)[self.name]
        except KeyError as error:
            raise ImageError("no such file", "missing") from error
        except SourceError as error:
            raise ImageError(f"{self.tar.name}: damaged", "unreadable") from error
        if part is None:
            raise ImageError("no such file", "missing")
        return part

    @property
    def size(self) -> int:
        """Bytes of the member."""
        return self._part.size

    def read(self, limit: int | None = None) -> bytes:
        """Read the member, or its first ``limit`` bytes; ImageError if another one lies there."""
        start, data, end = self._part
        if limit is not None:
            end = min(end, data + limit)
        content = _read_part(self.tar, start, end - start)
        if self.known is not None and not self._begins(content[: data - start]):
            raise ImageError(f"{self.tar.name} has changed since it was listed", "changed")
        if len(content) < end - start:
            raise ImageError(f"{self.tar.name} is cut off", "truncated")
        return content[data - start :]

    def _begins(self, headers: bytes) -> bool:
        """Whether these are the headers of this member."""
        try:
            with tarfile.open(fileobj=io.BytesIO(headers), mode="r:") as tar:
                found = tar.next()
        except tarfile.TarError:
            return False
        return found is not None and (_name(found), found.size) == (self.name, self.size)


class Listing(NamedTuple):
    """What is in a tar file."""

    parts: dict[str, TarPart | None]
    """Where each file lies, in the file's order; of one name the last. A hard link lies where its
    target does. None stands for what is no file: a link, a device."""
    linked: set[str]
    """Names that are hard links."""
    contents: dict[str, bytes]
    """Of the files that were wanted."""


_indexing = threading.Lock()


def index_tar(tar: Tar) -> dict[str, TarPart | None]:
    """``Listing.parts`` of a tar file, which is kept; raises as ``list_tar`` does."""
    if isinstance(tar, Path):
        found = tar.stat()
        version = f"{found.st_mtime_ns} {found.st_size}"
    else:
        version = tar.bucket.version(tar.path)
    with _indexing:  # once, for all threads
        return _index(tar, version)


@lru_cache(maxsize=16)
def _index(tar: Tar, version: str) -> dict[str, TarPart | None]:
    return list_tar(tar).parts


def list_tar(tar: Tar, wanted: Callable[[str, int], bool] = lambda name, size: False) -> Listing:
    """List a tar file in one pass, and read the files that ``wanted(name, size)`` picks.

    Raises:
        SourceError: No tar file, or one that is cut off or damaged, where tarfile would stop
            without a word.
        ImageError: There is none in object storage.
        StoreUnreachableError: Object storage does not answer.
    """
    found = Listing({}, set(), {})
    with _opened(tar) as (file, length):
        try:
            end = 0
            archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - holds nothing
            for member in archive:
                check_stop()
                end = member.offset_data + (member.size if member.isreg() else 0)
                if member.issparse():
                    end = archive.offset  # its size is that of the unpacked file
                if end > length:
                    raise SourceError(f"{tar}: cut off within {member.name!r}; fetch it again")
                name, part = _name(member), None
                found.linked.discard(name)
                found.contents.pop(name, None)
                if member.isreg() and not member.issparse():
                    part = TarPart(member.offset, member.offset_data, end)
                elif member.islnk():
                    part = found.parts.get(member.linkname.removeprefix("./"))
                    found.linked.add(name)
                if part is not None and wanted(name, part.size):
                    file.seek(part.data)
                    found.contents[name] = file.read(part.size)
                if not member.isdir():
                    found.parts[name] = part
            end = -(-end // _BLOCK) * _BLOCK
            file.seek(end)
            if any(file.read(_BLOCK)):
                raise SourceError(f"{tar}: damaged at byte {end:,}; fetch it again")
        except tarfile.TarError as error:
            raise SourceError(f"{tar}: cannot be read as a tar file: {error}") from error
    return found


@contextmanager
def _opened(tar: Tar) -> Iterator[tuple[IO[bytes], int]]:
    """A tar file for reading, and its length."""
    if isinstance(tar, RemoteImage):
        length = tar.size
        with tar.open() as file:
            yield file, length
        return
    try:
        with tar.open("rb") as file:
            yield file, tar.stat().st_size
    except OSError as error:
        raise SourceError(f"{tar}: cannot be read as a tar file: {error}") from error


def _read_part(tar: Tar, first: int, size: int) -> bytes:
    if isinstance(tar, RemoteImage):
        return tar.read_part(first, size)
    with tar.open("rb") as file:
        file.seek(first)
        return file.read(size)


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")


def split_path(path: str) -> tuple[str, str] | None:
    """Divide ``SHARD.tar/MEMBER``; None where it is no such path."""
    shard, found, member = path.partition(f"{ENDING}/")
    return (shard + ENDING, member) if found and member else None


def is_tar(path: Path) -> bool:
    """Whether there is a file of that ending, not hidden."""
    return path.name.endswith(ENDING) and path.name[0] != "." and path.is_file()
