"""A folder of a file system as a location for objects (location.py)."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import platformdirs

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.storage.access import READ_BYTES, changing, reading
from latentset.datasets.storage.atomic import PARTIAL, create_atomically, write_atomically

_PIECE_BYTES = 1 << 20


class NotRegularError(OSError):
    """A link, a FIFO, a device: nothing that holds an object."""


@dataclass(frozen=True)
class Folder:
    """A folder of a file system that is this machine's or is mounted."""

    path: Path
    """The folder, absolute and without symbolic links; it need not exist."""

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Last part of the location."""
        return self.path.name

    def __truediv__(self, name: str) -> "Folder":
        """The location below that is called ``name``."""
        return Folder(self.path / name)

    def beside(self, suffix: str) -> "Folder":
        """The location of the same parent that is called like this one with ``suffix`` appended."""
        return Folder(self.path.with_name(self.path.name + suffix))

    def read(self, path: str, limit: int = READ_BYTES) -> bytes:
        """Read an object of at most ``limit`` bytes.

        FileNotFoundError where there is none, StoreCorruptError where it is larger, OSError on
        trouble, and where it is a link, a device or anything else that is no regular file.
        """
        with _open_regular(self.path / path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise StoreCorruptError(
                    f"{self}/{path}: expected at most {limit:,} bytes, got {size:,}"
                )
            return file.read()

    def stream(self, path: str) -> Iterator[bytes]:
        """Read an object in pieces; raises as ``read`` does, before the first or between two."""
        with _open_regular(self.path / path) as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def read_part(self, path: str, first: int, size: int) -> bytes:
        """Read bytes of an object from ``first`` on, fewer at its end; OSError on trouble."""
        with _open_regular(self.path / path) as file:
            return os.pread(file.fileno(), size, first)

    def write(self, path: str, content: bytes) -> None:
        """Write an object, in place of an earlier one; StoreError where that fails."""
        target = self.path / path
        with changing("write", target):
            write_atomically(target, content)

    def create(self, path: str, content: bytes) -> bool:
        """Write an object unless there is one (False), in one step; StoreError on trouble."""
        target = self.path / path
        with changing("write", target):
            return create_atomically(target, content)

    def remove(self, path: str) -> None:
        """Remove an object, if it is there; StoreError where that fails."""
        target = self.path / path
        with changing("remove", target):
            target.unlink(missing_ok=True)

    def size(self, path: str) -> int | None:
        """Bytes of an object; None if there is none, StoreUnreachableError on trouble."""
        target = self.path / path
        with reading(target):
            try:
                return target.stat().st_size if target.is_file() else None
            except FileNotFoundError:
                return None

    def digest(self, path: str) -> str | None:
        """SHA-256 of an object, if that is known; StoreUnreachableError on trouble."""
        target = self.path / path
        with reading(target), _open_regular(target) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def sizes(self) -> dict[str, int]:
        """Bytes of every object, by path, -1 for links and other than regular files.

        StoreUnreachableError on trouble.
        """
        with reading(self.path):
            return dict(_list(str(self.path), "")) if self.path.is_dir() else {}

    def is_file(self) -> bool:
        """Whether it is a file, as a store in HDF5 is; StoreUnreachableError on trouble."""
        with reading(self.path):
            return self.path.is_file()

    def sweep(self) -> None:
        """Remove what writers that were killed left behind."""
        for path in self.path.rglob(f".*{PARTIAL}*"):
            with changing("remove", path):
                path.unlink(missing_ok=True)

    def zarr_store(self) -> Any:
        """A store of zarr-python, for reading."""
        from zarr.storage import LocalStore

        return LocalStore(self.path, read_only=True)

    def kvstore(self, path: str) -> dict[str, Any]:
        """TensorStore's specification of the objects below ``path``."""
        return {"driver": "file", "path": f"{(self.path / path).resolve()}/"}


def is_left_by_system(path: str) -> bool:
    """Whether an operating system left a file of this name: Finder, Windows, NFS."""
    name = path.rpartition("/")[2]
    return name in (".DS_Store", "Thumbs.db", "desktop.ini") or name.startswith(("._", ".nfs"))


def _list(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    """List files below a folder; Path.rglob takes five times as long."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _list(entry.path, f"{prefix}{entry.name}/")
            else:
                with suppress(FileNotFoundError):  # others may be writing here
                    found = entry.stat(follow_symlinks=False)
                    is_regular = stat.S_ISREG(found.st_mode)
                    yield prefix + entry.name, found.st_size if is_regular else -1


def _open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; nothing else, which might block, or be elsewhere by a link."""
    # Without O_NONBLOCK, opening a FIFO waits for a writer.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            text = "it is a link, which is not followed"
            raise NotRegularError(errno.ELOOP, text, str(path)) from error
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise NotRegularError(errno.EINVAL, "it is no regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def user_cache() -> Path:
    """The user's cache folder of this package; StoreError for a user without a home."""
    try:
        folder = Path(platformdirs.user_cache_dir("latentset"))
    except (RuntimeError, KeyError, OSError):
        folder = Path("~")
    if not folder.is_absolute():
        raise StoreError(
            "there is no folder for the cache: this user has no home. Name one with --cache, or "
            "for all commands with the environment variable LATENTSET_CACHE"
        )
    return folder
