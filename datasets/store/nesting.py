"""No store inside of a store: whatever lies in one must be listed in its manifest (store-spec, 1)."""

import json
import os
from collections.abc import Iterator

from latentset.datasets.errors import StoreError
from latentset.datasets.store.header import ATTRIBUTE
from latentset.datasets.store.manifest import MANIFEST, parse_manifest
from latentset.datasets.store.places import Bucket, Folder, Place

_FREE = "name a place beside it"


def refuse_nested(place: Place) -> None:
    """Refuse a target that lies inside a store, complete or not, or below a file.

    Args:
        place: Where a store is to lie; that place itself may hold one.

    Raises:
        StoreError: It lies inside a store or below a file, or what is above it cannot be read.
    """
    for above in _above(place):
        if isinstance(above, Folder) and os.path.isfile(above.path):
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
    elif isinstance(place, Bucket) and place.protocol not in ("http", "https"):
        scheme, _, names = place.url.partition("://")
        while "/" in names:
            names = names.rpartition("/")[0]
            yield Bucket(f"{scheme}://{names}")


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
    """Read a small object; None where there is none, or where one may look at what is below only."""
    try:
        return place.read(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
        return None
    except OSError as error:
        raise StoreError(
            f"{place}: {path} cannot be read: {error}. Look at the address, the permissions, the "
            "network"
        ) from error
