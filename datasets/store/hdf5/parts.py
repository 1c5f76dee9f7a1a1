"""Shards as small HDF5 files; only until `latentset encode` writes Zarr and converts it."""

import io
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import pyarrow as pa
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.store.arrays import array_form
from latentset.datasets.store.hdf5.chunks import ChunkedDataset, array_dtype, create_dataset
from latentset.datasets.store.hdf5.writer import StoredChunks, encode_shard, write_hdf5
from latentset.datasets.store.header import ArrayName, Header
from latentset.datasets.store.manifest import Manifest, ShardSummary


def encode_part(header: Header, index: int, rows: Mapping[ArrayName, NDArray[Any]]) -> bytes:
    """Encode one shard of every array as the image of a small HDF5 file."""
    try:
        return _image(header, encode_shard(header, rows))
    except StoreError as error:
        raise StoreError(f"shard {index}: {error}") from error


def extract_part(header: Header, index: int, arrays: Mapping[ArrayName, ChunkedDataset]) -> bytes:
    """Make the part of one shard from a file that was assembled, chunks as they are."""
    chunks: dict[ArrayName, list[bytes]] = {}
    for name in header.arrays:
        form = array_form(header, name)
        count = form.shard_rows // form.chunk_rows
        chunks[name] = [
            arrays[name].stored_chunk(k) for k in range(index * count, (index + 1) * count)
        ]
    return _image(header, chunks)


def assemble(
    path: Path,
    header: Header,
    parts: Iterable[bytes],
    *,
    fingerprint: str,
    samples: pa.Table,
    shards: Iterable[ShardSummary],
) -> Manifest:
    """Write a store's file from the parts of all shards."""
    read = (_read_part(part, index, header) for index, part in enumerate(parts))
    return write_hdf5(
        path, header, read, fingerprint=fingerprint, samples=samples, summaries=shards
    )


def _image(header: Header, chunks: StoredChunks) -> bytes:
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_fapl_core(1 << 24, False)
    name = secrets.token_hex(8).encode()  # HDF5 knows open files by name, also those in memory
    with h5py.File(h5py.h5f.create(name, h5py.h5f.ACC_EXCL, creation, access)) as file:
        for array, stored in chunks.items():
            form = array_form(header, array)
            shape, kind = (form.channels, form.shard_rows), h5py.h5t.py_create(array_dtype(array))
            dataset = create_dataset(file, array, kind, shape, form.chunk_rows)
            for k, chunk in enumerate(stored):
                dataset.write_direct_chunk((0, k * form.chunk_rows), chunk)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _read_part(part: bytes, index: int, header: Header) -> StoredChunks:
    def chunks(dataset: h5py.Dataset, step: int) -> Iterator[bytes]:
        for first in range(0, dataset.shape[1], step):
            mask, stored = dataset.id.read_direct_chunk((0, first))
            if mask:
                raise ValueError("a chunk was not filtered")
            yield stored

    found: dict[ArrayName, list[bytes]] = {}
    try:
        with h5py.File(io.BytesIO(part), "r") as source:
            for name in header.arrays:
                form = array_form(header, name)
                shape, dataset = (form.channels, form.shard_rows), source[name]
                if dataset.shape != shape or dataset.chunks != (shape[0], form.chunk_rows):
                    raise ValueError(f"{name}: expected {shape}, got {dataset.shape}")
                found[name] = list(chunks(dataset, form.chunk_rows))
    except (KeyError, ValueError, AttributeError) as error:
        raise StoreCorruptError(f"part {index} of the HDF5 file is not valid: {error}") from error
    return found
