"""The samples table as datasets of an HDF5 file, one a column (docs/store-spec.md, 8)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreFormatError
from latentset.datasets.store.digests import Digest, StoredObject
from latentset.datasets.store.hdf5.chunks import ChunkedDataset, create_dataset
from latentset.datasets.store.hdf5.filters import encode_chunk
from latentset.datasets.store.hdf5.metadata import text_type
from latentset.datasets.store.hdf5.object_headers import STRUCTURE_ERRORS, check_group, read_parts
from latentset.datasets.store.header import Header
from latentset.datasets.store.samples import (
    SAMPLES_GROUP,
    check_memory,
    check_text_size,
    samples_schema,
)

COLUMN_CHUNK_BYTES = 1 << 20
"""Size of a chunk of a column of the samples table, before compression, at most."""

MAX_COLUMN_CHUNK_BYTES = 1 << 26
"""Largest chunk of a column of the samples table that is read, before compression."""

NUMBERS: dict[Any, np.dtype[Any]] = {
    pa.int32(): np.dtype("<i4"),
    pa.int64(): np.dtype("<i8"),
    pa.float64(): np.dtype("<f8"),
}
"""Data type in the file of each column that holds numbers; nulls are NaN."""


def write_samples(file: h5py.File, samples: pa.Table, header: Header) -> list[StoredObject]:
    """Write the samples table; return each dataset, as the manifest lists it.

    Raises:
        StoreError: A text holds a NUL, which the end of a text is padded with.
    """
    settings = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    settings.set_obj_track_times(False)
    group = h5py.Group(h5py.h5g.create(file.id, SAMPLES_GROUP.encode(), gcpl=settings))
    objects = []
    for field in samples_schema(header):
        values, kind = _column(samples.column(field.name), field)
        chunk = max(1, min(len(values), COLUMN_CHUNK_BYTES // values.itemsize))
        dataset = create_dataset(group, field.name, kind, values.shape, chunk)
        digest = Digest()
        for first in range(0, len(values), chunk):
            piece = np.zeros(chunk, values.dtype)
            piece[: len(values) - first] = values[first : first + chunk]
            stored = encode_chunk(piece)
            dataset.write_direct_chunk((first,), stored)
            digest.update(stored)
        objects.append(digest.describe(f"{SAMPLES_GROUP}/{field.name}"))
    return objects


def _column(column: pa.ChunkedArray, field: pa.Field) -> tuple[NDArray[Any], h5py.h5t.TypeID]:
    if not pa.types.is_string(field.type):
        dtype = NUMBERS[field.type]
        values = pc.fill_null(column, float("nan")) if field.nullable else column
        return values.to_numpy().astype(dtype, copy=False), h5py.h5t.py_create(dtype)
    if pc.any(pc.match_substring(column, "\0")).as_py():
        raise StoreError(f"samples table: column {field.name!r}: texts must not hold a NUL")
    width = max(1, pc.max(pc.binary_length(column)).as_py() or 0)
    values = np.array([text.encode() for text in column.to_pylist()], f"S{width}")
    return values, text_type(width)


def read_samples(file: h5py.File, header: Header, path: Path) -> pa.Table:
    """Read the samples table, a chunk of a column at a time.

    Raises:
        StoreCorruptError: A column is missing, or not what it should be.
    """
    columns, schema = dict(find_columns(file, header, path)), samples_schema(header)
    rows, where = header.source.samples, f"{path}: {SAMPLES_GROUP}"
    stored = sum(int(dataset.sizes.sum()) for dataset in columns.values())
    text_bytes, arrays = 0, []
    for field in schema:
        dataset, rest = columns[field.name], rows
        pieces = []
        for k in range(dataset.chunks):
            values = dataset.read_chunk(k)[:rest]
            rest -= len(values)
            pieces.append(_to_arrow(values, field, path))
            text_bytes += pieces[-1].nbytes if values.dtype.kind == "S" else 0
            check_memory(rows, text_bytes, stored, where)
        arrays.append(pa.chunked_array(pieces, field.type))
    return pa.table(arrays, schema=schema)


def open_group(file: h5py.File, path: Path) -> h5py.Group:
    """Open the group of the columns, after a look at its structure; raises as ``read_samples``."""
    try:
        link = file.id.links.get_info(SAMPLES_GROUP.encode())
        if link.type != h5py.h5l.TYPE_HARD:
            raise ValueError("it is a link")
        with read_parts(path) as read:
            check_group(read, link.u, f"{path}: {SAMPLES_GROUP}")
        return h5py.Group(h5py.h5g.open(file.id, SAMPLES_GROUP.encode()))
    except StoreError:
        raise
    except (ValueError, OSError, RuntimeError, *STRUCTURE_ERRORS) as error:
        raise StoreCorruptError(f"{path}: group {SAMPLES_GROUP!r}: {error}") from error


def find_columns(
    file: h5py.File, header: Header, path: Path
) -> Iterator[tuple[str, ChunkedDataset]]:
    """Find the columns of the samples table; raises as ``read_samples``."""
    where, shape = f"{path}: {SAMPLES_GROUP}", (header.source.samples,)
    check_memory(header.source.samples, 0, path.stat().st_size, where)
    group = open_group(file, path)
    for field in samples_schema(header):
        dtype = NUMBERS.get(field.type)
        dataset = ChunkedDataset(group, field.name, path, shape, None, dtype)
        if dataset.chunk * dataset.dtype.itemsize > MAX_COLUMN_CHUNK_BYTES:
            raise StoreFormatError(
                f"{path}: {SAMPLES_GROUP}/{field.name}: expected chunks of at most "
                f"{MAX_COLUMN_CHUNK_BYTES} bytes, got {dataset.chunk * dataset.dtype.itemsize}"
            )
        if dtype is None:
            check_text_size(dataset.dtype.itemsize, f"{where}/{field.name}")
        yield field.name, dataset


def _to_arrow(values: NDArray[Any], field: pa.Field, path: Path) -> pa.Array:
    """A chunk of a column; NaN is null where nulls are allowed."""
    if values.dtype.kind != "S":
        return pa.array(values, field.type, from_pandas=field.nullable)
    try:  # the list's texts end before the NULs that they are padded with
        return pa.array(values.tolist(), pa.binary()).cast(pa.string())
    except pa.ArrowInvalid as error:
        where = f"{path}: {SAMPLES_GROUP}/{field.name}"
        raise StoreCorruptError(f"{where}: not UTF-8: {error}") from error
