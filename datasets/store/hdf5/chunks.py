"""Datasets of an HDF5 store, found and checked by HDF5, read without it (docs/store-spec.md, 8)."""

import os
import weakref
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError, StoreFormatError, expect
from latentset.datasets.store.arrays import DTYPES
from latentset.datasets.store.hdf5.filters import (
    CHECKSUM_BYTES,
    DEFLATE_SWELLING,
    LEVEL,
    decode_chunk,
    most_stored,
)
from latentset.datasets.store.hdf5.object_headers import check_dataset, check_index, read_parts
from latentset.datasets.store.header import ArrayName

_INDEX_ENTRY_BYTES = 12
"""Bytes that the index of chunks has for each, at least."""


def create_dataset(
    group: h5py.Group, name: str, kind: h5py.h5t.TypeID, shape: tuple[int, ...], chunk: int
) -> h5py.h5d.DatasetID:
    """Create a dataset for ``write_direct_chunk``, without times in it.

    Its chunks are ``chunk`` long along the last axis, and whole along the others.
    """
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((*shape[:-1], chunk))
    settings.set_deflate(LEVEL)
    settings.set_fletcher32()
    settings.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    return h5py.h5d.create(group.id, name.encode(), kind, space, settings)


def array_dtype(name: ArrayName) -> np.dtype[Any]:
    """Data type of an array in a file, little-endian."""
    return np.dtype(DTYPES[name]).newbyteorder("<")


