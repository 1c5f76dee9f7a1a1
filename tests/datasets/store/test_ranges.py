"""Numbers of the samples table that no array or image has: refused when a store is opened."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreFormatError
from latentset.datasets.store import open_store
from latentset.datasets.store.contents import contents_of
from latentset.datasets.store.hdf5.writer import encode_shard, write_hdf5
from latentset.datasets.store.verify import verify

AlterTable = Callable[[Path, Callable[[dict[str, list[Any]]], object]], None]
AlterHeader = Callable[[Path, Callable[[dict[str, Any]], object]], None]

RANGES: list[tuple[str, object, str]] = [
    ("first_row", 2**63 - 1, "first_row"),
    ("first_row", 2**63 - 16, "first_row|its rows cross"),
    ("first_row", -(2**63), "first_row|its rows cross"),
    ("z_first_row", 2**63 - 1, "z_first_row"),
    ("z_first_row", -(2**63), "z_first_row"),
    ("shard", 2**31 - 1, "no such shard"),
    ("shard", -1, "no such shard"),
    ("latent_height", 0, "latent size"),
    ("latent_height", 2**31 - 1, "latent size"),
    ("latent_width", -4, "latent size"),
    ("latent_width", 3, "latent size does not follow"),
    ("height", 0, "latent size does not follow"),
    ("height", -64, "height is negative"),
    ("width", 2**31 - 1, "latent size does not follow"),
    ("label", 2, "no such label"),
    ("label", -2, "no such label"),
    ("split", "vall", "split is none of"),
    ("rate_bpp", None, "rate_bpp is missing"),
    ("rate_bpp", -1.0, "rate_bpp is missing, negative"),
    ("rate_bpp", float("inf"), "rate_bpp is missing, negative or infinite"),
    ("rate_bpp", 1e300, "rate_bpp"),
    ("source_bytes", -1, "source_bytes is negative"),
    ("source_sha256", "x", "source_sha256 is no digest"),
    ("status", "", "without latents|counts"),
    ("reason", "x" * 20_000, "expected texts of at most 16,384"),
    ("path", "../x", "path leads out"),
]
"""A column, its value in row 0, and what is said."""


@pytest.mark.parametrize(("column", "value", "message"), RANGES)
def test_a_number_that_nothing_has(
    alter_table: AlterTable, store: Path, column: str, value: object, message: str
) -> None:
    alter_table(store, lambda columns: columns[column].__setitem__(0, value))
    with pytest.raises(StoreCorruptError, match=message):
        open_store(store)
    assert verify(store).outcome == "damaged"


def test_a_rate_of_zero_is_shown(
    alter_table: AlterTable, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from latentset.cli.store import inspect

    def change(columns: dict[str, list[Any]]) -> None:
        columns["rate_bpp"] = [None if rate is None else 0.0 for rate in columns["rate_bpp"]]

    alter_table(store, change)
    inspect(str(store))
    assert "0.0000 bpp" in capsys.readouterr().out


@pytest.mark.parametrize(("column", "value", "message"), RANGES)
def test_the_same_in_hdf5(
    store: Path, tmp_path: Path, column: str, value: object, message: str
) -> None:
    contents = contents_of(opened := open_store(store))
    rows = contents.samples.to_pylist()
    rows[0][column] = value
    path = tmp_path / "forged.h5"
    write_hdf5(
        path,
        contents.header,
        (
            encode_shard(contents.header, contents.read_shard(k))
            for k in range(len(contents.shards))
        ),
        fingerprint=opened.fingerprint,
        samples=pa.Table.from_pylist(rows, schema=contents.samples.schema),
        summaries=contents.shards,
    )
    with pytest.raises(StoreCorruptError, match=message):
        open_store(path)
    assert verify(path).outcome == "damaged"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(resize="stretch:64"), "resize"),
        (lambda h: h.update(resize="short:32"), "latent size does not follow"),
        (lambda h: h["codec"].update(y_downsampling=64, z_downsampling=64), "z_first_row|size"),
        (lambda h: h["codec"].update(y_downsampling=1024, z_downsampling=1024), "size|z_first_row"),
    ],
)
def test_a_header_that_does_not_fit_the_table(
    alter_header: AlterHeader, store: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    alter_header(store, change)
    with pytest.raises(StoreError, match=message):
        open_store(store)
    assert verify(store).outcome == "damaged"


def test_a_column_that_is_there_twice(sign: Callable[[Path], None], store: Path) -> None:
    table = pq.read_table(store / "samples.parquet")
    twice = pa.Table.from_arrays([*table.columns, table["id"]], [*table.column_names, "id"])
    pq.write_table(twice, store / "samples.parquet", store_schema=False)
    sign(store)
    with pytest.raises(StoreFormatError, match="a column is there twice"):
        open_store(store)
    assert verify(store).outcome == "damaged"


def test_a_text_that_is_no_utf8(sign: Callable[[Path], None], store: Path) -> None:
    table = pq.read_table(store / "samples.parquet")
    broken = [b"\xff\xfe", *[text.encode() for text in table["path"].to_pylist()[1:]]]
    buffers = pa.array(broken, pa.binary()).buffers()
    text = pa.Array.from_buffers(pa.string(), table.num_rows, buffers)
    table = table.set_column(table.schema.get_field_index("path"), table.schema.field("path"), text)
    pq.write_table(table, store / "samples.parquet", store_schema=False)
    sign(store)
    with pytest.raises(StoreCorruptError, match=r"UTF8|utf8"):
        open_store(store)
    assert verify(store).outcome == "damaged"
