"""Where a store may be made: where nothing is, not inside of another store, not below a file."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.atomic import PARTIAL, check_writable
from latentset.datasets.storage.folder import NotRegularError, is_left_by_system
from latentset.datasets.storage.location import METADATA_BYTES, Bucket, Folder, Location
from latentset.datasets.store.header import ATTRIBUTE, parse_object
from latentset.datasets.store.manifest import MANIFEST, parse_manifest

_FREE = "name a location beside it"


def refuse_nested(location: Location) -> None:
    """Raise a StoreError if a target is inside a store, complete or not, or below a file.

    The target itself may be a store.
    """
    if isinstance(location, Bucket) and "/" not in location.url.partition("://")[2]:
        raise StoreError(  # what is beside it, its .job, would be another bucket
            f"{location} is a whole bucket: expected a name in it, for instance "
            f"{location}/store.zarr"
        )
    for above in _above(location):
        if isinstance(above, Folder) and above.is_file():
            raise StoreError(
                f"{location} cannot be made: {above} is a file, and no folder; {_FREE}. Nothing "
                "was changed there"
            )
        if _is_store(above):
            raise StoreError(
                f"{location} is inside the store {above}, which would not be sound with it: "
                f"{_FREE}. Nothing was changed there"
            )


def check_output(target: Path) -> None:
    """Raise an error if a file could not be written there, or would be inside a store."""
    refuse_nested(Folder(target))
    check_writable(target)


def _above(location: Location) -> Iterator[Location]:
    """Every location above one, the nearest first; none on web servers, which are read-only."""
    if isinstance(location, Folder):
        for folder in location.path.resolve().parents:
            yield Folder(folder)
    elif isinstance(location, Bucket):
        scheme, _, names = location.url.partition("://")
        while "/" in names:
            names = names.rpartition("/")[0]
            yield Bucket(f"{scheme}://{names}")


def _is_store(location: Location) -> bool:
    """Whether a location itself holds a header or a manifest of ours."""
    header = _read(location, "zarr.json") or b""
    with suppress(StoreError, TypeError):  # somebody else's, or a header that was damaged
        document = parse_object(header, str(location))
        if ATTRIBUTE in (document.get("attributes") or {}):
            return True
    manifest = _read(location, MANIFEST)
    with suppress(StoreError):
        return manifest is not None and bool(parse_manifest(manifest, str(location)))
    return False


def _read(location: Location, path: str) -> bytes | None:
    """Read a small object; None if it is missing, or if only what is below may be read."""
    absent = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
    with reading(f"{location}/{path}"), suppress(*absent, NotRegularError, StoreCorruptError):
        return location.read(path, METADATA_BYTES)
    return None


def is_free(location: Location) -> bool:
    """Whether a location is empty, apart from what a killed writer left."""
    if isinstance(location, Folder) and location.is_file():
        return False
    sizes = location.sizes()
    if sizes is None:
        raise StoreError(
            f"{location}: a store cannot be written there; name a folder, s3://…, gs://…"
        )
    return all(PARTIAL in path or is_left_by_system(path) for path in sizes)
