"""An image within a tar file, read in place; nothing is unpacked."""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, NamedTuple

from latentset.datasets.errors import ImageError, SourceError
from latentset.datasets.sources.remote_image import RemoteImage

ENDING = ".tar"
"""Of tar files that are read: compressed ones have no offsets."""

Tar = Path | RemoteImage

_BLOCK = 512


class Part(NamedTuple):
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
    known: Part | None = None
    """Where it lies; None if the tar file is to be searched."""

    @cached_property
    def _part(self) -> Part:
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
        headers = io.BytesIO(content[: data - start])
        if self.known is not None:
            try:
                with tarfile.open(fileobj=headers, mode="r:") as tar:
                    found = tar.next()
            except tarfile.TarError:
                found = None
            if found is None or _name(found) != self.name or found.size != self.size:
                raise ImageError(f"{self.tar.name} has changed since it was listed", "changed")
        return content[data - start :]


def index_tar(tar: Tar) -> dict[str, Part | None]:
    """Where each file in a tar file lies, in its order; of one name the last.

    A hard link is what it links to. None stands for what is no file: a link, a device.

    Raises:
        SourceError: No tar file, or one that is cut off or damaged, where tarfile would stop
            without a word.
        OSError: It cannot be opened.
        ImageError: There is none in object storage.
        StoreUnreachableError: Object storage does not answer.
    """
    if isinstance(tar, Path):
        found = tar.stat()
        return _index(tar, found.st_mtime_ns, found.st_size)
    return _index(tar, 0, tar.size)


@lru_cache(maxsize=16)
def _index(tar: Tar, changed_ns: int, length: int) -> dict[str, Part | None]:
    return list_tar(tar)[0]


def list_tar(
    tar: Tar, wanted: Callable[[str, int], bool] = lambda name, size: False
) -> tuple[dict[str, Part | None], dict[str, bytes]]:
    """Index a tar file in one pass, and read the members that ``wanted(name, size)`` picks.

    Raises as ``index_tar`` does.
    """
    parts: dict[str, Part | None] = {}
    contents: dict[str, bytes] = {}
    with _opened(tar) as (file, length):
        try:
            end = 0
            for member in tarfile.open(fileobj=file, mode="r:"):  # noqa: SIM115 - holds nothing
                end = member.offset_data + (member.size if member.isreg() else 0)
                if end > length:
                    raise SourceError(f"{tar}: cut off within {member.name!r}; fetch it again")
                name, part = _name(member), None
                if member.isreg() and not member.issparse():
                    part = Part(member.offset, member.offset_data, end)
                    if wanted(name, part.size):
                        file.seek(part.data)
                        contents[name] = file.read(part.size)
                elif member.islnk():
                    part = parts.get(member.linkname.removeprefix("./"))
                if not member.isdir():
                    parts[name] = part
            end = -(-end // _BLOCK) * _BLOCK
            file.seek(end)
            if any(file.read(_BLOCK)):
                raise SourceError(f"{tar}: damaged at byte {end:,}; fetch it again")
        except tarfile.TarError as error:
            raise SourceError(f"{tar}: cannot be read as a tar file: {error}") from error
    return parts, contents


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
    """Whether there is a file of that ending."""
    return path.name.endswith(ENDING) and path.is_file()
