"""Writing a store as one HDF5 file (docs/store-spec.md, 8).

The chunks of all shards, then the samples table, the header and the manifest, then the user block
with the digest of all this go to a file of another name, which is flushed and renamed: the file is
there whole or not at all. The same rows give the same bytes, with the same versions of HDF5 and
zlib.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import pyarrow as pa
from numpy.typing import NDArray

from latentset.datasets.errors import StoreError, expect
from latentset.datasets.storage.atomic import PARTIAL, atomic_file
from latentset.datasets.store.arrays import array_form
from latentset.datasets.store.digests import Digest, describe_object
from latentset.datasets.store.hdf5.chunks import array_dtype, create_dataset
from latentset.datasets.store.hdf5.filters import encode_chunk
from latentset.datasets.store.hdf5.metadata import (
    MANIFEST_ATTRIBUTE,
    digest_after_user_block,
    user_block,
    write_attribute,
)
from latentset.datasets.store.hdf5.object_headers import USER_BLOCK
from latentset.datasets.store.hdf5.table import write_samples
from latentset.datasets.store.header import ATTRIBUTE, ArrayName, Header
from latentset.datasets.store.manifest import Manifest, ShardSummary, count_samples

StoredChunks = Mapping[ArrayName, Iterable[bytes]]
"""The chunks of one shard of every array, as they are stored, in order."""


def encode_shard(header: Header, rows: Mapping[ArrayName, NDArray[Any]]) -> StoredChunks:
    """Encode all rows of a shard, (rows, channels) for each array of the header."""
    chunks: dict[ArrayName, list[bytes]] = {}
    for name in header.arrays:
        form, dtype, values = array_form(header, name), array_dtype(name), rows.get(name)
        shape = (form.shard_rows, form.channels)
        if values is None or values.shape != shape or values.dtype != dtype:
            found = None if values is None else f"{values.dtype} {values.shape}"
            raise StoreError(f"{name}: expected {dtype} {shape}, got {found}")
        chunks[name] = [
            encode_chunk(values[first : first + form.chunk_rows].T.astype(dtype, copy=False))
            for first in range(0, form.shard_rows, form.chunk_rows)
        ]
    return chunks


def write_hdf5(
    path: Path,
    header: Header,
    shards: Iterable[StoredChunks],
    *,
    fingerprint: str,
    samples: pa.Table,
    summaries: Iterable[ShardSummary],
) -> Manifest:
    """Write a store's file, or replace it, in one step at the end.

    Of ``shards``, which come in order, one is in memory at a time; ``summaries`` are theirs. What
    an earlier writer of the same file left behind is removed, so there must be only one.

    Raises:
        StoreError: The file cannot be written, the number of shards or chunks is wrong, or a text
            of the samples table holds a NUL.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}{PARTIAL}*"):
            left.unlink(missing_ok=True)
        with atomic_file(path) as partial:
            with _new_file(partial) as file:
                manifest = _fill(file, header, shards, fingerprint, samples, tuple(summaries))
            digest = digest_after_user_block(partial)
            with partial.open("r+b") as raw:
                raw.write(user_block(partial.stat().st_size, digest, header.format_version))
    except StoreError:
        raise
    except (OSError, RuntimeError) as error:  # h5py gives some errors of the disk as RuntimeError
        raise StoreError(
            f"cannot write {path}: {error}. Make room or give permission, then run the same "
            "command again"
        ) from error
    return manifest


def _new_file(path: Path) -> h5py.File:
    """Make an HDF5 file all of whose metadata have checksums.

    The format of HDF5 1.10 is the oldest that has them, and is read by everything since 2016.
    """
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    creation.set_userblock(USER_BLOCK)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, access))


def _fill(
    file: h5py.File,
    header: Header,
    shards: Iterable[StoredChunks],
    fingerprint: str,
    samples: pa.Table,
    summaries: tuple[ShardSummary, ...],
) -> Manifest:
    count, written = header.layout.shards, 0
    forms = {name: array_form(header, name) for name in header.arrays}
    datasets = {
        name: create_dataset(
            file, name, h5py.h5t.py_create(array_dtype(name)), form.shape[::-1], form.chunk_rows
        )
        for name, form in forms.items()
    }
    digests = {name: Digest() for name in header.arrays}
    for index, shard in enumerate(shards):
        for name, form in forms.items() if index < count else ():
            starts = range(index * form.shard_rows, (index + 1) * form.shard_rows, form.chunk_rows)
            chunks = list(shard[name])
            expect(f"shard {index}: {name}: chunks", len(starts), len(chunks), StoreError)
            for first, stored in zip(starts, chunks, strict=True):
                datasets[name].write_direct_chunk((0, first), stored)
                digests[name].update(stored)
        written += 1
    expect("shards (the header's layout.shards)", count, written, StoreError)
    objects = [digest.describe(name) for name, digest in digests.items()]
    objects += write_samples(file, samples, header)
    text = header.model_dump_json().encode()
    write_attribute(file, ATTRIBUTE, text)
    objects.append(describe_object(ATTRIBUTE, text))
    manifest = Manifest(
        format_version=header.format_version,
        fingerprint=fingerprint,
        samples=count_samples(samples),
        shards=summaries,
        objects=tuple(sorted(objects, key=lambda item: item.path)),
    )
    write_attribute(file, MANIFEST_ATTRIBUTE, manifest.to_bytes())
    return manifest
