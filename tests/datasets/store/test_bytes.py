"""A store of latents by hand, byte for byte: the reader reads it, and the writer writes the same.

Each version is read; the versions that are written now are 1.0, and 1.2 for what came with it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.datasets.store.header import parse_header
from latentset.datasets.store.manifest import ShardSummary
from latentset.datasets.store.verify import verify
from latentset.datasets.store.zarr.writer import (
    ShardBuffer,
    finish_store,
    metadata_objects,
    shard_objects,
    write_objects,
)
from tests.makers.literal import (
    COLUMNS,
    HEADER,
    array_metadata,
    changed,
    chunk,
    crc32c,
    group_metadata,
    manifest_bytes,
    put_down,
    shard,
    table,
)

HEADERS: dict[str, dict[str, Any]] = {
    "0.1": changed(HEADER, "format_version", value="0.1"),
    "1.0": HEADER,
    "1.2, cpu_isa": changed(
        changed(HEADER, "format_version", value="1.2"), "provenance", "cpu_isa", value="avx2"
    ),
    "1.2, h_s_exact_to": changed(
        changed(HEADER, "format_version", value="1.2"), "codec", "h_s_exact_to", value=127
    ),
}
WRITTEN = [name for name in HEADERS if name != "0.1"]

# Sample 0 is 16x32 pixels, sample 1 is 32x16: grids of 1x2 and 2x1.
Y_HAT = [[[1, -2, 300], [4, 5, -6]], [[7, 8, 9], [-32768, 32767, 0]]]
SCALE = [[[0, 1, 2], [3, 0, 1]], [[1, 1, 1], [2, 3, 3]]]  # the codec's own indexes
NUMBER = [[[0, 1, 3], [2, 0, 1]], [[1, 1, 1], [3, 2, 2]]]  # Gray code: 0 1 3 2
Z_HAT = [[[-1, 2]], [[3, -4]]]

SHARDS = {
    "y_hat/c/0/0": shard([chunk(sample, "h") for sample in Y_HAT]),
    "scale_index/c/0/0": shard([chunk(sample, "B") for sample in NUMBER]),
    "z_hat/c/0/0": shard([chunk(sample, "h") for sample in Z_HAT]),
}


def metadata(header: dict[str, Any]) -> dict[str, bytes]:
    return {
        "zarr.json": group_metadata(header),
        "y_hat/zarr.json": array_metadata("int16", 3, 4, 2),
        "scale_index/zarr.json": array_metadata("uint8", 3, 4, 2),
        "z_hat/zarr.json": array_metadata("int16", 2, 2, 1),
    }


@pytest.fixture(params=HEADERS)
def header(request: pytest.FixtureRequest) -> dict[str, Any]:
    return HEADERS[request.param]


@pytest.fixture
def store(header: dict[str, Any], tmp_path: Path) -> Path:
    """The store, put down byte by byte."""
    return put_down(tmp_path / "by-hand", {**metadata(header), **SHARDS}, COLUMNS)


def test_crc32c_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_the_reader_reads_it(store: Path, header: dict[str, Any]) -> None:
    opened = open_store(store)
    assert opened.fingerprint == "ef" * 32
    assert opened.header.model_dump(mode="json") == header
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
    assert verify(store).problems == []


def test_tensorstore_reads_it(store: Path) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="of the train environment")
    for name, expected in (("y_hat", Y_HAT), ("scale_index", NUMBER), ("z_hat", Z_HAT)):
        array = tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store / name)}}
        ).result()
        assert array.read().result().tolist() == [*expected[0], *expected[1]]


@pytest.mark.parametrize("header", WRITTEN, indirect=True)
def test_the_writer_writes_the_same(header: dict[str, Any], tmp_path: Path) -> None:
    parsed = parse_header(header, "by hand")
    assert parsed.lowest_version == header["format_version"]
    buffer = ShardBuffer(parsed, 0)
    for k, size in enumerate([(1, 2), (2, 1)]):
        buffer.put(
            2 * k,
            k,
            np.array(Y_HAT[k]).reshape(*size, 3),
            np.array(SCALE[k]).reshape(*size, 3),
            np.array(Z_HAT[k]).reshape(1, 1, 2),
        )
    location = Folder(tmp_path / "written")
    objects = write_objects(location, metadata_objects(parsed))
    objects += write_objects(location, shard_objects(parsed, 0, buffer.rows()))
    finish_store(
        location,
        header=parsed,
        fingerprint="ef" * 32,
        samples=table(COLUMNS),
        shards=[ShardSummary(index=0, samples=2, ok=2, failed=0)],
        objects=objects,
    )
    expected = {**metadata(header), **SHARDS}
    assert location.sizes().keys() == expected.keys() | {"samples.parquet", "manifest.json"}
    for path, content in SHARDS.items():
        assert location.read(path) == content
    for path, content in metadata(header).items():
        found, wanted = json.loads(location.read(path)), json.loads(content)
        assert {name: found.get(name) for name in wanted} == wanted
    assert location.read("manifest.json") == manifest_bytes(location.path)
