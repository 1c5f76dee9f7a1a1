"""Opening a store of Zarr objects, after the checks that cost little (docs/store-spec.md, 6)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from latentset.datasets.errors import (
    StoreCorruptError,
    StoreFormatError,
    StoreIncompleteError,
    expect,
)
from latentset.datasets.limits import MAX_TABLE_BYTES
from latentset.datasets.storage.access import unreachable
from latentset.datasets.storage.location import (
    METADATA_BYTES,
    Bucket,
    Folder,
    Location,
    Web,
    read_if_there,
)
from latentset.datasets.store.arrays import DTYPES
from latentset.datasets.store.consistency import refuse_inconsistent
from latentset.datasets.store.digests import (
    BackgroundCheck,
    StoredObject,
    check_in_background,
    check_object,
    sha256_of,
)
from latentset.datasets.store.formats import is_hdf5_name
from latentset.datasets.store.header import ATTRIBUTE, ArrayName, Header, parse_header, parse_object
from latentset.datasets.store.manifest import MANIFEST, Manifest, parse_manifest
from latentset.datasets.store.mirror import Mirror, StoreCache
from latentset.datasets.store.samples import SAMPLES, parse_samples, samples_schema
from latentset.datasets.store.store import RowReader, Store
from latentset.datasets.store.zarr.metadata import check_array_metadata, check_shard_bytes
from latentset.datasets.store.zarr.shards import ShardedArray


@dataclass(frozen=True, repr=False)
class ZarrStore(Store):
    """A store whose arrays are Zarr's: a folder, a prefix in object storage, or on the web."""

    mirror: Mirror | None = None
    """Its objects in the cache; None where they are read directly."""

    format = "zarr"

    @property
    def objects(self) -> Folder | Bucket | Mirror:
        """What the arrays are read from."""
        if self.mirror is not None:
            return self.mirror
        if isinstance(self.location, Web):
            raise StoreIncompleteError(f"{self.location} is not complete: {MANIFEST} is missing")
        return self.location

    def reserve(self, names: Sequence[ArrayName], first_rows: NDArray[np.int64]) -> None:
        """Make room for shards, as Store has it."""
        if self.mirror is not None:
            self.mirror.reserve(shard_paths(self.header, names, first_rows))

    def fetch_ahead(
        self, names: Sequence[ArrayName], first_rows: NDArray[np.int64]
    ) -> AbstractContextManager[None]:
        """Fetch shards ahead, as Store has it."""
        if self.mirror is None:
            return nullcontext()
        return self.mirror.fetch_ahead(shard_paths(self.header, names, first_rows))

    def fetch_rows(self, names: Sequence[ArrayName], first_rows: Sequence[int]) -> None:
        """Fetch shards, as Store has it."""
        if self.mirror is not None:
            self.mirror.fetch(shard_paths(self.header, names, np.asarray(first_rows, np.int64)))

    def repair(self, names: Sequence[ArrayName], first_rows: Sequence[int]) -> bool:
        """Fetch damaged shards again, as Store has it."""
        if self.mirror is None:
            return False
        paths = shard_paths(self.header, names, np.asarray(first_rows, np.int64))
        self.mirror.fetch(paths, verify=True)
        return True

    def check_ahead(
        self, names: Sequence[ArrayName], first_rows: NDArray[np.int64]
    ) -> AbstractContextManager[BackgroundCheck]:
        """Compare shards with their digests, as Store has it."""
        if (
            self.mirror is not None
            or self.manifest is None
            or not isinstance(self.location, Folder)
        ):
            return super().check_ahead(names, first_rows)
        listed = self.manifest.listed
        paths = shard_paths(self.header, names, first_rows)
        return check_in_background(
            partial(check_object, self.location, listed[path], self._sound)
            for path in paths
            if path not in self._sound
        )

    @cached_property
    def _sound(self) -> set[str]:
        """Paths of the shards that were compared with their digests."""
        return set()

    def array(self, name: ArrayName) -> "zarr.Array[Any]":
        """Open an array with zarr-python."""
        expected = self.shape(name)
        try:
            array = zarr.open_array(self.objects.zarr_store(), path=name, mode="r", zarr_format=3)
        except OSError as error:
            raise unreachable(f"{self.location}/{name}", error) from error
        except (ValueError, TypeError, KeyError) as error:
            raise StoreCorruptError(
                f"{self.location}: {name}/zarr.json: zarr cannot open it: {error}"
            ) from error
        found = f"{array.dtype} {array.shape}"
        expect(f"{self.location}: {name}", f"{DTYPES[name]} {expected}", found)
        return array

    def open_rows(self, name: ArrayName) -> RowReader:
        """Open an array with our own reader."""
        self.shape(name)
        if self.manifest is None:
            raise StoreIncompleteError(f"{self.location} is not complete: {MANIFEST} is missing")
        repair = partial(self.mirror.fetch, verify=True) if self.mirror else None
        return ShardedArray(self.objects, self.header, name, self.manifest.listed, repair)


def shard_paths(
    header: Header, names: Sequence[ArrayName], first_rows: NDArray[np.int64]
) -> list[str]:
    """Paths of the shards that hold rows of y_hat (of pixels), in the order of the rows."""
    shards = first_rows // header.layout.shard_rows
    values, where = np.unique(shards, return_index=True)
    return [f"{name}/c/{k}/0" for k in values[np.argsort(where)] for name in names]


