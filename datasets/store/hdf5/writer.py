"""Writing a store as one HDF5 file (docs/store-spec.md, 8): parts first, then the file.

A part is a small HDF5 file with one shard of every array, made in memory by one task. ``assemble``
copies the chunks of all parts, as they are, into one file under another name, adds the samples
table, the header and the manifest, then the user block with the digest of all this, flushes, and
renames. So the file is there whole or not at all.

The same rows give the same bytes, with the same versions of HDF5 and zlib.
"""

import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.storage.folder import flush_folder
from latentset.datasets.storage.location import PARTIAL
from latentset.datasets.store.arrays import DTYPES, array_form
from latentset.datasets.store.hdf5.chunks import ChunkedDataset, create_dataset
from latentset.datasets.store.hdf5.filters import encode_chunk
from latentset.datasets.store.hdf5.table import text_type, write_samples
from latentset.datasets.store.header import ATTRIBUTE, ArrayName, FormatVersion, Header
from latentset.datasets.store.manifest import Manifest, ShardSummary, count_samples
from latentset.datasets.store.objects import Digest, describe_object

MANIFEST_ATTRIBUTE = "manifest"
"""Name of the root group's attribute that holds the manifest."""

USER_BLOCK = 512
"""Bytes before the HDF5 part of the file."""

_READ_BYTES = 1 << 24


def array_grid(header: Header, name: ArrayName, shards: int) -> tuple[tuple[int, int], int]:
    """Shape and chunks of an array in a file.

    Args:
        header: The store's header.
        name: Name of the array.
        shards: Number of shards in the file.

    Returns:
        Shape (channels, rows), and the rows of a chunk.
    """
    form = array_form(header, name)
    return (form.channels, shards * form.shard_rows), form.chunk_rows


def array_dtype(name: ArrayName) -> np.dtype[Any]:
    """Data type of an array in a file, little-endian.

    Args:
        name: Name of the array.

    Returns:
        The data type.
    """
    return np.dtype(DTYPES[name]).newbyteorder("<")


