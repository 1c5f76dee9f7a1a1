"""Stores that somebody altered on purpose, their digests made to agree: refused, never followed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.store import open_store
from latentset.datasets.store.synthetic import write_synthetic_store

AlterHeader = Callable[[Path, Callable[[dict[str, Any]], object]], None]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_synthetic_store(tmp_path / "store", samples=8)


@pytest.fixture
def alter_header(sign: Callable[[Path], None]) -> AlterHeader:
    def alter(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
        group = json.loads((store / "zarr.json").read_text())
        change(group["attributes"]["latentset"])
        (store / "zarr.json").write_text(json.dumps(group))
        sign(store)

    return alter


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
    with pytest.raises(StoreCorruptError, match="expected 1000000000000 shards"):
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
    with pytest.raises(StoreCorruptError, match="scale_index of sample 1"):
        open_store(store).read_sample(1)
