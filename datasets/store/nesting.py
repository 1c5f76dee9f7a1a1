"""Where a store may be made: where nothing is, not inside of another store, not below a file."""

import json
from collections.abc import Iterator
from typing import TypeGuard

from latentset.datasets.errors import StoreError
from latentset.datasets.storage.folder import unreachable
from latentset.datasets.storage.location import PARTIAL, Bucket, Folder, Place
from latentset.datasets.store.header import ATTRIBUTE
from latentset.datasets.store.manifest import MANIFEST, parse_manifest

_FREE = "name a place beside it"


def refuse_nested(place: Place) -> None:
    """Refuse a target that lies inside a store, complete or not, or below a file.

    Args:
        place: Where a store is to lie; that place itself may hold one.

    Raises:
        StoreError: It lies inside a store or below a file, or what is above it cannot be read.
    """
    if _is_writable(place) and "/" not in place.url.partition("://")[2]:
        raise StoreError(  # what lies beside it, its .job, would be another bucket
            f"{place} is a whole bucket: expected a name in it, for instance {place}/store.zarr"
        )
    for above in _above(place):
        if isinstance(above, Folder) and above.is_file():
            raise StoreError(
                f"{place} cannot be made: {above} is a file, and no folder; {_FREE}. Nothing was "
                "changed there"
            )
        if _is_store(above):
            raise StoreError(
                f"{place} lies inside the store {above}, which would not be sound with another "
                f"store in it: {_FREE}. Nothing was changed there"
            )


def _above(place: Place) -> Iterator[Place]:
    """All places that hold a place, the nearest first; none on web servers, which none writes."""
    if isinstance(place, Folder):
        for folder in place.path.resolve().parents:
            yield Folder(folder)
    elif _is_writable(place):
        scheme, _, names = place.url.partition("://")
        while "/" in names:
            names = names.rpartition("/")[0]
            yield Bucket(f"{scheme}://{names}")


def _is_writable(place: Place) -> TypeGuard[Bucket]:
    """Whether it is in object storage."""
    return isinstance(place, Bucket) and place.protocol not in ("http", "https")


def _is_store(place: Place) -> bool:
    """Whether a header or a manifest of ours lies right in a place."""
    header = _read(place, "zarr.json")
    try:
        document = json.loads(header) if header else None
        if isinstance(document, dict) and ATTRIBUTE in (document.get("attributes") or {}):
            return True
    except (ValueError, RecursionError, TypeError):
        pass  # somebody else's, or a header that was damaged
    manifest = _read(place, MANIFEST)
    try:
        return manifest is not None and bool(parse_manifest(manifest, str(place)))
    except StoreError:
        return False


def _read(place: Place, path: str) -> bytes | None:
    """Read a small object; None if it is missing, or if only what lies below may be looked at."""
    try:
        return place.read(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
        return None
    except OSError as error:
        raise unreachable(f"{place}/{path}", error) from error


def is_free(place: Place) -> bool:
    """Tell whether nothing lies at a place but what a writer left behind that was killed.

    Args:
        place: Where a store is to lie.

    Returns:
        False if there is a file, or a folder with something in it.

    Raises:
        StoreError: The place cannot be written, or not looked at.
    """
    if isinstance(place, Folder) and place.is_file():
        return False
    sizes = place.sizes()
    if sizes is None:
        raise StoreError(f"{place}: a store cannot be written there; name a folder, s3://…, gs://…")
    return all(PARTIAL in path for path in sizes)
