"""Writing a store: arrays as bytes first, then objects, then the manifest.

A whole shard becomes the bytes of its object in memory; this module's callers write them
(``Location.write``). So what is hashed is what is stored, and a shard is there whole or not at
all. zarr-python would make the same bytes in two and a half times the time; it writes metadata.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import zarr
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, TransposeCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from latentset.datasets.errors import StoreError
from latentset.datasets.storage.location import Location
from latentset.datasets.store.arrays import DTYPES, array_form
from latentset.datasets.store.digests import StoredObject, describe_object
from latentset.datasets.store.header import ARRAYS, ATTRIBUTE, ArrayName, Header
from latentset.datasets.store.manifest import MANIFEST, Manifest, ShardSummary, count_samples
from latentset.datasets.store.samples import SAMPLES, samples_bytes
from latentset.datasets.store.scales import stored_numbers

COMPRESSION_LEVEL = 5
"""Zstd level inside blosc. Level 7 takes three times as long for 0.1 % fewer bytes, level 9 twenty
times for 3 %; level 3 saves a third of the time and costs 1 to 2 %."""


blosc.use_threads = False  # several would order a chunk's blocks by chance


def metadata_objects(header: Header) -> dict[str, bytes]:
    """The ``zarr.json`` of the group and of each array, by path."""
    content: dict[str, Buffer] = {}
    store = MemoryStore(content)
    zarr.create_group(store, attributes={ATTRIBUTE: header.model_dump(mode="json")})
    for name in header.arrays:
        form = array_form(header, name)
        compressor = BloscCodec(
            cname="zstd",
            clevel=COMPRESSION_LEVEL,
            shuffle="bitshuffle",
            typesize=np.dtype(form.dtype).itemsize,
        )
        zarr.create_array(
            store,
            name=name,
            shape=form.shape,
            dtype=form.dtype,
            chunks=(form.chunk_rows, form.channels),
            shards=(form.shard_rows, form.channels),
            filters=[TransposeCodec(order=(1, 0))],
            serializer=BytesCodec(endian="little"),
            compressors=[compressor, Crc32cCodec()],
            fill_value=0,
            dimension_names=["row", "channel"],
            config={"write_empty_chunks": True},
        )
    return {path: buffer.to_bytes() for path, buffer in content.items()}


class ShardBuffer:
    """The rows of one shard of every array of latents, in memory, until they are encoded."""

    def __init__(self, header: Header, index: int) -> None:
        if header.codec is None:
            raise StoreError("expected the header of a store of latents, got one without codec")
        self._header, self._index, self._codec = header, index, header.codec
        self._numbers = stored_numbers(header.codec)
        self._rows = {name: _empty_rows(header, name) for name in ARRAYS}

    def put(
        self,
        first_row: int,
        z_first_row: int,
        y_hat: NDArray[Any],
        scale_index: NDArray[Any],
        z_hat: NDArray[Any],
    ) -> None:
        """Put one sample at its first rows, which are counted over the whole arrays.

        ``y_hat`` and ``scale_index`` are integers (h, w, C), ``z_hat`` (hz, wz, Cz); scale indexes
        are the codec's own, 0 for the least sigma_hat.

        Raises:
            StoreError: A value does not fit its data type or the scale table, or is no integer.
        """
        int16, layout = np.iinfo(np.int16), self._header.layout
        highest = len(self._codec.scale_table) - 1
        _check_range("y_hat", y_hat, int16.min, int16.max, "the range of int16")
        _check_range("scale_index", scale_index, 0, highest, "the codec's scale table")
        _check_range("z_hat", z_hat, int16.min, int16.max, "the range of int16")
        start = first_row - self._index * layout.shard_rows
        _place(self._rows["y_hat"], start, y_hat)
        _place(self._rows["scale_index"], start, self._numbers[scale_index])
        _place(self._rows["z_hat"], z_first_row - self._index * layout.z_shard_rows, z_hat)

    def rows(self) -> dict[ArrayName, NDArray[Any]]:
        """For each array of the header, all rows of the shard (rows, channels)."""
        if "sigma_hat" not in self._header.arrays:
            return self._rows
        table = np.asarray(self._codec.scale_table, DTYPES["sigma_hat"])
        return {**self._rows, "sigma_hat": table[self._rows["scale_index"]]}


class PixelBuffer:
    """The rows of one shard of pixels, in memory, until they are encoded."""

    def __init__(self, header: Header, index: int) -> None:
        self._pixels = _empty_rows(header, "pixels")
        self._first = index * len(self._pixels)

    def put(self, first_row: int, pixels: NDArray[np.uint8]) -> None:
        """Put an image, uint8 (H, W, 3), at a row counted over the whole array."""
        if pixels.dtype != np.uint8:
            raise StoreError(f"pixels: expected uint8, got {pixels.dtype}")
        _place(self._pixels, first_row - self._first, pixels)

    def rows(self) -> dict[ArrayName, NDArray[Any]]:
        """All rows of the shard (rows, 3), as ``pixels``."""
        return {"pixels": self._pixels}


def shard_objects(
    header: Header, index: int, rows: Mapping[ArrayName, NDArray[Any]]
) -> dict[str, bytes]:
    """Encode a shard of every array as Zarr objects by path (docs/store-spec.md, 4.2).

    ``rows`` are all rows of the shard of each array, (rows, channels).
    """
    content = {}
    for name, values in rows.items():
        form = array_form(header, name)
        dtype = np.dtype(form.dtype).newbyteorder("<")
        chunks, locations, end = [], [], 0
        for row in range(0, form.shard_rows, form.chunk_rows):
            transposed = np.ascontiguousarray(values[row : row + form.chunk_rows].T, dtype)
            chunk = _with_crc(
                blosc.compress(transposed, b"zstd", COMPRESSION_LEVEL, blosc.BITSHUFFLE)
            )
            chunks.append(chunk)
            locations.append((end, len(chunk)))
            end += len(chunk)
        chunks.append(_with_crc(np.array(locations, "<u8").tobytes()))
        content[f"{name}/c/{index}/0"] = b"".join(chunks)
    return content


def _empty_rows(header: Header, name: ArrayName) -> NDArray[Any]:
    form = array_form(header, name)
    return np.zeros((form.shard_rows, form.channels), form.dtype)


def _with_crc(content: bytes) -> bytes:
    checksum: int = google_crc32c.value(content)
    return content + checksum.to_bytes(4, "little")


def _check_range(name: str, values: NDArray[Any], lowest: int, highest: int, what: str) -> None:
    if values.dtype.kind not in "iu":
        raise StoreError(f"{name}: expected integers, got {values.dtype}")
    low, high = int(values.min()), int(values.max())
    if low < lowest or high > highest:
        raise StoreError(
            f"{name}: expected values within {what}, {lowest} to {highest}, got {low} to {high}"
        )


def _place(target: NDArray[Any], start: int, values: NDArray[Any]) -> None:
    rows = values.reshape(-1, values.shape[-1])
    if start < 0 or start + len(rows) > len(target) or rows.shape[1] != target.shape[1]:
        raise StoreError(f"{values.shape} does not fit at row {start} of a shard of {target.shape}")
    target[start : start + len(rows)] = rows


def write_objects(store: Location, content: Mapping[str, bytes]) -> list[StoredObject]:
    """Write objects, each whole; return their entries of the manifest. StoreError on trouble."""
    for path, value in content.items():
        store.write(path, value)
    return [describe_object(path, value) for path, value in content.items()]


def finish_store(
    store: Location,
    *,
    header: Header,
    fingerprint: str,
    samples: pa.Table,
    shards: Iterable[ShardSummary],
    objects: Iterable[StoredObject],
) -> Manifest:
    """Write the samples table and then the manifest: with it the store is complete.

    ``objects`` are all that were written before; ``shards`` are in order. StoreError if one cannot
    be written.
    """
    written = write_objects(store, {SAMPLES: samples_bytes(samples, header)})
    manifest = Manifest(
        format_version=header.format_version,
        fingerprint=fingerprint,
        samples=count_samples(samples),
        shards=tuple(shards),
        objects=tuple(sorted([*objects, *written], key=lambda item: item.path)),
    )
    store.sweep()
    store.write(MANIFEST, manifest.to_bytes())
    return manifest
