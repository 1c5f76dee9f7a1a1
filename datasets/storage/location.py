"""Where a store is: a folder, a prefix in object storage, a web server, or the Hub.

A location holds objects by relative path, as Zarr does. An object is there whole or not at all, and
what was written is there after a crash: on a file system because it is renamed after it was
flushed, in object storage because that is what such a service promises.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from latentset.datasets.errors import StoreError
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.bucket import Bucket
from latentset.datasets.storage.folder import Folder
from latentset.datasets.storage.web import Web

__all__ = ["Bucket", "Folder", "Location", "Web", "open_location", "read_if_there"]


Location = Folder | Bucket | Web
"""Objects by relative path (with ``/``). Locations are small values: they travel to workers."""


def open_location(location: Path | str | Location) -> Location:
    """The location of a path or URL: ``file``, ``s3``, ``gs``, ``http``, ``https``, ``hf``.

    Nothing need be there.

    Raises:
        StoreError: The URL names no location, or the path is impossible.
    """
    if isinstance(location, Location):
        return location
    text = str(location)
    if (scheme := find_scheme(text)) and not text.startswith(f"{scheme}://"):
        raise StoreError(
            f"{text} is a mistyped address: expected {scheme}://…, or ./{text} for a folder of "
            "that name"
        )
    if text.startswith("file://"):
        return _folder(_path_of(text))
    if isinstance(location, str) and "://" in text:
        scheme, _, names = text.partition("://")
        if not names.strip("/"):
            raise StoreError(f"{text} names no location: expected {scheme}://NAME/…")
        kind = Web if scheme in ("http", "https", "hf") else Bucket
        return kind(f"{scheme}://{names.rstrip('/')}")
    return _folder(text)


def find_scheme(text: str) -> str | None:
    """The scheme that a text begins with, as an address does, well-formed or mistyped."""
    found = re.match("(file|s3|gs|https?|hf):", text, re.IGNORECASE)
    return found[1].lower() if found else None


class Readable(Protocol):
    """Objects that can be read by path: a location, or a mirror of one."""

    def read(self, path: str, limit: int = ..., /) -> bytes:
        """Read an object of at most ``limit`` bytes; raises as Folder does."""


METADATA_BYTES = 24 << 20
"""Largest header, manifest or array's metadata: twice those of 20,000 shards of three arrays. JSON
takes up to 30 times its bytes in memory."""


def read_if_there(location: Readable, path: str, limit: int = METADATA_BYTES) -> bytes | None:
    """Read an object of at most ``limit`` bytes; None where there is none.

    StoreUnreachableError on trouble, StoreCorruptError where it is larger.
    """
    with reading(f"{location}/{path}"), suppress(FileNotFoundError, NotADirectoryError):
        return location.read(path, limit)
    return None


def _folder(path: str) -> Folder:
    try:
        return Folder(Path(path).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a zero byte
        raise StoreError(f"{path!r} is no path: {error}; look at the spelling") from error


def _path_of(url: str) -> str:
    """The path of a ``file:`` URL (RFC 8089): on this machine, with ``%20`` and the like undone."""
    host, _, path = url.removeprefix("file://").partition("/")
    if host not in ("", "localhost"):
        raise StoreError(f"{url}: expected file:///PATH, on this machine; got the machine {host!r}")
    return "/" + unquote(path)
