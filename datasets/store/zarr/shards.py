"""Shards as our writer makes them, read without zarr-python (docs/store-spec.md, 4.2).

zarr-python takes ten times as long for a chunk of one sample. No thread and no open file is kept,
so that a process may be forked at any time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError, expect
from latentset.datasets.storage.access import reading
from latentset.datasets.store.arrays import array_form
from latentset.datasets.store.digests import StoredObject
from latentset.datasets.store.header import ArrayName, Header

_ENTRY_BYTES, _CRC_BYTES, _BLOSC_HEADER = 16, 4, 16


class Parts(Protocol):
    """Objects of which parts can be read."""

    def read_part(self, path: str, first: int, size: int) -> bytes:
        """Read bytes from ``first`` on, fewer at the end; OSError on trouble."""


class ShardedArray:
    """An array whose chunks are found by the shards' indexes; several threads may read it.

    ``repair`` is called with the paths of a damaged shard, before it is read once more.
    """

    def __init__(
        self,
        location: Parts,
        header: Header,
        name: ArrayName,
        listed: Mapping[str, StoredObject],
        repair: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        self._repair = repair
        self._location, self._name, self._listed = location, name, listed
        form = array_form(header, name)
        self._chunk_shape = (form.channels, form.chunk_rows)
        self._chunks = form.shard_rows // form.chunk_rows  # of a shard
        self.dtype = np.dtype(form.dtype)
        self._indexes: dict[int, NDArray[np.uint64]] = {}

    def read_into(self, target: NDArray[Any], first: int) -> None:
        """Fill ``target`` (channels, rows) from row ``first`` on; StoreCorruptError on damage."""
        chunk_rows, done = self._chunk_shape[1], 0
        while done < target.shape[1]:
            chunk, start = divmod(first + done, chunk_rows)
            step = min(chunk_rows - start, target.shape[1] - done)
            target[:, done : done + step] = self._read_chunk(chunk)[:, start : start + step]
            done += step

    def _read_chunk(self, number: int) -> NDArray[Any]:
        try:
            return self._read_sound_chunk(number)
        except StoreCorruptError:
            if self._repair is None:
                raise
        shard = number // self._chunks
        self._repair([self._path(shard)])
        self._indexes.pop(shard, None)
        return self._read_sound_chunk(number)

    def _read_sound_chunk(self, number: int) -> NDArray[Any]:
        shard, k = divmod(number, self._chunks)
        first, size = self._index(shard)[k].tolist()
        path = self._path(shard)
        values = np.empty(self._chunk_shape, self.dtype.newbyteorder("<"))
        if not _BLOSC_HEADER < size <= values.nbytes + _BLOSC_HEADER + _CRC_BYTES:
            raise self._corrupt(path, f"chunk {k} is missing, or of an impossible size")
        if first + size > self._listed[path].bytes - self._index_bytes:
            raise self._corrupt(path, f"chunk {k} is beyond the end of the shard")
        content = self._read_checked(path, first, size, f"chunk {k}")
        # Blosc's header says how many bytes come out: no more room is made for anything else.
        expect(
            f"{self._location}: {path}: bytes of chunk {k}, decompressed",
            values.nbytes,
            int.from_bytes(content[4:8], "little"),
        )
        try:
            blosc.decompress(content, values)
        except (RuntimeError, ValueError) as error:
            raise self._corrupt(path, f"chunk {k}: {error}") from error
        return values

    def _index(self, shard: int) -> NDArray[np.uint64]:
        """(offset, bytes) of each chunk of a shard, kept."""
        if shard not in self._indexes:
            path = self._path(shard)
            first = self._listed[path].bytes - self._index_bytes
            content = self._read_checked(path, first, self._index_bytes, "the index of its chunks")
            self._indexes[shard] = np.frombuffer(content, "<u8").reshape(self._chunks, 2)
        return self._indexes[shard]

    @property
    def _index_bytes(self) -> int:
        return self._chunks * _ENTRY_BYTES + _CRC_BYTES

    def _path(self, shard: int) -> str:
        return f"{self._name}/c/{shard}/0"

    def _read_checked(self, path: str, first: int, size: int, what: str) -> bytes:
        """Read bytes that end with their crc32c, without it."""
        with reading(f"{self._location}/{path}"):
            try:
                content = self._location.read_part(path, first, size)
            except FileNotFoundError as error:
                raise self._corrupt(path, "is missing") from error
        body, checksum = content[:-_CRC_BYTES], content[-_CRC_BYTES:]
        if len(content) != size or int.from_bytes(checksum, "little") != google_crc32c.value(body):
            raise self._corrupt(path, f"{what} differs from its checksum")
        return body

    def _corrupt(self, path: str, what: str) -> StoreCorruptError:
        return StoreCorruptError(f"{path}: {what}")
