"""Opening a store, after the checks that cost little (docs/store-spec.md, 1 and 6)."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from latentset.datasets.errors import (
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreIncompleteError,
)
from latentset.datasets.storage.folder import unreachable
from latentset.datasets.storage.location import Bucket, Folder, Location, open_location
from latentset.datasets.store.arrays import DTYPES, array_form
from latentset.datasets.store.formats import is_hdf5_name
from latentset.datasets.store.header import ATTRIBUTE, ArrayName, Header, parse_header
from latentset.datasets.store.manifest import MANIFEST, Manifest, count_samples, parse_manifest
from latentset.datasets.store.objects import sha256_of
from latentset.datasets.store.samples import OK, SAMPLES, parse_samples, samples_schema
from latentset.datasets.store.scales import scale_indexes
from latentset.datasets.store.zarr.metadata import check_array_metadata, least_shard_bytes


@dataclass(frozen=True)
class Store:
    """A store that was opened for reading."""

    location: Location
    """Where it lies."""
    header: Header
    """What its numbers mean."""
    samples: pa.Table
    """One row a sample (docs/store-spec.md, 5); empty in an incomplete store."""
    manifest: Manifest | None
    """What it consists of; None in an incomplete store."""

    format = "zarr"

    @property
    def fingerprint(self) -> str:
        """Identifies the settings that it was made with; empty in an incomplete store."""
        return self.manifest.fingerprint if self.manifest else ""

    def shape(self, name: ArrayName) -> tuple[int, int]:
        """Shape that the header gives an array.

        Args:
            name: One of the header's ``arrays``.

        Returns:
            (rows, channels).

        Raises:
            StoreError: The store has no such array.
        """
        if name not in self.header.arrays:
            raise StoreError(
                f"{self.location} has no array {name!r}; it has {', '.join(self.header.arrays)}"
            )
        return array_form(self.header, name).shape

    def array(self, name: ArrayName) -> Any:
        """Open an array for reading, slowly; see train/data/batches.py for a fast way.

        Args:
            name: One of the header's ``arrays``.

        Returns:
            Something with ``shape`` (rows, channels), ``dtype``, and slices that are NumPy arrays.

        Raises:
            StoreError: The store has no such array.
            StoreCorruptError: Its metadata differs from the header.
        """
        raise NotImplementedError

    def stored_bytes(self) -> dict[str, int]:
        """Bytes that each array and ``samples.parquet`` take where they are stored."""
        raise NotImplementedError

    def read_sample(self, index: int) -> dict[str, NDArray[Any]]:
        """Read one sample with zarr-python, for checks and a look.

        Args:
            index: Row of the samples table.

        Returns:
            ``y_hat`` int16 (h, w, C), ``scale_index`` uint8 (h, w, C; the codec's own index, 0 for
            the least sigma_hat, whatever number stands for it in the array), ``z_hat`` int16
            (hz, wz, Cz; add the header's ``z_offset``), ``sigma_hat`` float32 (h, w, C). Of a store
            of pixels, ``pixels`` uint8 (H, W, 3).

        Raises:
            StoreError: The sample has no latents.
            StoreCorruptError: A chunk does not match its checksum.
            StoreUnreachableError: An object cannot be read.
        """
        arrays: dict[str, NDArray[Any]] = {
            name: self.read_grid(index, name) for name in self.header.arrays if name != "sigma_hat"
        }
        codec, numbers = self.header.codec, arrays.get("scale_index")
        if codec is None or numbers is None:
            return arrays
        if numbers.max() >= len(codec.scale_table):
            name = self.samples.column("id")[index].as_py()
            raise StoreCorruptError(
                f"{self.location}: scale_index of sample {index} ({name}): expected less than "
                f"{len(codec.scale_table)}, the length of the scale table, got {numbers.max()}"
            )
        return {
            **arrays,
            "scale_index": scale_indexes(codec)[numbers],
            "sigma_hat": np.asarray(codec.scale_table, np.float32)[numbers],
        }

    def read_grid(self, index: int, name: ArrayName) -> NDArray[Any]:
        """Read one array of one sample, its values as they are stored.

        Args:
            index: Row of the samples table.
            name: One of the header's ``arrays``.

        Returns:
            (h, w, channels).

        Raises:
            StoreError: The sample has no latents.
            StoreCorruptError: A chunk does not match its checksum.
            StoreUnreachableError: An object cannot be read.
        """
        sample = self.samples.slice(index, 1).to_pylist()[0]
        if sample["status"] != OK:
            raise StoreError(
                f"{self.location}: sample {index} ({sample['id']}) has no {self.header.noun}: "
                f"{sample['status']}: {sample['reason']}"
            )
        first, size = sample["first_row"], (sample["latent_height"], sample["latent_width"])
        if name == "z_hat":
            first, size = sample["z_first_row"], self.header.content.z_grid(*size)
        try:
            rows = np.asarray(self.array(name)[first : first + size[0] * size[1]])
        except StoreError:
            raise
        except OSError as error:
            raise unreachable(f"{self.location}/{name}", error) from error
        except (ValueError, RuntimeError) as error:
            raise StoreCorruptError(
                f"{self.location}: {name}, rows from {first}: {error}. An object was altered"
            ) from error
        return rows.reshape(*size, -1)


class ZarrStore(Store):
    """A store whose arrays are Zarr's: a folder, or a prefix in object storage."""

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
        if array.shape != expected or array.dtype != np.dtype(DTYPES[name]):
            raise StoreCorruptError(
                f"{self.location}: {name}: expected {DTYPES[name]} {expected}, "
                f"got {array.dtype} {array.shape}"
            )
        return array

    def stored_bytes(self) -> dict[str, int]:
        """Bytes of the objects that the manifest lists."""
        stored: Counter[str] = Counter()
        for item in self.manifest.objects if self.manifest else ():
            stored[item.path.partition("/")[0]] += item.bytes
        return dict(stored)


def open_store(where: Path | str | Location, *, allow_incomplete: bool = False) -> Store:
    """Open a store for reading.

    Checked are the manifest, that every object is there with its size (where the location can be
    listed), the digests of the metadata and of the samples table, and that the samples lie inside
    the arrays. The latents carry checksums of their own, which are checked when they are read.

    Args:
        where: The store's folder or HDF5 file, its URL (``s3://…``, ``gs://…``,
            ``http(s)://…``), or location.
        allow_incomplete: Open a store that is not finished too, for a look at its header.

    Returns:
        The store.

    Raises:
        StoreFormatError: There is no store, or it is of a version that this reader does not know.
        StoreIncompleteError: The store has no manifest.
        StoreCorruptError: The store differs from its manifest.
        StoreUnreachableError: The location cannot be looked at.
    """
    location = open_location(where)
    if isinstance(location, Folder) and location.is_file():
        from latentset.datasets.store.hdf5.reader import open_hdf5

        return open_hdf5(location)
    header = read_header(location)
    content = _read(location, MANIFEST)
    if content is None:
        if allow_incomplete:
            return ZarrStore(location, header, samples_schema(header).empty_table(), None)
        raise StoreIncompleteError(
            f"{location} is not complete: {MANIFEST} is missing. The job that writes it was "
            f"interrupted or is still running: run the same {header.command} again"
        )
    manifest = parse_manifest(content, str(location))
    samples = _check_objects(location, header, manifest)
    return ZarrStore(location, header, samples, manifest)


def _read(location: Location, path: str) -> bytes | None:
    """Read an object, or None if there is none."""
    try:
        return location.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreachable(f"{location}/{path}", error) from error


def read_header(location: Location) -> Header:
    """Read the header of a store that is made of Zarr objects.

    Args:
        location: Where it lies.

    Returns:
        The header.

    Raises:
        StoreFormatError: There is no store, or it is of a version that this reader does not know.
        StoreUnreachableError: The location cannot be looked at.
    """
    content = _read(location, "zarr.json")
    if content is None and isinstance(location, Bucket) and is_hdf5_name(location.name):
        raise StoreFormatError(
            f"{location}: expected a store of Zarr objects; one in HDF5 is read from a file system "
            "only: copy the file to this machine first"
        )
    if content is None:
        raise StoreFormatError(
            f"{location} is not a LatentSet store: no {location.name}/zarr.json is there; "
            f"expected a "
            "store's folder or address; look at the spelling"
        )
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreFormatError(
            f"{location} is not a LatentSet store: zarr.json cannot be read: {error}"
        ) from error
    if not isinstance(document, dict) or document.get("node_type") != "group":
        raise StoreFormatError(
            f"{location} is not a LatentSet store: zarr.json: expected a Zarr v3 group"
        )
    attributes = document.get("attributes")
    value = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    return parse_header(value, str(location))


def required_objects(header: Header) -> list[str]:
    """Name the objects that a manifest must list.

    Args:
        header: The store's header, its number of shards compared with the manifest's.

    Returns:
        Paths; first those of metadata and samples.
    """
    return [
        "zarr.json",
        SAMPLES,
        *(f"{name}/zarr.json" for name in header.arrays),
        *(f"{name}/c/{k}/0" for name in header.arrays for k in range(header.layout.shards)),
    ]


def _check_objects(location: Location, header: Header, manifest: Manifest) -> pa.Table:
    """Every object is there with its size; small ones have their digest. Return the samples."""
    listed = {item.path: item for item in manifest.objects}
    if header.layout.shards != len(manifest.shards):
        raise StoreCorruptError(
            f"{location}: {MANIFEST}: expected {header.layout.shards} shards (the header's "
            f"layout.shards), got {len(manifest.shards)}"
        )
    required = required_objects(header)
    for name in required:
        if name not in listed:
            raise StoreCorruptError(f"{location}: {MANIFEST} does not list {name}")
    digested = required[: 2 + len(header.arrays)]
    sizes = location.sizes()
    for item in manifest.objects if sizes is not None else ():
        size = (sizes or {}).get(item.path)
        if size != item.bytes:
            found = "is missing" if size is None else f"expected {item.bytes} bytes, got {size}"
            raise _corrupt(location, f"{item.path}: {found}")
    content = {name: _read(location, name) for name in digested}
    for name, found_bytes in content.items():
        if found_bytes is None:
            raise _corrupt(location, f"{name}: is missing")
        if sha256_of(found_bytes) != listed[name].sha256:
            raise _corrupt(location, f"{name} differs from its sha256 in {MANIFEST}")
    for array in header.arrays:
        check_array_metadata(content[f"{array}/zarr.json"] or b"", header, array, str(location))
        for k in range(header.layout.shards):
            if listed[f"{array}/c/{k}/0"].bytes < least_shard_bytes(header, array):
                raise _corrupt(
                    location, f"{array}/c/{k}/0: is too small for the index of its chunks"
                )
    samples = parse_samples(content[SAMPLES] or b"", header, str(location))
    counted = count_samples(samples)
    if counted != manifest.samples:
        raise StoreCorruptError(
            f"{location}: {SAMPLES}: expected {manifest.samples} (as {MANIFEST} says), got "
            f"{counted}"
        )
    return samples


def _corrupt(location: Location, what: str) -> StoreCorruptError:
    return StoreCorruptError(f"{location}: {what}")
