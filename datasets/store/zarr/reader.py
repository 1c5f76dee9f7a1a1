"""Opening a store of Zarr objects, after the checks that cost little (docs/store-spec.md, 6)."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import zarr

from latentset.datasets.errors import (
    StoreCorruptError,
    StoreFormatError,
    StoreIncompleteError,
    expect,
)
from latentset.datasets.storage.access import unreachable
from latentset.datasets.storage.location import Bucket, Location, read_if_there
from latentset.datasets.store.arrays import DTYPES
from latentset.datasets.store.digests import StoredObject, sha256_of
from latentset.datasets.store.formats import is_hdf5_name
from latentset.datasets.store.header import ATTRIBUTE, ArrayName, Header, parse_header, parse_object
from latentset.datasets.store.manifest import MANIFEST, Manifest, parse_manifest
from latentset.datasets.store.samples import SAMPLES, parse_samples, samples_schema
from latentset.datasets.store.store import Store
from latentset.datasets.store.zarr.metadata import check_array_metadata, least_shard_bytes


class ZarrStore(Store):
    """A store whose arrays are Zarr's: a folder, or a prefix in object storage."""

    format = "zarr"

    def array(self, name: ArrayName) -> "zarr.Array[Any]":
        """Open an array with zarr-python."""
        expected = self.shape(name)
        try:
            array = zarr.open_array(self.location.zarr_store(), path=name, mode="r", zarr_format=3)
        except OSError as error:
            raise unreachable(f"{self.location}/{name}", error) from error
        except (ValueError, TypeError, KeyError) as error:
            raise StoreCorruptError(
                f"{self.location}: {name}/zarr.json: zarr cannot open it: {error}"
            ) from error
        found = f"{array.dtype} {array.shape}"
        expect(f"{self.location}: {name}", f"{DTYPES[name]} {expected}", found)
        return array


def open_zarr(location: Location, allow_incomplete: bool) -> ZarrStore:
    """Open a store of Zarr objects; raises as ``open_store`` does."""
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
    return ZarrStore(location, header, _check_objects(location, header, manifest), manifest)


def read_header(location: Location) -> Header:
    """Read the header of a store of Zarr objects.

    Raises:
        StoreFormatError: There is no store, or it is of a version that this reader does not know.
        StoreUnreachableError: The location cannot be read.
    """
    content = read_if_there(location, "zarr.json")
    if content is None and isinstance(location, Bucket) and is_hdf5_name(location.name):
        raise StoreFormatError(
            f"{location}: expected a store of Zarr objects; one in HDF5 is read from a file system "
            "only: copy the file to this machine first"
        )
    what = f"{location} is not a LatentSet store"
    if content is None:
        raise StoreFormatError(
            f"{what}: no {location.name}/zarr.json is there; expected a store's folder or address; "
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
        "zarr.json",
        SAMPLES,
        *(f"{name}/zarr.json" for name in header.arrays),
        *(f"{name}/c/{k}/0" for name in header.arrays for k in range(header.layout.shards)),
    ]


def manifest_problems(header: Header, manifest: Manifest) -> Iterator[str]:
    """What a manifest should list by the header and does not."""
    if header.layout.shards != len(manifest.shards):
        yield (
            f"{MANIFEST}: expected {header.layout.shards} shards (the header's layout.shards), "
            f"got {len(manifest.shards)}"
        )
        return
    listed = manifest.listed
    for path in required_objects(header):
        if path not in listed:
            yield f"{MANIFEST} does not list {path}"


def check_size(location: Location, item: StoredObject, size: int | None) -> None:
    """Raise a StoreCorruptError if an object has another size than listed, or none (None)."""
    if size is None:
        raise StoreCorruptError(f"{location}: {item.path} is missing")
    expect(f"{location}: {item.path}", f"{item.bytes} bytes", f"{size} bytes")


def _check_objects(location: Location, header: Header, manifest: Manifest) -> pa.Table:
    """Check every object's size, and the small ones' digests; return the samples."""
    for problem in manifest_problems(header, manifest):
        raise StoreCorruptError(f"{location}: {problem}")
    listed, sizes = manifest.listed, location.sizes()
    if sizes is not None:
        for item in manifest.objects:
            check_size(location, item, sizes.get(item.path))
    content: dict[str, bytes] = {}
    for name in required_objects(header)[: 2 + len(header.arrays)]:
        found = read_if_there(location, name)
        if found is None:
            raise StoreCorruptError(f"{location}: {name} is missing")
        if sha256_of(found) != listed[name].sha256:
            raise StoreCorruptError(f"{location}: {name} differs from its sha256 in {MANIFEST}")
        content[name] = found
    for array in header.arrays:
        check_array_metadata(content[f"{array}/zarr.json"], header, array, str(location))
        for k in range(header.layout.shards):
            path = f"{array}/c/{k}/0"
            if listed[path].bytes < least_shard_bytes(header, array):
                what = f"{path}: is too small for the index of its chunks"
                raise StoreCorruptError(f"{location}: {what}")
    samples = parse_samples(content[SAMPLES], header, str(location))
    manifest.check_counts(samples, f"{location}: {SAMPLES}")
    return samples
