"""Stores that somebody altered on purpose, their digests made to agree: refused, never followed."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.store import open_store
from latentset.datasets.store.verify import verify
from tests.makers.synthetic import write_synthetic_store

AlterHeader = Callable[[Path, Callable[[dict[str, Any]], object]], None]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_synthetic_store(tmp_path / "store", samples=8)


@pytest.mark.parametrize("name", ["../../elsewhere", "/elsewhere", "a/b", "..", "a\x1b[2J", ""])
def test_a_codec_name_that_is_a_path_is_refused(
    alter_header: AlterHeader, store: Path, name: str
) -> None:
    alter_header(store, lambda header: header["codec"].update(name=name))
    with pytest.raises(StoreError, match=r"codec\.name"):
        open_store(store)


@pytest.mark.parametrize(
    ("y", "z"), [(10**400, 64), (16, 10**400), (0, 64), (16, 8), (16, 72), (-16, 64)]
)
def test_absurd_strides_are_refused(alter_header: AlterHeader, store: Path, y: int, z: int) -> None:
    alter_header(store, lambda h: h["codec"].update(y_downsampling=y, z_downsampling=z))
    with pytest.raises(StoreError, match="downsampling"):
        open_store(store)


def test_shards_beyond_number_are_refused_before_they_are_counted(
    alter_header: AlterHeader, store: Path
) -> None:
    alter_header(store, lambda header: header["layout"].update(shards=10**12))
    with pytest.raises(StoreError, match=r"layout\.shards: Input should be less than or equal"):
        open_store(store)
    alter_header(store, lambda header: header["layout"].update(shards=9999))
    with pytest.raises(StoreCorruptError, match="expected 9999 shards"):
        open_store(store)


def test_a_damaged_samples_table_is_refused(sign: Callable[[Path], None], store: Path) -> None:
    content = bytearray((store / "samples.parquet").read_bytes())
    content[4:-8] = b"\xff" * (len(content) - 12)
    (store / "samples.parquet").write_bytes(bytes(content))
    sign(store)
    with pytest.raises(StoreCorruptError, match=r"samples\.parquet"):
        open_store(store)


def test_an_index_beyond_the_scale_table_is_refused(alter_header: AlterHeader, store: Path) -> None:
    alter_header(store, lambda header: header["codec"].update(scale_table=[1.0]))
    with pytest.raises(StoreCorruptError, match="scale_index: expected less than 1"):
        open_store(store).read_sample(1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("chunk_rows", 1 << 28), ("shard_rows", 16 << 30), ("z_chunk_rows", 1 << 40)],
)
def test_sizes_beyond_measure_are_refused(
    alter_header: AlterHeader, store: Path, field: str, value: int
) -> None:
    def change(header: dict[str, Any]) -> None:
        header["layout"][field] = value
        shard = field.replace("chunk", "shard")
        header["layout"][shard] = max(value, header["layout"][shard])

    alter_header(store, change)
    with pytest.raises(StoreError, match=f"layout.{field}: expected at most"):
        open_store(store)


def test_more_chunks_than_the_objects_can_hold_are_refused(
    alter_header: AlterHeader, store: Path, sign: Callable[[Path], None]
) -> None:
    rows = 16 * 10**6  # a million chunks in every shard, within what a shard may have
    alter_header(store, lambda header: header["layout"].update(shard_rows=rows))
    for name in ("y_hat", "scale_index"):
        path = store / name / "zarr.json"
        array = json.loads(path.read_text())
        shards = array["shape"][0] // array["chunk_grid"]["configuration"]["chunk_shape"][0]
        array["shape"][0] = shards * rows
        array["chunk_grid"]["configuration"]["chunk_shape"][0] = rows
        path.write_text(json.dumps(array))
    sign(store)
    with pytest.raises(StoreCorruptError, match=r"y_hat/c/0/0: is too small for the index"):
        open_store(store)
    (problem, *_) = verify(store).problems
    assert problem


def alter_array(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = store / "y_hat" / "zarr.json"
    array = json.loads(path.read_text())
    change(array)
    path.write_text(json.dumps(array))


def inner(array: dict[str, Any]) -> dict[str, Any]:
    configuration = array["codecs"][0]["configuration"]
    assert isinstance(configuration, dict)
    return configuration


PICKLE = {"name": "numcodecs.pickle", "configuration": {}}

FORGERIES: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "shape": (r"shape: expected \[", lambda a: a["shape"].__setitem__(0, 1 << 50)),
    "type": ("data_type: expected", lambda a: a.update(data_type="float64")),
    "fill": ("fill_value: expected 0", lambda a: a.update(fill_value=7)),
    "shard": (
        "chunk_grid: expected",
        lambda a: a["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(0, 1 << 50),
    ),
    "keys": (
        "chunk_key_encoding: expected",
        lambda a: a.update(chunk_key_encoding={"name": "v2"}),
    ),
    "transformer": (
        "storage_transformers: expected",
        lambda a: a.update(storage_transformers=[{"name": "x"}]),
    ),
    "field": ("unknown field 'more'", lambda a: a.update(more=1)),
    "chunk": (
        r"expected sharding_indexed with chunk_shape \[",
        lambda a: inner(a).update(chunk_shape=[1 << 50, 8]),
    ),
    "no sharding": ("expected sharding_indexed", lambda a: a.update(codecs=inner(a)["codecs"])),
    "a codec": ("codecs: expected sharding", lambda a: inner(a)["codecs"].insert(2, PICKLE)),
    "no checksum": ("codecs: expected sharding", lambda a: inner(a)["codecs"].pop()),
    "a chain": (
        "codecs: expected sharding",
        lambda a: inner(a)["codecs"].insert(2, inner(a)["codecs"][2]),
    ),
    "an index codec": (
        "codecs: expected sharding",
        lambda a: inner(a)["index_codecs"].insert(1, PICKLE),
    ),
    "gzip": (
        "codecs: expected sharding",
        lambda a: inner(a)["codecs"].__setitem__(2, {"name": "gzip"}),
    ),
    "order": (
        "codecs: expected sharding",
        lambda a: inner(a)["codecs"][0]["configuration"].update(order=[0, 1]),
    ),
    "endian": (
        "codecs: expected sharding",
        lambda a: inner(a)["codecs"][1]["configuration"].update(endian="big"),
    ),
    "index first": ("codecs: expected sharding", lambda a: inner(a).update(index_location="start")),
    "nonsense": ("expected", lambda a: a.update(codecs={"x": [1]})),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_forged_array_metadata_are_refused(
    what: str, store: Path, sign: Callable[[Path], None]
) -> None:
    message, change = FORGERIES[what]
    alter_array(store, change)
    sign(store)
    with pytest.raises(StoreCorruptError, match=rf"y_hat/zarr\.json: .*{message}"):
        open_store(store)


def test_a_codec_that_zarr_cannot_set_up_is_an_error_of_ours(
    store: Path, sign: Callable[[Path], None]
) -> None:
    alter_array(store, lambda a: inner(a)["codecs"][2]["configuration"].update(cname="none such"))
    sign(store)
    with pytest.raises(StoreCorruptError, match=r"y_hat/zarr\.json: zarr cannot open it"):
        open_store(store).array("y_hat")


@pytest.mark.parametrize("name", ["zarr.json", "y_hat/zarr.json"])
def test_json_without_end_is_refused(name: str, store: Path, sign: Callable[[Path], None]) -> None:
    (store / name).write_text("[" * 100_000)
    sign(store)
    with pytest.raises(StoreError, match=r"zarr\.json"):
        open_store(store)


def test_an_object_that_is_a_link_is_not_followed(store: Path, tmp_path: Path) -> None:
    shard = store / "y_hat" / "c" / "0" / "0"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreCorruptError, match="y_hat/c/0/0 is a link, or no regular file"):
        open_store(store)


def put_samples(store: Path, columns: dict[str, Any]) -> None:
    table = pq.read_table(store / "samples.parquet")
    rows = len(columns["id"])
    arrays = [
        columns.get(name, pa.array([table[name][0].as_py()] * rows, table.schema.field(name).type))
        for name in table.column_names
    ]
    made = pa.table(arrays, names=table.column_names)
    pq.write_table(made, store / "samples.parquet", compression="zstd", store_schema=False)


def test_a_samples_table_of_many_rows_and_few_bytes_is_refused(
    alter_header: AlterHeader, store: Path
) -> None:
    rows = 2_000_000
    put_samples(store, {"id": pa.array(["x"]).take(pa.array([0] * rows))})
    assert (store / "samples.parquet").stat().st_size < rows
    alter_header(store, lambda header: header["source"].update(samples=rows))
    with pytest.raises(
        StoreCorruptError, match=r"expected at most 32 times its .* bytes in memory"
    ):
        open_store(store)


def test_a_samples_table_of_one_long_text_is_refused(
    alter_header: AlterHeader, store: Path
) -> None:
    rows = 2_000
    long = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 1_000_000])
    put_samples(store, {"id": pa.array([str(k) for k in range(rows)]), "reason": long})
    assert (store / "samples.parquet").stat().st_size < 100_000
    alter_header(store, lambda header: header["source"].update(samples=rows))
    before = pa.total_allocated_bytes()
    with pytest.raises(StoreCorruptError, match="expected texts of at most 16,384"):
        open_store(store)
    assert pa.total_allocated_bytes() - before < 1 << 26


def test_pages_that_are_larger_than_the_metadata_say(
    sign: Callable[[Path], None], store: Path
) -> None:
    rows = pq.read_table(store / "samples.parquet").num_rows
    put_samples(store, {"id": pa.array([str(k) for k in range(rows)]), "reason": ["x" * 10**8] * 8})
    content = (store / "samples.parquet").read_bytes()
    metadata = pq.read_metadata(store / "samples.parquet")
    column = metadata.schema.names.index("reason")
    size = varint(2 * metadata.row_group(0).column(column).total_uncompressed_size)
    footer = content.rindex(size)
    small = bytes(byte | 0x80 for byte in b"\2" + b"\0" * (len(size) - 2)) + b"\0"
    lying = content[:footer] + small + content[footer + len(size) :]
    (store / "samples.parquet").write_bytes(lying)
    found = pq.read_metadata(store / "samples.parquet").row_group(0).column(column)
    assert found.total_uncompressed_size == 1
    sign(store)
    before = pa.total_allocated_bytes()
    with pytest.raises(StoreCorruptError, match=r"expected at most 32 times its .* in memory"):
        open_store(store)
    assert pa.total_allocated_bytes() - before < 1 << 26


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def test_nothing_is_unpickled() -> None:
    root = Path(__file__).parents[3]
    for path in (*root.glob("datasets/**/*.py"), *root.glob("train/**/*.py")):
        text = path.read_text()
        assert not re.search(
            r"^\s*(import|from) (pickle|cloudpickle|joblib|dill|shelve)\b", text, re.M
        )
        assert "allow_pickle=True" not in text
        assert "torch.load(" not in text or "weights_only=True" in text
