"""The objects of a store as files: written whole or not at all, and known by their digest."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import NonNegativeInt

from latentset.datasets.errors import StoreError
from latentset.datasets.store.header import Frozen, Sha256

PARTIAL = ".partial-"
"""Part of the name of a file that is being written; nothing of that name belongs to a store."""


class StoredObject(Frozen):
    """One object of a store, as its manifest lists it."""

    path: str
    """Relative to the store, with ``/``."""
    bytes: NonNegativeInt
    """Size."""
    sha256: Sha256
    """Digest of the content."""


def sha256_of(content: bytes | memoryview) -> str:
    """Digest some bytes.

    Args:
        content: The bytes.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(content).hexdigest()


def describe_object(path: str, content: bytes) -> StoredObject:
    """Describe an object from its content.

    Args:
        path: Path relative to the store.
        content: All of it.

    Returns:
        What the manifest says of it.
    """
    return StoredObject(path=path, bytes=len(content), sha256=sha256_of(content))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is there whole, or not at all, or as it was.

    The bytes go to another name in the same folder, are flushed to the device, and the file is
    renamed; the folder is flushed too, so that the name survives.

    Args:
        path: The file; folders above it are made.
        content: All of its content.

    Raises:
        StoreError: The file cannot be written: no space, no permission, …
    """
    partial = path.with_name(f".{path.name}{PARTIAL}{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}. Make room or give permission, then "
            "run the same command again: it goes on where it stopped"
        ) from error


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_object(store: Path, item: StoredObject) -> bytes | None:
    """Read an object and compare it with its description.

    Args:
        store: The store's folder.
        item: What the object should be.

    Returns:
        Its content, or None if it is missing or differs.
    """
    path = store / item.path
    try:
        if path.stat().st_size != item.bytes:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    return content if sha256_of(content) == item.sha256 else None


def are_unaltered(store: Path, items: Iterable[StoredObject]) -> bool:
    """Tell whether objects are as described, byte for byte.

    Args:
        store: The store's folder.
        items: What the objects should be.

    Returns:
        True if every one is there with its digest.
    """
    return all(read_object(store, item) is not None for item in items)


def remove_partial(store: Path) -> None:
    """Remove what writers that were killed left behind.

    Args:
        store: The store's folder.
    """
    for path in store.rglob(f".*{PARTIAL}*"):
        path.unlink(missing_ok=True)