class ChunkedDataset:
    """A dataset whose chunks were found, and checked to be inside the file; decoded on demand.

    Several threads may read it at a time: HDF5 is not used after construction. Without ``chunk``
    any length of a chunk along the last axis is accepted, without ``dtype`` texts of fixed length.

    Raises:
        StoreFormatError: It is not stored the way docs/store-spec.md, 8, requires.
        StoreCorruptError: It is missing, of another shape or type, or leads out of the file.
    """

    def __init__(
        self,
        group: h5py.Group,
        name: str,
        path: Path,
        shape: tuple[int, ...],
        chunk: int | None,
        dtype: np.dtype[Any] | None,
    ) -> None:
        self._where = f"{path}: {group.name.rstrip('/')}/{name}".replace(": /", ": ")
        address = self._address(group, name)
        self.shape = shape
        with read_parts(path) as read:
            index = check_dataset(read, address, self._where)
        identifier = h5py.h5d.open(group.id, name.encode())
        self.dtype = self._check_type(identifier, dtype)
        settings = identifier.get_create_plist()
        self._check_storage(settings)
        expect(f"{self._where}: shape", shape, identifier.shape)
        chunks = settings.get_chunk()
        expected = (*shape[:-1], chunks[-1] if chunk is None else chunk)
        expect(f"{self._where}: chunks", expected, chunks)
        self.chunk = int(chunks[-1])
        self._chunk_shape = chunks
        self._chunk_bytes = int(np.prod([int(n) for n in chunks], dtype=object))
        self._chunk_bytes *= self.dtype.itemsize
        self.chunks = -(-shape[-1] // self.chunk)
        with read_parts(path) as read:
            check_index(read, index, self.chunks, self._where)
        self._offsets, self.sizes = self._find_chunks(identifier, path.stat().st_size)
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._offsets += self._base(identifier)

    def _address(self, group: h5py.Group, name: str) -> int:
        """Where the dataset's object header is."""
        try:
            # Soft and external links could lead elsewhere, into other files even.
            link = group.id.links.get_info(name.encode())
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise self._corrupt(f"cannot be opened: {error}") from error
        if link.type != h5py.h5l.TYPE_HARD:
            raise StoreFormatError(f"{self._where}: expected a dataset, got a link")
        return int(link.u)

    def _check_type(
        self, identifier: h5py.h5d.DatasetID, dtype: np.dtype[Any] | None
    ) -> np.dtype[Any]:
        kind = identifier.get_type()
        if dtype is None:
            if not isinstance(kind, h5py.h5t.TypeStringID) or kind.is_variable_str():
                raise self._corrupt("expected strings of fixed length")
            return np.dtype(f"S{kind.get_size()}")
        found = kind.dtype if isinstance(kind, h5py.h5t.TypeAtomicID) else None
        if found != dtype or isinstance(kind, h5py.h5t.TypeStringID):
            raise self._corrupt(f"expected {dtype}, got {found or kind}")
        return dtype

    def _check_storage(self, settings: h5py.h5p.PropDCID) -> None:
        if settings.get_layout() != h5py.h5d.CHUNKED or settings.get_external_count():
            raise StoreFormatError(f"{self._where}: expected chunks inside the file")
        filters = [settings.get_filter(k)[0] for k in range(settings.get_nfilters())]
        expected = [h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32]
        what = f"{self._where}: HDF5's numbers of the filters deflate and fletcher32"
        expect(what, expected, filters, StoreFormatError)

    def _find_chunks(
        self, identifier: h5py.h5d.DatasetID, file_bytes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Offset and size of every chunk. Nothing is trusted before it was counted."""
        if (
            self.chunks * _INDEX_ENTRY_BYTES > file_bytes
            or identifier.get_num_chunks() != self.chunks
        ):
            raise self._corrupt(
                f"expected {self.chunks} chunks, got {identifier.get_num_chunks()}: "
                "chunks are missing"
            )
        offsets = np.full(self.chunks, -1, np.int64)
        sizes = np.zeros(self.chunks, np.int64)
        masks = 0

        def note(chunk: Any) -> None:
            nonlocal masks
            k = chunk.chunk_offset[-1] // self.chunk
            offsets[k], sizes[k] = chunk.byte_offset, chunk.size
            masks |= chunk.filter_mask

        try:
            identifier.chunk_iter(note)
        except (RuntimeError, OSError, ValueError, IndexError, OverflowError) as error:
            raise self._corrupt(f"its chunks cannot be found: {error}") from error
        if masks or (offsets < 0).any():
            raise self._corrupt("chunks are missing, or not filtered")
        limit = most_stored(self._chunk_bytes)
        if (sizes > limit).any() or (sizes <= CHECKSUM_BYTES).any():
            raise self._corrupt(f"expected chunks of 5 to {limit} bytes, got {sizes.max()}")
        if (offsets > file_bytes - sizes).any() or sizes.sum() > file_bytes:
            raise self._corrupt("chunks are beyond the end of the file, or overlap")
        if (sizes < self._chunk_bytes // DEFLATE_SWELLING).any():
            raise self._corrupt("chunks are too small for what they claim")
        return offsets, sizes

    def _base(self, identifier: h5py.h5d.DatasetID) -> int:
        """What is to be added to chunks' offsets.

        Versions of HDF5 differ in whether the user block is counted: try both.
        """
        try:
            content = identifier.read_direct_chunk((0,) * len(self.shape))[1]
        except (OSError, RuntimeError, ValueError) as error:
            raise self._corrupt(f"the first chunk cannot be read: {error}") from error
        for base in (0, h5py.h5i.get_file_id(identifier).get_create_plist().get_userblock()):
            if os.pread(self._descriptor, len(content), int(self._offsets[0]) + base) == content:
                return int(base)
        raise self._corrupt("the first chunk is not at its offset")

    def stored_chunk(self, k: int) -> bytes:
        """Read chunk ``k`` of the last axis as it is stored: compressed, with its checksum."""
        size = int(self.sizes[k])
        try:
            content = os.pread(self._descriptor, size, int(self._offsets[k]))
        except OSError as error:
            raise self._corrupt(f"chunk {k} cannot be read: {error.strerror}") from error
        expect(f"{self._where}: bytes of chunk {k}", size, len(content))
        return content

    def read_chunk(self, k: int) -> NDArray[Any]:
        """Read and check a chunk, whole also where it extends beyond the dataset.

        Raises:
            StoreCorruptError: It differs from its checksum.
        """
        return self.decode(self.stored_chunk(k), k)

    def decode(self, stored: bytes, k: int) -> NDArray[Any]:
        """Check and decode what ``stored_chunk`` gave for ``k``; raises as ``read_chunk``."""
        try:
            content = decode_chunk(stored, self._chunk_bytes)
        except ValueError as error:
            raise self._corrupt(f"chunk {k}: {error}") from error
        return np.frombuffer(content, self.dtype).reshape(self._chunk_shape)

    def read_into(self, target: NDArray[Any], first: int) -> None:
        """Fill ``target`` from ``first`` on along the last axis; raises as ``read_chunk``."""
        done, count = 0, target.shape[-1]
        while done < count:
            k, start = divmod(first + done, self.chunk)
            step = min(self.chunk - start, count - done)
            target[..., done : done + step] = self.read_chunk(k)[..., start : start + step]
            done += step

    def _corrupt(self, what: str) -> StoreCorruptError:
        return StoreCorruptError(f"{self._where}: {what}. The file was altered or lost a part")
