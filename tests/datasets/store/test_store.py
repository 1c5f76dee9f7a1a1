"""What every reader of a store may rely on, and what it must refuse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentset.datasets.errors import (
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreIncompleteError,
)
from latentset.datasets.store import open_store
from latentset.datasets.store.zarr.writer import ShardBuffer, shard_objects
from tests.makers.synthetic import write_synthetic_store

FAILED = 3


Sign = Callable[[Path], None]
WriteManifest = Callable[[Path, dict[str, Any]], None]
ChangeSamples = Callable[[Path, Callable[[list[dict[str, Any]]], object]], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 64x64 and 100x330 images, one failed."""
    path = tmp_path_factory.mktemp("made") / "store"
    return write_synthetic_store(
        path, samples=12, sizes=((64, 64), (100, 330)), failed=(FAILED,), sigma_hat=True
    )


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture
def change_samples(sign: Sign) -> ChangeSamples:
    def change_them(store: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
        table = pq.read_table(store / "samples.parquet")
        rows = table.to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), store / "samples.parquet")
        sign(store)

    return change_them


def test_samples_have_the_shapes_of_their_images(made: Path) -> None:
    opened = open_store(made)
    assert opened.samples.num_rows == 12
    for k in (0, 2, 11):
        sample = opened.read_sample(k)
        height, width, z_size = (4, 4, (1, 1)) if k % 2 == 0 else (7, 21, (2, 6))
        assert sample["y_hat"].shape == (height, width, 8)
        assert sample["scale_index"].shape == sample["sigma_hat"].shape == (height, width, 8)
        assert sample["z_hat"].shape == (*z_size, 4)
        types = {name: str(values.dtype) for name, values in sample.items()}
        assert types == {
            "y_hat": "int16",
            "scale_index": "uint8",
            "z_hat": "int16",
            "sigma_hat": "float32",
        }
        assert sample["y_hat"].std() > 1


def test_sigma_hat_is_the_scale_of_the_index(made: Path) -> None:
    opened = open_store(made)
    sample = opened.read_sample(5)
    expected = np.exp(np.log(0.11) + sample["scale_index"] * np.log(256 / 0.11) / 63)
    np.testing.assert_allclose(sample["sigma_hat"], expected, rtol=1e-6)
    first = opened.samples["first_row"][5].as_py()
    stored = np.asarray(opened.array("sigma_hat")[first : first + 7 * 21])
    assert stored.dtype == np.float16
    np.testing.assert_allclose(stored.reshape(7, 21, 8), expected, rtol=1e-3)


def test_plain_tensorstore_reads_what_zarr_wrote(made: Path) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="of the train environment")
    opened = open_store(made)
    for name in opened.header.arrays:
        array = tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(made / name)}}
        ).result()
        found = np.asarray(array.read().result())
        expected = np.asarray(opened.array(name)[:])
        assert found.dtype == expected.dtype
        assert found.any()
        np.testing.assert_array_equal(found, expected)


def test_a_sample_that_failed_has_no_latents(made: Path) -> None:
    opened = open_store(made)
    row = opened.samples.slice(FAILED, 1).to_pylist()[0]
    assert (row["status"], row["rate_bpp"], row["first_row"]) == ("truncated", None, -1)
    with pytest.raises(StoreError, match=r"sample 3 \(odd/000003\) has no latents: truncated"):
        opened.read_sample(FAILED)


def test_an_incomplete_store_is_refused_unless_wanted(store: Path) -> None:
    (store / "manifest.json").unlink()
    with pytest.raises(StoreIncompleteError, match="run the same latentset encode again"):
        open_store(store)
    opened = open_store(store, allow_incomplete=True)
    assert opened.manifest is None
    assert opened.fingerprint == ""
    assert opened.samples.num_rows == 0
    assert opened.header.codec is not None
    assert opened.header.codec.name == "synthetic"


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreFormatError, match=r"not a LatentSet store: no .*zarr\.json is there"):
        open_store(tmp_path)
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(StoreFormatError, match="no attribute 'latentset'"):
        open_store(tmp_path)
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(StoreFormatError, match=r"zarr\.json: no JSON"):
        open_store(tmp_path)


