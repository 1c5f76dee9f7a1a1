"""Stores that somebody altered on purpose, their digests made to agree: refused, never followed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.store import open_store
from latentset.datasets.store.objects import sha256_of
from latentset.datasets.store.synthetic import write_synthetic_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_synthetic_store(tmp_path / "store", samples=8)


def sign(store: Path) -> None:
    """Make the manifest agree with the objects, as a forger would."""
    manifest = json.loads((store / "manifest.json").read_text())
    for item in manifest["objects"]:
        content = (store / item["path"]).read_bytes()
        item["bytes"], item["sha256"] = len(content), sha256_of(content)
    (store / "manifest.json").write_text(json.dumps(manifest))


def alter_header(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    group = json.loads((store / "zarr.json").read_text())
    change(group["attributes"]["latentset"])
    (store / "zarr.json").write_text(json.dumps(group))
    sign(store)


@pytest.mark.parametrize("name", ["../../elsewhere", "/elsewhere", "a/b", "..", "a\x1b[2J", ""])
def test_a_codec_name_that_is_a_path_is_refused(store: Path, name: str) -> None:
    alter_header(store, lambda header: header["codec"].update(name=name))
    with pytest.raises(StoreError, match=r"codec\.name"):
        open_store(store)


@pytest.mark.parametrize(
    ("y", "z"), [(10**400, 64), (16, 10**400), (0, 64), (16, 8), (16, 72), (-16, 64)]
)
def test_absurd_strides_are_refused(store: Path, y: int, z: int) -> None:
    alter_header(store, lambda h: h["codec"].update(y_downsampling=y, z_downsampling=z))
    with pytest.raises(StoreError, match="downsampling"):
        open_store(store)


def test_shards_beyond_number_are_refused_before_they_are_counted(store: Path) -> None:
    alter_header(store, lambda header: header["layout"].update(shards=10**12))
    with pytest.raises(StoreCorruptError, match="expected 1000000000000 shards"):
        open_store(store)


def test_a_damaged_samples_table_is_refused(store: Path) -> None:
    content = bytearray((store / "samples.parquet").read_bytes())
    content[4:-8] = b"\xff" * (len(content) - 12)
    (store / "samples.parquet").write_bytes(bytes(content))
    sign(store)
    with pytest.raises(StoreCorruptError, match=r"samples\.parquet"):
        open_store(store)


def test_an_index_beyond_the_scale_table_is_refused(store: Path) -> None:
    alter_header(store, lambda header: header["codec"].update(scale_table=[1.0]))
    with pytest.raises(StoreCorruptError, match="scale_index of sample 1"):
        open_store(store).read_sample(1)