def encode_part(header: Header, index: int, rows: Mapping[ArrayName, NDArray[Any]]) -> bytes:
    """Encode one shard of every array as the image of a small HDF5 file.

    Args:
        header: The store's header.
        index: Number of the shard; for messages only, the part does not say which it is.
        rows: For each array of the header, all rows of the shard (rows, channels)
            (``writer.ShardBuffer.rows``).

    Returns:
        The file. The same rows give the same bytes.

    Raises:
        StoreError: An array is missing, of another shape or of another type.
    """
    with _new_file(None) as file:
        for name in header.arrays:
            (channels, count), chunk = array_grid(header, name, 1)
            values, dtype = rows.get(name), array_dtype(name)
            if values is None or values.shape != (count, channels) or values.dtype != dtype:
                found = None if values is None else f"{values.dtype} {values.shape}"
                raise StoreError(
                    f"shard {index}: {name}: expected {dtype} {(count, channels)}, got {found}"
                )
            dataset = _create_array(file, header, name, 1)
            for first in range(0, count, chunk):
                stored = encode_chunk(values[first : first + chunk].T.astype(dtype, copy=False))
                dataset.write_direct_chunk((0, first), stored)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def extract_part(header: Header, index: int, arrays: Mapping[ArrayName, ChunkedDataset]) -> bytes:
    """Make the part of one shard from a file that was put together, chunks as they are.

    Args:
        header: The store's header.
        index: Number of the shard.
        arrays: The store's arrays.

    Returns:
        What ``encode_part`` gave for the shard.

    Raises:
        StoreCorruptError: A chunk cannot be read.
    """
    with _new_file(None) as file:
        for name in header.arrays:
            (_, count), chunk = array_grid(header, name, 1)
            dataset = _create_array(file, header, name, 1)
            for first in range(0, count, chunk):
                stored = arrays[name].stored_chunk((index * count + first) // chunk)
                dataset.write_direct_chunk((0, first), stored)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def assemble(
    path: Path,
    header: Header,
    parts: Iterable[bytes],
    *,
    fingerprint: str,
    samples: pa.Table,
    shards: Iterable[ShardSummary],
) -> Manifest:
    """Write a store's file from the parts of all shards; it appears whole or not at all.

    What an earlier writer of the same file left behind is removed, so there must be only one.

    Args:
        path: The file; one that is there is replaced.
        header: The store's header.
        parts: What ``encode_part`` gave, of shard 0, 1, 2, … Only one is in memory at a time.
        fingerprint: Of the settings.
        samples: The samples table.
        shards: All shards, in order.

    Returns:
        The manifest, as it is in the file.

    Raises:
        StoreError: The file cannot be written, the number of parts is wrong, or a text of the
            samples table holds a NUL.
        StoreCorruptError: A part is not what ``encode_part`` gives for this header.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_partial(path)
        with _new_file(partial) as file:
            manifest = _fill(file, header, parts, fingerprint, samples, tuple(shards))
        _seal(partial, header.format_version)
        partial.replace(path)
        flush_folder(path.parent)
    except StoreError:
        raise
    except (OSError, RuntimeError) as error:  # h5py gives some errors of the disk as RuntimeError
        raise StoreError(
            f"cannot write {path}: {error}. Make room or give permission, then run the same "
            "command again"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return manifest


def sweep_partial(path: Path) -> None:
    """Remove what writers of a file that were killed left behind.

    Args:
        path: The file that they were writing.
    """
    for left in path.parent.glob(f".{path.name}{PARTIAL}*"):
        left.unlink(missing_ok=True)


def user_block(size: int, sha256: str, version: FormatVersion) -> bytes:
    """The first 512 bytes of a file: one line of JSON, then zeros.

    Args:
        size: Bytes of the whole file.
        sha256: Digest of everything after the user block.
        version: Of the store.

    Returns:
        The bytes.
    """
    line = {
        "format": "latentset-hdf5",
        "format_version": version,
        "bytes": size,
        "sha256": sha256,
    }
    return (json.dumps(line) + "\n").encode().ljust(USER_BLOCK, b"\0")


@contextmanager
def _new_file(path: Path | None) -> Iterator[h5py.File]:
    """Make an HDF5 file all of whose metadata have checksums; in memory where there is no path.

    The format of HDF5 1.10 is the oldest that has them, and is read by everything since 2016.
    """
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    if path is None:
        access.set_fapl_core(_READ_BYTES, False)
    else:
        creation.set_userblock(USER_BLOCK)
    # HDF5 knows open files by name, also those in memory, and a process may have several.
    name = secrets.token_hex(8).encode() if path is None else os.fsencode(path)
    file = h5py.File(h5py.h5f.create(name, h5py.h5f.ACC_EXCL, creation, access))
    try:
        yield file
    finally:
        file.close()


def _create_array(
    file: h5py.File, header: Header, name: ArrayName, shards: int
) -> h5py.h5d.DatasetID:
    shape, chunk = array_grid(header, name, shards)
    kind = h5py.h5t.py_create(array_dtype(name))
    return create_dataset(file, name, kind, shape, chunk)


def _fill(
    file: h5py.File,
    header: Header,
    parts: Iterable[bytes],
    fingerprint: str,
    samples: pa.Table,
    shards: tuple[ShardSummary, ...],
) -> Manifest:
    """Write everything but the user block."""
    count = header.layout.shards
    datasets = {name: _create_array(file, header, name, count) for name in header.arrays}
    digests = {name: Digest() for name in header.arrays}
    written = 0
    for index, part in enumerate(parts):
        if index < count:
            _copy_part(part, index, header, datasets, digests)
        written += 1
    if written != count:
        raise StoreError(f"expected {count} parts (the header's layout.shards), got {written}")
    objects = [digest.describe(name) for name, digest in digests.items()]
    objects += write_samples(file, samples, header)
    text = header.model_dump_json().encode()
    _write_attribute(file, ATTRIBUTE, text)
    objects.append(describe_object(ATTRIBUTE, text))
    manifest = Manifest(
        format_version=header.format_version,
        fingerprint=fingerprint,
        samples=count_samples(samples),
        shards=shards,
        objects=tuple(sorted(objects, key=lambda item: item.path)),
    )
    _write_attribute(file, MANIFEST_ATTRIBUTE, manifest.to_bytes())
    return manifest


def _copy_part(
    part: bytes,
    index: int,
    header: Header,
    datasets: Mapping[ArrayName, h5py.h5d.DatasetID],
    digests: Mapping[ArrayName, Digest],
) -> None:
    """Copy the chunks of a part to their location in the file."""
    try:
        with h5py.File(io.BytesIO(part), "r") as source:
            for name, dataset in datasets.items():
                shape, chunk = array_grid(header, name, 1)
                found = source[name]
                if found.shape != shape or found.chunks != (shape[0], chunk):
                    raise ValueError(f"{name}: expected {shape}, got {found.shape}")
                for first in range(0, shape[1], chunk):
                    mask, stored = found.id.read_direct_chunk((0, first))
                    if mask:
                        raise ValueError(f"{name}: a chunk was not filtered")
                    dataset.write_direct_chunk((0, index * shape[1] + first), stored)
                    digests[name].update(stored)
    except (KeyError, ValueError, AttributeError) as error:
        raise StoreCorruptError(f"part {index} of the HDF5 file is not valid: {error}") from error


def _write_attribute(file: h5py.File, name: str, text: bytes) -> None:
    """Write a text of any length; beyond 64 KiB HDF5 stores it outside the group's header."""
    kind = text_type(len(text))
    attribute = h5py.h5a.create(file.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    attribute.write(np.array(text, f"S{len(text)}"), mtype=kind)


def _seal(path: Path, version: FormatVersion) -> None:
    """Write the user block and flush the file to the device."""
    digest = digest_after_user_block(path)
    with path.open("r+b") as file:
        file.write(user_block(path.stat().st_size, digest, version))
        file.flush()
        os.fsync(file.fileno())


def digest_after_user_block(path: Path) -> str:
    """Digest a file without its first 512 bytes.

    Args:
        path: The file.

    Returns:
        SHA-256, 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(USER_BLOCK)
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