def test_another_format_version_is_refused(store: Path) -> None:
    text = (store / "zarr.json").read_text()
    (store / "zarr.json").write_text(text.replace('"1.0"', '"7.0"'))
    with pytest.raises(
        StoreFormatError, match=r"expected 0\.1 or 1\.0 or 1\.1 or 1\.2, got '7\.0'"
    ):
        open_store(store)


def test_a_manifest_with_one_letter_changed_is_refused(store: Path) -> None:
    text = (store / "manifest.json").read_text()
    fingerprint = json.loads(text)["fingerprint"]
    other = fingerprint[:-1] + ("0" if fingerprint[-1] != "0" else "1")
    (store / "manifest.json").write_text(text.replace(fingerprint, other))
    with pytest.raises(StoreCorruptError, match="the sha256 that it gives of itself: expected"):
        open_store(store)


@pytest.mark.parametrize("keep", [0, 1, 0.5, 0.99])
def test_a_torn_manifest_is_refused(store: Path, keep: float) -> None:
    content = (store / "manifest.json").read_bytes().rstrip()
    (store / "manifest.json").write_bytes(content[: int(len(content) * keep) if keep != 1 else -1])
    with pytest.raises(StoreCorruptError, match=r"manifest\.json is not valid"):
        open_store(store)


def test_a_manifest_with_unknown_fields_is_refused(store: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps({**manifest, "more": 1}))
    with pytest.raises(StoreCorruptError, match="more: Extra inputs are not permitted"):
        open_store(store)


def test_a_manifest_that_leads_out_of_the_store_is_refused(store: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["objects"].insert(0, {**manifest["objects"][0], "path": "../secret"})
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreCorruptError, match=r"'\.\./secret' is no path of an object"):
        open_store(store)


@pytest.mark.parametrize("name", ["y_hat/c/0/0", "z_hat/c/1/0", "scale_index/zarr.json"])
def test_a_missing_object_is_refused(store: Path, name: str) -> None:
    (store / name).unlink()
    with pytest.raises(StoreCorruptError, match=f"{name} is missing"):
        open_store(store)


def test_an_object_that_the_manifest_forgot_is_refused(
    write_manifest: WriteManifest, store: Path
) -> None:
    (store / "y_hat/c/0/0").unlink()
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["objects"] = [o for o in manifest["objects"] if o["path"] != "y_hat/c/0/0"]
    write_manifest(store, manifest)
    with pytest.raises(StoreCorruptError, match="does not list y_hat/c/0/0"):
        open_store(store)


def test_a_truncated_object_is_refused(store: Path) -> None:
    path = store / "scale_index/c/0/0"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreCorruptError, match=r"scale_index/c/0/0: expected .* bytes, got"):
        open_store(store)


@pytest.mark.parametrize("name", ["samples.parquet", "zarr.json", "y_hat/zarr.json"])
def test_altered_metadata_is_refused(store: Path, name: str) -> None:
    content = bytearray((store / name).read_bytes())
    position = content.rindex(b"0") if name.endswith("json") else len(content) // 2
    content[position] ^= 1
    (store / name).write_bytes(bytes(content))
    with pytest.raises(StoreError, match=r"differs from its sha256|header"):
        open_store(store)


def test_an_altered_chunk_is_refused_when_read(store: Path) -> None:
    path = store / "y_hat/c/0/0"
    content = bytearray(path.read_bytes())
    content[30] ^= 4
    path.write_bytes(bytes(content))
    opened = open_store(store)
    with pytest.raises(StoreCorruptError, match="y_hat, rows from 0"):
        opened.read_sample(0)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("first_row", 148, "first_row"),
        ("first_row", -147, "first_row"),
        ("first_row", 147 << 30, "rows cross the end"),
        ("z_first_row", 1 << 40, "z_first_row"),
        ("latent_height", 0, "latent size"),
        ("latent_height", 2**31 - 1, "latent size"),
        ("shard", 99, "no such shard"),
        ("label", 2, "no such label"),
        ("label", -2, "no such label"),
        ("path", "../secret", "path leads out"),
        ("path", "a/../../secret", "path leads out"),
        ("path", "/etc/passwd", "path leads out"),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    change_samples: ChangeSamples, store: Path, column: str, value: object, message: str
) -> None:
    change_samples(store, lambda rows: rows[1].update({column: value}))
    with pytest.raises(StoreCorruptError, match=rf"row 1 \(.*{message}"):
        open_store(store)


