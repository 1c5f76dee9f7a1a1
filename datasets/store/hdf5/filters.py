"""HDF5's built-in filters deflate and fletcher32, without HDF5 (docs/store-spec.md, 8).

HDF5 only keeps the chunks; what is in them is compressed and checked here. That has three uses:
chunks are decoded by as many threads as one likes (HDF5 has one lock for all), copied from file to
file as they are, and no more memory is taken than the header allows, whatever a file claims. Plain
HDF5 programs read the same chunks by their own filters.
"""

import zlib
from typing import Any

from numcodecs import Fletcher32
from numpy.typing import NDArray

LEVEL = 4
"""Level of deflate. On TrashNet's latents level 1 takes 13 % more bytes, level 6 takes 3.5 % fewer
and three times as long; the shuffle filter makes y_hat 22 % larger (benchmarks/hdf5_filters.py)."""

CHECKSUM_BYTES = 4
"""Size of the checksum at the end of a stored chunk."""

DEFLATE_SWELLING = 1040
"""Deflate makes at most 1032 bytes of one (RFC 1951: 258 bytes of a match of two bits)."""

_FLETCHER32 = Fletcher32()


def encode_chunk(values: NDArray[Any]) -> bytes:
    """Encode a little-endian chunk as HDF5's filters deflate and fletcher32 do, in this order."""
    return bytes(_FLETCHER32.encode(zlib.compress(values.tobytes(), LEVEL)))


def decode_chunk(stored: bytes, size: int) -> bytes:
    """Decode a chunk of ``size`` bytes; never takes more memory than that.

    Raises:
        ValueError: The checksum differs, or what is inside has another length.
    """
    packed = stored[:-CHECKSUM_BYTES]
    if _FLETCHER32.encode(packed) != stored:
        raise ValueError("the stored fletcher32 differs from the computed one")
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(packed, size + 1)
    except zlib.error as error:
        raise ValueError(f"cannot be decompressed: {error}") from error
    if len(content) != size or not inflate.eof or inflate.unused_data:
        raise ValueError(f"expected {size} bytes after decompression, got {len(content)} or more")
    return content


def most_stored(size: int) -> int:
    """Bytes that a chunk of ``size`` takes at most: deflate's stored blocks, and the checksum."""
    return size + 5 * (size // 4096 + 1) + 6 + CHECKSUM_BYTES
