"""Where a store is: a folder, or names with one prefix in object storage or on a web server.

A location holds objects by relative path, as Zarr does. An object is there whole or not at all, and
what was written is there after a crash: on a file system because it is renamed after it was
flushed, in object storage because that is what such a service promises.
"""

from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from latentset.datasets.errors import StoreError
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.bucket import Bucket
from latentset.datasets.storage.folder import Folder

__all__ = ["Bucket", "Folder", "Location", "open_location", "read_if_there"]


Location = Folder | Bucket
"""Objects by relative path (with ``/``). Locations are small values: they travel to workers."""


def open_location(location: Path | str | Location) -> Location:
    """The location that a path, ``file://…``, ``s3://…``, ``gs://…`` or ``http(s)://…`` names.

    Nothing need be there.

    Raises:
        StoreError: The URL names no location, or the path is impossible.
    """
    if isinstance(location, Location):
        return location
    text = str(location)
    if text.startswith("file://"):
        return _folder(_path_of(text))
    if isinstance(location, str) and "://" in text:
        scheme, _, names = text.partition("://")
        if not names.strip("/"):
            raise StoreError(f"{text} names no location: expected {scheme}://NAME/…")
        return Bucket(f"{scheme}://{names.rstrip('/')}")
    return _folder(text)


def read_if_there(location: Location, path: str) -> bytes | None:
    """Read an object; None where there is none, StoreUnreachableError on trouble."""
    with reading(f"{location}/{path}"), suppress(FileNotFoundError, NotADirectoryError):
        return location.read(path)
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
