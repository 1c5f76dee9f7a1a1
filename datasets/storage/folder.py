"""A folder of a file system as a location for objects (location.py)."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentset.datasets.storage.access import changing, reading
from latentset.datasets.storage.atomic import PARTIAL, create_atomically, write_atomically


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

    def read(self, path: str) -> bytes:
        """Read an object; FileNotFoundError where there is none, OSError on trouble."""
        return (self.path / path).read_bytes()

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

    def sizes(self) -> dict[str, int]:
        """Bytes of every object, by path; StoreUnreachableError on trouble."""
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


def _list(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    """List files below a folder; Path.rglob takes five times as long."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _list(entry.path, f"{prefix}{entry.name}/")
            elif not entry.is_dir():
                with suppress(FileNotFoundError):  # others may be writing here
                    yield prefix + entry.name, entry.stat(follow_symlinks=False).st_size
