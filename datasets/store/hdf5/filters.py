"""HDF5's built-in filters deflate and fletcher32, without HDF5 (docs/store-spec.md, 8).

HDF5 only keeps the chunks; what is in them is compressed and checked here, through ``zlib``. That
has three uses: chunks are decoded by as many threads as one likes (HDF5 has one lock for all),
copied from file to file as they are, and no more memory is taken than the header allows, whatever
a file says. Plain HDF5 programs read the same chunks by their own filters.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 4
"""Level of deflate. On TrashNet's latents level 1 takes 13 % more bytes, level 6 takes 3.5 % fewer
and three times as long; the shuffle filter makes y_hat 22 % larger (benchmarks/hdf5_filters.py)."""

CHECKSUM_BYTES = 4
"""Size of the checksum at the end of a stored chunk."""

_FLETCHER32_BLOCK = 1 << 16
_WEIGHTS = np.arange(_FLETCHER32_BLOCK, 0, -1, dtype=np.uint64)


def fletcher32(content: bytes) -> int:
    """HDF5's Fletcher-32 (``H5_checksum_fletcher32``): of big-endian 16-bit words, modulo 65,535.

    Args:
        content: Any bytes; an odd one at the end is the high half of a word.

    Returns:
        The checksum, ``sum2 << 16 | sum1``.
    """
    words = np.frombuffer(content + b"\0" * (len(content) % 2), ">u2")
    sum1 = sum2 = 0
    for start in range(0, len(words), _FLETCHER32_BLOCK):
        block = words[start : start + _FLETCHER32_BLOCK].astype(np.uint64)
        sum2 += len(block) * sum1 + int(block @ _WEIGHTS[_FLETCHER32_BLOCK - len(block) :])
        sum1 += int(block.sum())
    return _fold(sum2) << 16 | _fold(sum1)


def _fold(total: int) -> int:
    """Reduce modulo 65,535 as adding carries does: 0 only for 0."""
    return (total - 1) % 65535 + 1 if total else 0


def encode_chunk(values: NDArray[Any]) -> bytes:
    """Encode a chunk as HDF5's filters deflate and fletcher32 do, in this order.

    Args:
        values: The chunk, little-endian.

    Returns:
        The bytes to store.
    """
    packed = zlib.compress(values.tobytes(), LEVEL)
    return packed + fletcher32(packed).to_bytes(CHECKSUM_BYTES, "little")


def decode_chunk(stored: bytes, size: int) -> bytes:
    """Decode a chunk; never takes more memory than ``size``.

    Args:
        stored: The bytes stored.
        size: Bytes that the chunk has.

    Returns:
        The chunk's bytes.

    Raises:
        ValueError: The checksum differs, or what is inside has another length.
    """
    packed, checksum = stored[:-CHECKSUM_BYTES], stored[-CHECKSUM_BYTES:]
    if fletcher32(packed) != int.from_bytes(checksum, "little"):
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
    """Bytes that a chunk takes at most: deflate's stored blocks, and the checksum.

    Args:
        size: Bytes of the chunk before compression.

    Returns:
        A bound that no writer passes.
    """
    return size + 5 * (size // 4096 + 1) + 6 + CHECKSUM_BYTES
