"""A store written by hand, byte for byte, from docs/store-spec.md and the Zarr v3 specification.

The reader has to read it, and the writer to write the same. Chunks this small are stored by blosc
as they are, behind its header, so that every byte of a shard can be written down.
"""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentset.datasets.store import open_store
from latentset.datasets.store.header import parse_header
from latentset.datasets.store.zarr.writer import ShardBuffer, metadata_objects, shard_objects

HEADER = {
    "format_version": "0.1",
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

# Sample 0 is 16x32 pixels, sample 1 is 32x16: grids of 1x2 and 2x1.
Y_HAT = [[[1, -2, 300], [4, 5, -6]], [[7, 8, 9], [-32768, 32767, 0]]]
SCALE = [[[0, 1, 2], [3, 0, 1]], [[1, 1, 1], [2, 3, 3]]]  # the codec's own indexes
NUMBER = [[[0, 1, 3], [2, 0, 1]], [[1, 1, 1], [3, 2, 2]]]  # Gray code: 0 1 3 2
Z_HAT = [[[-1, 2]], [[3, -4]]]


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


SHARDS = {
    "y_hat/c/0/0": shard([chunk(sample, "h") for sample in Y_HAT]),
    "scale_index/c/0/0": shard([chunk(sample, "B") for sample in NUMBER]),
    "z_hat/c/0/0": shard([chunk(sample, "h") for sample in Z_HAT]),
}


def array_metadata(dtype: str, channels: int, shard_rows: int, chunk_rows: int) -> bytes:
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


METADATA = {
    "zarr.json": json.dumps(
        {"zarr_format": 3, "node_type": "group", "attributes": {"latentset": HEADER}}
    ).encode(),
    "y_hat/zarr.json": array_metadata("int16", 3, 4, 2),
    "scale_index/zarr.json": array_metadata("uint8", 3, 4, 2),
    "z_hat/zarr.json": array_metadata("int16", 2, 2, 1),
}

COLUMNS = {
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


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The store, put down byte by byte."""
    path = tmp_path / "by-hand"
    for name, content in {**METADATA, **SHARDS}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    table = pa.table({name: pa.array(v, t) for name, (t, v) in COLUMNS.items()})
    pq.write_table(table, path / "samples.parquet")
    objects = [
        {
            "path": file.relative_to(path).as_posix(),
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in path.rglob("*")
        if file.is_file()
    ]
    manifest = {
        "format_version": "0.1",
        "fingerprint": "ef" * 32,
        "samples": {"total": 2, "ok": 2, "failed": 0},
        "shards": [{"index": 0, "samples": 2, "ok": 2, "failed": 0}],
        "objects": sorted(objects, key=lambda item: str(item["path"])),
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_crc32c_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_the_reader_reads_it(store: Path) -> None:
    opened = open_store(store)
    assert opened.fingerprint == "ef" * 32
    for k in range(2):
        sample = opened.read_sample(k)
        height, width = (1, 2) if k == 0 else (2, 1)
        for name, expected in (("y_hat", Y_HAT), ("scale_index", SCALE)):
            assert sample[name].shape == (height, width, 3)
            assert sample[name].reshape(-1, 3).tolist() == expected[k]
        assert sample["z_hat"].tolist() == [Z_HAT[k]]
        sigma = [[[0.5, 1.0, 2.0, 4.0][i] for i in row] for row in SCALE[k]]
        assert sample["sigma_hat"].reshape(-1, 3).tolist() == sigma
    assert np.asarray(opened.array("scale_index")[:]).tolist() == [*NUMBER[0], *NUMBER[1]]


def test_tensorstore_reads_it(store: Path) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="of the train environment")
    for name, expected in (("y_hat", Y_HAT), ("scale_index", NUMBER), ("z_hat", Z_HAT)):
        array = tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store / name)}}
        ).result()
        assert array.read().result().tolist() == [*expected[0], *expected[1]]


def test_the_writer_writes_the_same_bytes() -> None:
    buffer = ShardBuffer(parse_header(HEADER, "by hand"), 0)
    for k, size in enumerate([(1, 2), (2, 1)]):
        buffer.put(
            2 * k,
            k,
            np.array(Y_HAT[k]).reshape(*size, 3),
            np.array(SCALE[k]).reshape(*size, 3),
            np.array(Z_HAT[k]).reshape(1, 1, 2),
        )
    assert shard_objects(parse_header(HEADER, "by hand"), 0, buffer.rows()) == SHARDS


def test_the_writer_writes_the_same_metadata() -> None:
    written = metadata_objects(parse_header(HEADER, "by hand"))
    assert written.keys() == METADATA.keys()
    for path, content in METADATA.items():
        expected = json.loads(content)
        found = {k: v for k, v in json.loads(written[path]).items() if k in expected}
        assert found == expected
