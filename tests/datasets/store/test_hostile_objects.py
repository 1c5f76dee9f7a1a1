"""What a store's folder may hold in place of its objects, and what objects may claim."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.storage.location import Folder
from latentset.datasets.store import findings as findings_module
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.verify import verify
from tests.makers.confined import confined
from tests.makers.synthetic import write_synthetic_store
from tests.makers.using import check, use


def test_a_fifo_blocks_nobody(store: Path, tmp_path: Path) -> None:
    for path in ("zarr.json", "manifest.json", "samples.parquet", "y_hat/c/0/0"):
        broken = Path(shutil.copytree(store, tmp_path / path.replace("/", "-")))
        (broken / path).unlink()
        os.mkfifo(broken / path)
        with pytest.raises(StoreError, match=r"no regular file"):
            open_store(broken)
        findings = verify(broken)
        assert findings.outcome != "sound"


def test_a_fifo_above_a_target_blocks_nobody(store: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "zarr.json")
    os.mkfifo(tmp_path / "manifest.json")
    assert open_store(store).manifest is not None
    convert(open_store(store), Folder(tmp_path / "below" / "copy.zarr"), "zarr")


def test_a_sparse_file_is_not_read(store: Path) -> None:
    for path in ("zarr.json", "manifest.json", "samples.parquet"):
        content = (store / path).read_bytes()
        os.truncate(store / path, 1 << 40)
        with pytest.raises(StoreCorruptError, match=r"expected (at most )?[\d,]+( bytes)?, got"):
            open_store(store)
        (store / path).write_bytes(content)


@pytest.mark.parametrize("path", ["samples.parquet", "y_hat/zarr.json", "more"])
def test_a_sparse_file_that_is_listed_with_its_size_is_not_read(
    write_manifest: Callable[[Path, dict[str, Any]], None],
    read_manifest: Callable[[Path], dict[str, Any]],
    store: Path,
    path: str,
) -> None:
    manifest = read_manifest(store)
    if path == "more":
        (store / path).touch()
        manifest["objects"].append({**manifest["objects"][0], "path": path})
        manifest["objects"].sort(key=lambda item: item["path"])
    os.truncate(store / path, 1 << 40)
    for item in manifest["objects"]:
        if item["path"] == path:
            item["bytes"] = 1 << 40
    write_manifest(store, manifest)
    with pytest.raises(StoreCorruptError, match=path):
        open_store(store)
    problems = verify(store).problems
    assert any(path in problem for problem in problems)


@pytest.mark.parametrize("entry", [(2**64 - 1, 2**64 - 1), (0, 0), (10**9, 100), (0, 2**40)])
def test_an_index_that_lacks_a_chunk(
    sign: Callable[[Path], None], store: Path, tmp_path: Path, entry: tuple[int, int]
) -> None:
    shard = store / "y_hat/c/0/0"
    content = bytearray(shard.read_bytes())
    layout = open_store(store).header.layout
    size = 16 * (layout.shard_rows // layout.chunk_rows)
    first = len(content) - size - 4
    content[first : first + 16] = np.array(entry, "<u8").tobytes()
    content[-4:] = google_crc32c.value(bytes(content[first:-4])).to_bytes(4, "little")
    shard.write_bytes(content)
    sign(store)
    findings = verify(store)
    assert findings.outcome == "damaged"
    assert "y_hat: rows 0 to" in findings.problems[0]
    opened = open_store(store)
    with pytest.raises(StoreCorruptError, match="y_hat"):
        opened.read_shard(0)
    with pytest.raises(StoreCorruptError):
        convert(opened, Folder(tmp_path / "copy.h5"), "hdf5")


def test_shards_that_claim_more_than_they_can_hold(
    alter_header: Callable[[Path, Callable[[dict[str, Any]], object]], None],
    sign: Callable[[Path], None],
    store: Path,
) -> None:
    """Shards of 1 GiB that are a few kilobytes of zeros."""
    rows = 1 << 26  # of 16 bytes
    alter_header(store, lambda header: header["layout"].update(chunk_rows=rows, shard_rows=rows))
    for name in ("y_hat", "scale_index", "sigma_hat"):
        path = store / name / "zarr.json"
        array = json.loads(path.read_text())
        shards = array["shape"][0] // array["chunk_grid"]["configuration"]["chunk_shape"][0]
        array["shape"][0] = shards * rows
        array["chunk_grid"]["configuration"]["chunk_shape"][0] = rows
        array["codecs"][0]["configuration"]["chunk_shape"][0] = rows
        path.write_text(json.dumps(array))
        for shard in (store / name / "c").glob("*/0"):
            shard.write_bytes(bytes(60_000))
    sign(store)
    with pytest.raises(StoreCorruptError, match=r"60,000 bytes are too few for 1,073,741,824"):
        open_store(store)
    assert any("too few" in problem for problem in verify(store).problems)


@pytest.mark.parametrize("name", ["store.zarr", "store.h5"])
def test_a_large_shard_is_verified_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sizes = ((64, 64), (100, 50))
    store = write_synthetic_store(tmp_path / "store.zarr", samples=64, sizes=sizes, sigma_hat=True)
    if name == "store.h5":
        convert(open_store(store), Folder(tmp_path / name), "hdf5")
    whole = verify(tmp_path / name)
    monkeypatch.setattr(findings_module, "_PART_BYTES", 1)
    monkeypatch.setattr(findings_module, "_SHARDS_BYTES", 1)
    layout = open_store(store).header.layout
    assert layout.shard_rows > layout.chunk_rows
    assert verify(tmp_path / name) == whole
    assert whole.outcome == "sound"


@pytest.mark.parametrize(
    ("name", "piece"),
    [("manifest.json", b"[],"), ("zarr.json", b'{"a":1},'), ("y_hat/zarr.json", b"[0],")],
)
def test_json_of_many_small_values_takes_little_memory(
    store: Path, sign: Callable[[Path], None], tmp_path: Path, name: str, piece: bytes
) -> None:
    many = piece * ((5 << 20) // len(piece)) + b"1]}"
    (store / name).write_bytes(b'{"format_version": "1.0", "objects": [' + many)
    if name != "manifest.json":
        sign(store)

    outcome = confined(use, store, tmp_path, memory_bytes=400 << 20)
    assert outcome in ("StoreFormatError", "StoreCorruptError")
    assert confined(check, store, tmp_path, memory_bytes=400 << 20) != "sound"


def test_ids_are_unique(sign: Callable[[Path], None], store: Path) -> None:
    table = pq.read_table(store / "samples.parquet")
    same = pa.array([table["id"][0].as_py()] * table.num_rows)
    changed = table.set_column(table.schema.get_field_index("id"), table.schema.field("id"), same)
    pq.write_table(changed, store / "samples.parquet", store_schema=False)
    sign(store)
    with pytest.raises(StoreCorruptError, match="ids are not unique"):
        open_store(store)


def test_what_a_system_leaves_is_no_damage(store: Path) -> None:
    for path in (".DS_Store", "y_hat/._zarr.json", "y_hat/c/.nfs00000001"):
        (store / path).write_bytes(b"x")
    findings = verify(store)
    assert findings.outcome == "sound"
    assert any(".DS_Store" in note and "can be deleted" in note for note in findings.notes)
    (store / "y_hat/extra").write_bytes(b"x")
    assert verify(store).problems == ["y_hat/extra is not listed in manifest.json"]


@pytest.mark.parametrize(
    "path", ["", "./x", "a//b", "a/../b", "/a", "a\0b", "a\nb", "a\\b", "x" * 201, "y_hat/c/0/0/x"]
)
def test_a_path_that_is_none_is_refused(
    write_manifest: Callable[[Path, dict[str, Any]], None], store: Path, path: str
) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["objects"].append({**manifest["objects"][0], "path": path})
    manifest["objects"].sort(key=lambda item: item["path"])
    write_manifest(store, manifest)
    with pytest.raises(StoreCorruptError, match="is no path of an object"):
        open_store(store)


def test_a_split_that_is_not_there(store: Path) -> None:
    with pytest.raises(StoreError, match=r"expected a split of \['train'.*\], got 'vall'"):
        open_store(store).indices("vall")


def test_a_store_is_shown_in_one_line(store: Path) -> None:
    assert repr(open_store(store)) == f"<ZarrStore {store}: 12 samples, synthetic>"