def test_samples_table_of_another_length_is_refused(
    change_samples: ChangeSamples, store: Path
) -> None:
    change_samples(store, lambda rows: rows.pop())
    with pytest.raises(StoreCorruptError, match=r"rows \(source\.samples\): expected 12"):
        open_store(store)


def test_a_samples_table_with_other_counts_than_the_manifests_is_refused(
    change_samples: ChangeSamples, store: Path
) -> None:
    absent = {"latent_height": 0, "latent_width": 0, "first_row": -1, "z_first_row": -1}
    failed = {**absent, "status": "truncated", "rate_bpp": None}
    change_samples(store, lambda rows: rows[0].update(failed))
    with pytest.raises(StoreCorruptError, match=r"total=12 ok=11 .* got total=12 ok=10"):
        open_store(store)


def test_a_missing_column_is_refused_and_a_new_one_ignored(sign: Sign, store: Path) -> None:
    table = pq.read_table(store / "samples.parquet")
    pq.write_table(table.append_column("new", [[1] * 12]), store / "samples.parquet")
    sign(store)
    assert "new" not in open_store(store).samples.column_names
    pq.write_table(table.drop_columns(["split"]), store / "samples.parquet")
    sign(store)
    with pytest.raises(StoreFormatError, match="column 'split' is missing"):
        open_store(store)


def test_a_column_of_another_type_is_refused(sign: Sign, store: Path) -> None:
    table = pq.read_table(store / "samples.parquet")
    column = table.column_names.index("label")
    other = table.set_column(column, "label", table["label"].cast(pa.int64()))
    pq.write_table(other, store / "samples.parquet")
    sign(store)
    with pytest.raises(StoreFormatError, match="'label': expected int32, got int64"):
        open_store(store)


@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        ("y_hat", 32768, "y_hat: expected values within the range of int16"),
        ("y_hat", -32769, "got -32769 to 0"),
        ("z_hat", 40000, "z_hat: expected values within the range of int16"),
        ("scale_index", 64, "scale_index: expected values within the codec's scale table, 0 to 63"),
        ("scale_index", -1, "scale_index: .*got -1 to 0"),
    ],
)
def test_values_that_do_not_fit_are_never_wrapped(
    made: Path, array: str, value: int, message: str
) -> None:
    buffer = ShardBuffer(open_store(made).header, 0)
    values = {
        "y_hat": np.zeros((4, 4, 8), np.int32),
        "scale_index": np.zeros((4, 4, 8), np.int32),
        "z_hat": np.zeros((1, 1, 4), np.int32),
    }
    buffer.put(0, 0, **values)
    values[array].flat[-1] = value
    with pytest.raises(StoreError, match=message):
        buffer.put(0, 0, **values)


def test_values_that_are_no_integers_are_refused(made: Path) -> None:
    buffer = ShardBuffer(open_store(made).header, 0)
    nothing = np.zeros((1, 1, 4), np.int32)
    with pytest.raises(StoreError, match="y_hat: expected integers, got float32"):
        buffer.put(0, 0, np.full((4, 4, 8), np.nan, np.float32), nothing, nothing)


def test_a_sample_cannot_be_put_into_another_shard(made: Path) -> None:
    buffer = ShardBuffer(open_store(made).header, 1)
    latents = np.zeros((4, 4, 8), np.int32)
    with pytest.raises(StoreError, match="does not fit"):
        buffer.put(0, 0, latents, latents, np.zeros((1, 1, 4), np.int32))


def test_a_shard_of_zeros_is_written_all_the_same(made: Path) -> None:
    header = open_store(made).header
    objects = shard_objects(header, 1, ShardBuffer(header, 1).rows())
    assert sorted(objects) == [f"{n}/c/1/0" for n in ("scale_index", "sigma_hat", "y_hat", "z_hat")]
