"""The user block and the attributes of an HDF5 store (docs/store-spec.md, 8)."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from latentset.datasets.errors import StoreCorruptError, StoreFormatError
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.location import METADATA_BYTES
from latentset.datasets.storage.threads import check_stop
from latentset.datasets.store.hdf5.object_headers import USER_BLOCK
from latentset.datasets.store.header import FormatVersion, Sha256

MANIFEST_ATTRIBUTE = "manifest"
"""Name of the root group's attribute that holds the manifest."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""First bytes of the HDF5 part of a file."""

HDF5_VERSIONS: tuple[FormatVersion, ...] = ("1.0", "1.1", "1.2")
"""The versions of docs/store-spec.md in which a store may be an HDF5 file."""

_READ_BYTES = 1 << 24


def user_block(size: int, sha256: str, version: FormatVersion) -> bytes:
    """The first 512 bytes of a file of ``size`` bytes: one line of JSON, then zeros.

    ``sha256`` is the digest of everything after them.
    """
    line = {
        "format": "latentset-hdf5",
        "format_version": version,
        "bytes": size,
        "sha256": sha256,
    }
    return (json.dumps(line) + "\n").encode().ljust(USER_BLOCK, b"\0")


def read_user_block(path: Path) -> Sha256:
    """Read the user block, compare the file's size with it, and return the digest in it.

    Raises:
        StoreFormatError: The file is no store.
        StoreCorruptError: It was altered or cut off.
        StoreUnreachableError: It cannot be read.
    """
    with reading(path), path.open("rb") as file:
        block = file.read(USER_BLOCK + len(SIGNATURE))
        size = os.fstat(file.fileno()).st_size
    block, signature = block[:USER_BLOCK], block[USER_BLOCK:]
    try:
        line = json.loads(block.split(b"\n")[0])
        if line["format"] != "latentset-hdf5":
            raise ValueError("another format")
        version, expected, sha256 = line["format_version"], line["bytes"], line["sha256"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        if signature == SIGNATURE:  # a user block of this length is rare elsewhere
            raise StoreCorruptError(
                f"{path}: its first {USER_BLOCK} bytes were altered, or it is not a LatentSet store"
            ) from error
        raise StoreFormatError(
            f"{path} is not a LatentSet store: expected an HDF5 file that begins with a line of "
            '{"format": "latentset-hdf5", …}; look at the spelling, or it was altered'
        ) from error
    if version not in HDF5_VERSIONS:
        raise StoreFormatError(
            f"{path}: format_version: expected {' or '.join(HDF5_VERSIONS)}, got "
            f"{version!r:.80}; read it with a LatentSet that knows it"
        )
    if size != expected:
        raise StoreCorruptError(
            f"{path}: expected {expected!r:.80} bytes, as in its first line, got {size}: it was "
            "cut off or altered"
        )
    if block != user_block(size, sha256, version) or signature != SIGNATURE:
        raise StoreCorruptError(f"{path}: its first {USER_BLOCK} bytes were altered")
    return str(sha256)


def digest_after_user_block(
    path: Path, report: Callable[[int], None] = lambda done: None
) -> Sha256:
    """Digest a file without its first 512 bytes; ``report`` is called with the bytes done."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(USER_BLOCK)
        while block := file.read(_READ_BYTES):
            digest.update(block)
            report(file.tell())
    return digest.hexdigest()


def check_file_digest(path: Path) -> None:
    """StoreCorruptError if a file differs from the digest in its user block; in the background."""
    if digest_after_user_block(path, lambda _: check_stop()) != read_user_block(path):
        raise StoreCorruptError(f"{path} differs from the sha256 in its first line: it was altered")


def text_type(width: int) -> h5py.h5t.TypeStringID:
    """The type of UTF-8 texts of ``width`` bytes; shorter ones are padded with NUL."""
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(width)
    kind.set_cset(h5py.h5t.CSET_UTF8)
    kind.set_strpad(h5py.h5t.STR_NULLPAD)
    return kind


def write_attribute(file: h5py.File, name: str, text: bytes) -> None:
    """Write a text of any length; beyond 64 KiB HDF5 stores it outside the group's header."""
    kind = text_type(len(text))
    attribute = h5py.h5a.create(file.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    attribute.write(np.array(text, f"S{len(text)}"), mtype=kind)


def read_attribute(file: h5py.File, name: str, path: Path) -> bytes:
    """Read a text of the root group; StoreCorruptError if it is none that fits into the file."""
    try:
        attribute = h5py.h5a.open(file.id, name.encode())
        kind = attribute.get_type()
        if not isinstance(kind, h5py.h5t.TypeStringID) or kind.is_variable_str():
            raise ValueError("expected a text of fixed length")
        size = int(kind.get_size())
        if attribute.shape != () or size > min(METADATA_BYTES, path.stat().st_size):
            raise ValueError(f"expected one text that fits into the file, got {size} bytes")
        value = np.empty((), f"S{size}")
        attribute.read(value, mtype=kind)
    except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise StoreCorruptError(
            f"{path}: attribute {name!r} cannot be read: {error}. The file was altered"
        ) from error
    return bytes(value[()])
