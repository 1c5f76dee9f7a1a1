"""What an array's ``zarr.json`` may hold (docs/store-spec.md, 4), checked before it is used.

Shapes and chunks come from the header; codecs are those of our writer. So no store can make a
reader take more memory than its header allows, or run an unexpected codec.
"""

import json
from typing import Any

import numpy as np

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.store.arrays import array_form
from latentset.datasets.store.header import ArrayName, Header, parse_object

_INDEX_ENTRY_BYTES = 16
_MOST_BYTES_BESIDES = 64
"""Of a chunk, besides its values: Blosc's header, checksum, entry in the index."""

BLOSC_SWELLING = 8192
"""Blosc makes at most so many bytes of one: 7940 of zeros in the largest chunks, 2185 in usual ones
(measured; its blocks have at most 256 KiB, of 33 bytes at least)."""
_OTHER_FIELDS = {"codecs", "attributes", "dimension_names"}


def check_array_metadata(content: bytes, header: Header, name: ArrayName, where: str) -> None:
    """Raise a StoreCorruptError if a ``zarr.json`` is not what docs/store-spec.md, 4, allows.

    ``where`` names the store in messages.
    """
    form = array_form(header, name)
    where = f"{where}: {name}/zarr.json"
    document = parse_object(content, where)
    expected = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(form.shape),
        "data_type": form.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [form.shard_rows, form.channels]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "storage_transformers": [],
    }
    unknown = sorted(document.keys() - expected.keys() - _OTHER_FIELDS)
    if unknown:
        raise StoreCorruptError(f"{where}: unknown field {unknown[0]!r:.80}")
    found: dict[str, Any] = {"storage_transformers": [], **document}
    for field, value in expected.items():
        if found.get(field) != value:
            raise StoreCorruptError(
                f"{where}: {field}: expected {json.dumps(value)}, got "
                f"{json.dumps(found.get(field)):.200}"
            )
    _check_codecs(found.get("codecs"), [form.chunk_rows, form.channels], where)


def _check_codecs(codecs: Any, chunk: list[int], where: str) -> None:
    """The codecs of our writer alone: each of them is bounded by the size of a chunk."""
    little = {"configuration": {"endian": "little"}}
    match codecs:
        case [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": shape,
                    "codecs": [
                        {"name": "transpose", "configuration": {"order": [1, 0]}},
                        {"name": "bytes", **order},
                        {"name": "blosc"},
                        {"name": "crc32c"},
                    ],
                    "index_codecs": [{"name": "bytes", **index_order}, {"name": "crc32c"}],
                    **others,
                },
            }
        ] if (
            shape == chunk
            and order in (little, {})  # one byte has no order
            and index_order == little
            and others in ({"index_location": "end"}, {})
        ):
            return
    raise StoreCorruptError(
        f"{where}: codecs: expected sharding_indexed with chunk_shape {chunk}, and in it "
        f"transpose, bytes, blosc and crc32c (docs/store-spec.md, 4.2); got "
        f"{json.dumps(codecs):.400}"
    )


def check_shard_bytes(header: Header, name: ArrayName, index: int, stored: int, where: str) -> None:
    """Raise a StoreCorruptError if no shard of an array has so many stored bytes.

    A header that claims more than its objects can hold is found by this before anyone makes room.
    """
    form = array_form(header, name)
    chunks = form.shard_rows // form.chunk_rows
    claimed = form.shard_rows * form.channels * np.dtype(form.dtype).itemsize
    path = f"{where}: {name}/c/{index}/0"
    if stored < chunks * _INDEX_ENTRY_BYTES:
        raise StoreCorruptError(f"{path}: is too small for the index of its chunks")
    if stored < claimed // BLOSC_SWELLING:
        raise StoreCorruptError(f"{path}: {stored:,} bytes are too few for {claimed:,} of chunks")
    if stored > claimed + (chunks + 1) * _MOST_BYTES_BESIDES:
        raise StoreCorruptError(f"{path}: {stored:,} bytes are too many for {claimed:,} of chunks")
