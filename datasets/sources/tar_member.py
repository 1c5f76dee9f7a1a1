"""An image within a tar file, read in place by its offset; nothing is unpacked."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from latentset.datasets.errors import ImageError, SourceError

ENDING = ".tar"
"""Of tar files that are read: compressed ones have no offsets."""

_BLOCK = 512


@dataclass(frozen=True)
class TarMember:
    """A member of a tar file; what is not there is an ImageError."""

    tar: Path
    name: str

    @cached_property
    def _entry(self) -> tuple[int, int]:
        try:
            entry = index_tar(self.tar)[self.name]
            if entry[0] < 0:
                raise KeyError(self.name)
            return entry
        except KeyError as error:
            raise ImageError("no such file", "missing") from error
        except SourceError as error:
            raise ImageError(f"{self.tar.name}: damaged", "unreadable") from error

    @property
    def size(self) -> int:
        """Bytes of the member."""
        return self._entry[1]

    def read(self, limit: int | None = None) -> bytes:
        """Read the member, or its first ``limit`` bytes."""
        offset, size = self._entry
        with self.tar.open("rb") as file:
            file.seek(offset)
            return file.read(size if limit is None else min(size, limit))


def index_tar(tar: Path) -> dict[str, tuple[int, int]]:
    """Offset and size of each file in a tar file, in its order; of one name the last.

    A hard link is what it links to. The offset of what is no file, a link or a device, is -1.

    Raises:
        SourceError: No tar file, or one that is cut off or damaged, where tarfile would stop
            without a word.
        OSError: It cannot be opened.
    """
    found = tar.stat()
    return _index(tar, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=16)
def _index(tar: Path, changed_ns: int, length: int) -> dict[str, tuple[int, int]]:
    return {name: (offset, size) for name, offset, size in _members(tar)}


def _members(tar: Path) -> Iterator[tuple[str, int, int]]:
    try:
        length = tar.stat().st_size
        with tarfile.open(tar, "r:") as file:
            end = 0
            files: dict[str, tuple[int, int]] = {}
            for member in file:
                end = member.offset_data + (member.size if member.isreg() else 0)
                if end > length:
                    raise SourceError(f"{tar}: cut off within {member.name!r}; fetch it again")
                name = member.name.removeprefix("./")
                if member.isreg() and not member.issparse():
                    files[name] = member.offset_data, member.size
                if member.islnk():
                    yield name, *files.get(member.linkname.removeprefix("./"), (-1, 0))
                elif not member.isdir():
                    yield name, *files.get(name, (-1, 0))
            end = -(-end // _BLOCK) * _BLOCK
        with tar.open("rb") as raw:
            raw.seek(end)
            if any(raw.read(_BLOCK)):
                raise SourceError(f"{tar}: damaged at byte {end:,}; fetch it again")
    except (tarfile.TarError, OSError) as error:
        raise SourceError(f"{tar}: cannot be read as a tar file: {error}") from error


def split_path(path: str) -> tuple[str, str] | None:
    """Divide ``SHARD.tar/MEMBER``; None where it is no such path."""
    shard, found, member = path.partition(f"{ENDING}/")
    return (shard + ENDING, member) if found and member else None


def is_tar(path: Path) -> bool:
    """Whether there is a file of that ending."""
    return path.name.endswith(ENDING) and path.is_file()
