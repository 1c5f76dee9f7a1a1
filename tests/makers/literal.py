"""Small stores by hand, byte for byte, from docs/store-spec.md and the Zarr v3 specification.

Chunks this small are stored by blosc as they are, behind its header, so that every byte of a shard
can be written down.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HEADER: dict[str, Any] = {
    "format_version": "1.0",
    "codec": {
        "name": "by-hand",
        "sha256": "ab" * 32,
        "form": "tfc2",
        "tensors": {"y_hat": "a:0"},
        "channels": 3,
        "z_channels": 2,
        "scale_table": [0.5, 1.0, 4.0, 2.0],
        "z_offset": [0.25, -1.0],
        "y_downsampling": 16,
        "z_downsampling": 64,
    },
    "arrays": ["y_hat", "scale_index", "z_hat"],
    "resize": "none",
    "source": {
        "kind": "list",
        "name": "hand",
        "samples": 2,
        "classes": ["x", "y"],
        "listing_sha256": "cd" * 32,
    },
    "layout": {
        "chunk_rows": 2,
        "shard_rows": 4,
        "z_chunk_rows": 1,
        "z_shard_rows": 2,
        "shards": 1,
        "target_shard_bytes": 24,
    },
    "provenance": {
        "latentset": "0",
        "tensorflow": "0",
        "tensorflow_compression": "0",
        "onednn": True,
        "device": "CPU",
        "decoder": "d",
        "python": "3",
        "numpy": "2",
        "zarr": "3",
        "created": "2026-01-01T00:00:00Z",
    },
}
"""Of a store of latents, in the version that is written for it."""

COLUMNS: dict[str, Any] = {
    "id": (pa.string(), ["x/a.png", "y/b.png"]),
    "path": (pa.string(), ["x/a.png", "y/b.png"]),
    "label": (pa.int32(), [0, 1]),
    "split": (pa.string(), ["train", ""]),
    "height": (pa.int32(), [16, 32]),
    "width": (pa.int32(), [32, 16]),
    "latent_height": (pa.int32(), [1, 2]),
    "latent_width": (pa.int32(), [2, 1]),
    "first_row": (pa.int64(), [0, 2]),
    "z_first_row": (pa.int64(), [0, 1]),
    "shard": (pa.int32(), [0, 0]),
    "rate_bpp": (pa.float64(), [0.5, 0.75]),
    "source_bytes": (pa.int64(), [10, 20]),
    "source_sha256": (pa.string(), ["00" * 32, "11" * 32]),
    "status": (pa.string(), ["ok", "ok"]),
    "reason": (pa.string(), ["", ""]),
}
"""Of the samples table: type and values."""


def changed(document: dict[str, Any], *path: str, value: Any = None) -> dict[str, Any]:
    """A document with a field changed, or taken out where there is no value."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    inside = copy
    for name in path[:-1]:
        inside = inside[name]
    if value is None:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return copy


def crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli), bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def chunk(rows: list[list[int]], code: str) -> bytes:
    """One inner chunk: channel-major, little-endian, blosc of incompressible bytes, CRC-32C."""
    values = [row[channel] for channel in range(len(rows[0])) for row in rows]
    raw = struct.pack(f"<{len(values)}{code}", *values)
    # Format version 2, of the zstd coder 1; flags: stored (2), bitshuffle (4), not split (16),
    # zstd (4 << 5); the type's size; bytes of content, of a block, of all of it.
    header = struct.pack(
        "<BBBBIII",
        2,
        1,
        2 | 4 | 16 | 4 << 5,
        struct.calcsize(code),
        len(raw),
        len(raw),
        16 + len(raw),
    )
    packed = header + raw
    return packed + struct.pack("<I", crc32c(packed))


def shard(chunks: list[bytes]) -> bytes:
    """Chunks one after the other, then offset and length of each, then the CRC-32C of these."""
    index, offset = b"", 0
    for content in chunks:
        index += struct.pack("<QQ", offset, len(content))
        offset += len(content)
    return b"".join(chunks) + index + struct.pack("<I", crc32c(index))


def group_metadata(header: dict[str, Any]) -> bytes:
    """The root group's ``zarr.json``."""
    attributes = {"latentset": header}
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}).encode()


def array_metadata(dtype: str, channels: int, shard_rows: int, chunk_rows: int) -> bytes:
    """An array's ``zarr.json``."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    size = {"int16": 2, "uint8": 1}[dtype]
    return json.dumps(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [shard_rows, channels],
            "data_type": dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [shard_rows, channels]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "dimension_names": ["row", "channel"],
            "attributes": {},
            "codecs": [
                {
                    "name": "sharding_indexed",
                    "configuration": {
                        "chunk_shape": [chunk_rows, channels],
                        "index_location": "end",
                        "index_codecs": [little, {"name": "crc32c"}],
                        "codecs": [
                            {"name": "transpose", "configuration": {"order": [1, 0]}},
                            little if size > 1 else {"name": "bytes"},
                            {
                                "name": "blosc",
                                "configuration": {
                                    "cname": "zstd",
                                    "clevel": 5,
                                    "shuffle": "bitshuffle",
                                    "typesize": size,
                                    "blocksize": 0,
                                },
                            },
                            {"name": "crc32c"},
                        ],
                    },
                }
            ],
        }
    ).encode()


def table(columns: dict[str, Any]) -> pa.Table:
    """The samples table."""
    return pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})


def put_down(path: Path, objects: dict[str, bytes], columns: dict[str, Any]) -> Path:
    """Write objects, the samples table, and a manifest of the version that ``zarr.json`` has."""
    for name, content in objects.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    pq.write_table(table(columns), path / "samples.parquet")
    (path / "manifest.json").write_bytes(manifest_bytes(path))
    return path


def manifest_bytes(store: Path) -> bytes:
    """The ``manifest.json`` of two samples in one shard (docs/store-spec.md, 6)."""
    group = json.loads((store / "zarr.json").read_text())
    version = group["attributes"]["latentset"]["format_version"]
    listed = [
        {
            "path": file.relative_to(store).as_posix(),
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in store.rglob("*")
        if file.is_file() and file.name != "manifest.json"
    ]
    manifest = {
        "format_version": version,
        "sha256": "0" * 64,
        "fingerprint": "ef" * 32,
        "samples": {"total": 2, "ok": 2, "failed": 0},
        "shards": [{"index": 0, "samples": 2, "ok": 2, "failed": 0}],
        "objects": sorted(listed, key=lambda item: str(item["path"])),
    }
    if version == "0.1":
        del manifest["sha256"]
    content = json.dumps(manifest, indent=1).encode() + b"\n"
    digest = hashlib.sha256(content).hexdigest().encode()
    return content.replace(b'"sha256": "' + b"0" * 64, b'"sha256": "' + digest, 1)
