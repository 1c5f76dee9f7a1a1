"""What an array's ``zarr.json`` may hold (docs/store-spec.md, 4), checked before it is used.

Shapes and chunks come from the header; codecs are a few that only transpose, compress or check.
So no store can make a reader take more memory than its header allows, or run an unexpected codec.
"""

import json
from typing import Any

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.store.arrays import array_form
from latentset.datasets.store.header import ArrayName, Header, parse_object

_INDEX_ENTRY_BYTES = 16
_OTHER_FIELDS = {"codecs", "attributes", "dimension_names"}
_CODECS = ("transpose", "bytes", "blosc", "zstd", "gzip", "crc32c")
_INDEX_CODECS = ("bytes", "crc32c")


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
    """``sharding_indexed`` alone, and in it transpose, bytes, compressors, checksum."""
    match codecs:
        case [
            {
                "name": "sharding_indexed",
                "configuration": {"chunk_shape": shape, "codecs": inner, "index_codecs": index},
            }
        ] if shape == chunk:
            pass
        case _:
            raise StoreCorruptError(
                f"{where}: codecs: expected sharding_indexed with chunk_shape {chunk}, got "
                f"{json.dumps(codecs):.200}"
            )
    for what, found, allowed in (
        ("index_codecs", index, _INDEX_CODECS),
        ("codecs", inner, _CODECS),
    ):
        codecs = found if isinstance(found, list) else []
        names = [codec.get("name") if isinstance(codec, dict) else codec for codec in codecs]
        order = [allowed.index(name) for name in names if name in allowed]
        # Each at most once and in this order, so that a chain cannot grow without end.
        if len(order) != len(names) or order != sorted(set(order)) or names[-1:] != ["crc32c"]:
            raise StoreCorruptError(
                f"{where}: {what}: expected some of {', '.join(allowed)}, in this order and with "
                f"crc32c at the end; got {json.dumps(found):.200}"
            )


def least_shard_bytes(header: Header, name: ArrayName) -> int:
    """Bytes that an object of an array has at least: its index has an entry for each chunk.

    A header that claims more chunks than its objects can hold is found by this before anyone
    makes room for them.
    """
    form = array_form(header, name)
    return form.shard_rows // form.chunk_rows * _INDEX_ENTRY_BYTES