def open_zarr(
    location: Location, allow_incomplete: bool, cache: StoreCache | None = None
) -> ZarrStore:
    """Open a store of Zarr objects, through a cache if there is one; raises as ``open_store``."""
    header = read_header(location)
    content = read_if_there(location, MANIFEST)
    if content is None:
        if allow_incomplete:
            return ZarrStore(location, header, samples_schema(header).empty_table(), None)
        raise StoreIncompleteError(
            f"{location} is not complete: {MANIFEST} is missing. The job that writes it was "
            f"interrupted or is still running: run the same {header.command} again"
        )
    manifest = parse_manifest(content, str(location))
    if cache is None:
        return ZarrStore(location, header, _check_objects(location, header, manifest), manifest)
    mirror = Mirror(location, sha256_of(content), manifest.listed, cache)
    mirror.fetch(manifest.listed.keys() & set(_metadata(header)), verify=True)
    header = read_header(mirror)
    return ZarrStore(location, header, _check_objects(mirror, header, manifest), manifest, mirror)


def read_header(location: Location | Mirror) -> Header:
    """Read the header of a store of Zarr objects.

    Raises:
        StoreFormatError: There is no store, or it is of a version that this reader does not know.
        StoreUnreachableError: The location cannot be read.
    """
    content = read_if_there(location, "zarr.json")
    if content is None and not isinstance(location, Folder) and is_hdf5_name(location.name):
        raise StoreFormatError(
            f"{location}: expected a store of Zarr objects; one in HDF5 is read from a file system "
            "only: copy the file to this machine first"
        )
    what = f"{location} is not a LatentSet store"
    if content is None:
        raise StoreFormatError(
            f"{what}: no {location}/zarr.json is there; expected a store's folder or address; "
            "look at the spelling"
        )
    document = parse_object(content, f"{what}: zarr.json", StoreFormatError)
    if document.get("node_type") != "group":
        raise StoreFormatError(f"{what}: zarr.json: expected a Zarr v3 group")
    attributes = document.get("attributes")
    value = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    return parse_header(value, str(location))


def required_objects(header: Header) -> list[str]:
    """Paths of the objects that a manifest must list; first those of metadata and samples.

    The header's number of shards must have been compared with the manifest's before.
    """
    return [
        *_metadata(header),
        *(f"{name}/c/{k}/0" for name in header.arrays for k in range(header.layout.shards)),
    ]


def _metadata(header: Header) -> list[str]:
    return ["zarr.json", SAMPLES, *(f"{name}/zarr.json" for name in header.arrays)]


def manifest_problems(header: Header, manifest: Manifest) -> Iterator[str]:
    """What a manifest should list by the header and does not, and the reverse."""
    if header.layout.shards != len(manifest.shards):
        yield (
            f"{MANIFEST}: expected {header.layout.shards} shards (the header's layout.shards), "
            f"got {len(manifest.shards)}"
        )
        return
    listed, required = manifest.listed, required_objects(header)
    for path in required:
        if path not in listed:
            yield f"{MANIFEST} does not list {path}"
    for path in sorted(listed.keys() - set(required)):
        yield f"{MANIFEST} lists {path}, which is no part of the store"


def most_bytes(path: str) -> int:
    """Bytes of the samples table, or of another object of metadata, that are read at most."""
    return MAX_TABLE_BYTES if path == SAMPLES else METADATA_BYTES


def check_size(location: Location | Mirror, item: StoredObject, size: int | None) -> None:
    """Raise a StoreCorruptError if an object has another size than listed, or none (None)."""
    if size is None:
        raise StoreCorruptError(f"{location}: {item.path} is missing")
    if size < 0:
        raise StoreCorruptError(
            f"{location}: {item.path} is a link, or no regular file",
            "Copy the store with its links followed (cp -rL)",
        )
    expect(f"{location}: {item.path}", f"{item.bytes} bytes", f"{size} bytes")


def _check_objects(location: Location | Mirror, header: Header, manifest: Manifest) -> pa.Table:
    """Check every object's size, and the small ones' digests; return the samples."""
    for problem in manifest_problems(header, manifest):
        raise StoreCorruptError(f"{location}: {problem}")
    listed, sizes = manifest.listed, location.sizes()
    if sizes is not None:
        for item in manifest.objects:
            check_size(location, item, sizes.get(item.path))
    content: dict[str, bytes] = {}
    for name in _metadata(header):
        found = read_if_there(location, name, min(listed[name].bytes, most_bytes(name)))
        if found is None:
            raise StoreCorruptError(f"{location}: {name} is missing")
        if sha256_of(found) != listed[name].sha256:
            raise StoreCorruptError(f"{location}: {name} differs from its sha256 in {MANIFEST}")
        content[name] = found
    for array in header.arrays:
        check_array_metadata(content[f"{array}/zarr.json"], header, array, str(location))
        for k in range(header.layout.shards):
            check_shard_bytes(header, array, k, listed[f"{array}/c/{k}/0"].bytes, str(location))
    samples = parse_samples(content[SAMPLES], header, str(location))
    refuse_inconsistent(samples, header, manifest, str(location))
    return samples
