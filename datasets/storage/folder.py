"""A folder of a file system as a location for objects (locations.py)."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentset.datasets.errors import StoreError, StoreUnreachableError

PARTIAL = ".partial-"
"""Part of the name of a file that is being written; nothing of that name belongs to a store."""


@dataclass(frozen=True)
class Folder:
    """A folder of a file system that is this machine's or is mounted."""

    path: Path
    """The folder, absolute and without symbolic links; it need not exist."""

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.name

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.path / name)

    def beside(self, suffix: str) -> "Folder":
        """The folder beside this one that has ``suffix`` appended to its name."""
        return Folder(self.path.with_name(self.path.name + suffix))

    def read(self, path: str) -> bytes:
        """Read a file."""
        return (self.path / path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        """Write a file so that after a crash it is there whole, or not at all, or as it was.

        The bytes go to another name in the same folder, are flushed to the device, and the file is
        renamed; the folder is flushed too, so that the name survives.
        """
        with self._written(path, content) as partial:
            partial.replace(self.path / path)

    def create(self, path: str, content: bytes) -> bool:
        """Write a file unless there is one; the link that names it is made whole or not at all."""
        with self._written(path, content) as partial:
            try:
                (self.path / path).hardlink_to(partial)
            except FileExistsError:
                return False
            finally:
                partial.unlink()
        return True

    @contextmanager
    def _written(self, path: str, content: bytes) -> Iterator[Path]:
        """Write under another name, let the caller name it, flush the folder."""
        target = self.path / path
        partial = target.with_name(f".{target.name}{PARTIAL}{secrets.token_hex(6)}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield partial
            flush_folder(target.parent)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise cannot("write", target, error) from error

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        target = self.path / path
        try:
            target.unlink(missing_ok=True)
        except OSError as error:
            raise cannot("remove", target, error) from error

    def size(self, path: str) -> int | None:
        """Size of a file."""
        target = self.path / path
        with _looking_at(target):
            try:
                return target.stat().st_size if target.is_file() else None
            except FileNotFoundError:
                return None

    def sizes(self) -> dict[str, int]:
        """Sizes of all files below."""
        with _looking_at(self.path):
            return dict(_list(str(self.path), "")) if self.path.is_dir() else {}

    def is_file(self) -> bool:
        """Whether a file lies there, as a store in HDF5 does; StoreUnreachableError on trouble."""
        with _looking_at(self.path):
            return self.path.is_file()

    def sweep(self) -> None:
        """Remove files that were being written when their writer was killed."""
        try:
            for path in self.path.rglob(f".*{PARTIAL}*"):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot("remove", error.filename or self.path, error) from error

    def zarr_store(self) -> Any:
        """The folder as a store of zarr-python."""
        from zarr.storage import LocalStore

        return LocalStore(self.path, read_only=True)

    def kvstore(self, path: str) -> dict[str, Any]:
        """TensorStore's file driver."""
        return {"driver": "file", "path": f"{(self.path / path).resolve()}/"}


def _list(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    """List files below a folder; Path.rglob takes five times as long."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _list(entry.path, f"{prefix}{entry.name}/")
            elif not entry.is_dir():
                with suppress(FileNotFoundError):  # others may be writing here
                    yield prefix + entry.name, entry.stat(follow_symlinks=False).st_size


def flush_folder(folder: Path) -> None:
    """Flush a folder to the device, so that the names in it survive.

    Args:
        folder: The folder.

    Raises:
        OSError: It cannot be flushed.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot(what: str, target: object, error: OSError) -> StoreError:
    """Word the error of a location that does not take an object.

    Args:
        what: What was tried: ``write``, ``remove``.
        target: The object.
        error: What went wrong.

    Returns:
        The error.
    """
    match error.errno:
        case errno.ENAMETOOLONG | errno.ENOTDIR | errno.EISDIR | errno.ELOOP | errno.EINVAL:
            advice = "Name another location"
        case _:
            advice = (
                "Make room or give permission, then run the same command again: it goes on where "
                "it stopped"
            )
    return StoreError(f"cannot {what} {target}: {error.strerror or error}. {advice}")


def unreachable(target: object, error: OSError) -> StoreUnreachableError:
    """Word the error of a location that cannot be looked at.

    Args:
        target: What was looked at.
        error: What went wrong; its own file is named where it lies below the target.

    Returns:
        The error.
    """
    where = error.filename if isinstance(error.filename, str) else target
    return StoreUnreachableError(
        f"{where} cannot be read: {error.strerror or error}. Look at the name, the permissions, "
        "the disk or the network, then run the same command again"
    )


@contextmanager
def _looking_at(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unreachable(target, error) from error
