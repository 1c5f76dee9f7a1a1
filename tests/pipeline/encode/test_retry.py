"""Failed samples of a complete store are tried again, and nothing else of it changes."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from latentset.datasets.errors import (
    ImageFailedError,
)
from latentset.datasets.sources import Source
from latentset.datasets.store import Store, layout
from latentset.datasets.store.verify import verify
from latentset.pipeline.jobs.progress import ProgressView
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers.spoiling import check, cut_off, no_image

Run = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]
Row = Callable[[Store, str], dict[str, Any]]

WHERE = ("first_row", "z_first_row", "shard")
"""Columns that tell where a sample lies: a retried one lies elsewhere than in a fresh store."""

CHANGED = {
    "manifest.json",
    "samples.parquet",
    "zarr.json",
    "y_hat/zarr.json",
    "scale_index/zarr.json",
    "z_hat/zarr.json",
}
"""Objects that a retry may write anew."""


def samples_by_id(store: Store) -> dict[str, dict[str, Any]]:
    """Row and latents of every sample."""
    found = {}
    for k, row in enumerate(store.samples.to_pylist()):
        latents = store.read_sample(k) if row["status"] == "ok" else {}
        found[row["id"]] = {**row, **latents}
    return found


def assert_alike(
    found: dict[str, Any], expected: dict[str, Any], but: tuple[str, ...] = ()
) -> None:
    for name in expected.keys() | found.keys():
        if name not in but:
            np.testing.assert_array_equal(found[name], expected[name], name)


@pytest.mark.parametrize("name", ["store", "store.h5"])
def test_repaired_images_get_what_a_fresh_store_has(
    run: Run, mixed: Source, tmp_path: Path, name: str
) -> None:
    header, body, still = "a/000.png", "b/001.png", "b/005.png"
    whole = {header: no_image(mixed.folder / header), body: cut_off(mixed.folder / body)}
    cut_off(mixed.folder / still)
    before = run(mixed, tmp_path / name).store
    old = samples_by_id(before)
    assert [old[k]["status"] for k in (header, body, still)] == [
        "not_an_image",
        "truncated",
        "truncated",
    ]
    for path, content in whole.items():
        (mixed.folder / path).write_bytes(content)
    shutil.rmtree(tmp_path / f"{name}.job")  # as docs/encoding.md allows

    result = run(mixed, tmp_path / name, retry_failed=True)
    assert result.retried is not None
    assert (result.retried.samples, result.retried.repaired) == (3, 2)
    store = check(tmp_path / name)
    assert store.manifest is not None
    assert store.manifest.samples.model_dump() == {"total": 40, "ok": 39, "failed": 1}
    assert store.fingerprint == before.fingerprint
    shards = before.header.layout.shards
    added = store.header.layout.shards - shards
    assert [s.samples for s in store.manifest.shards[shards:]] == [2] if added == 1 else [1, 1]
    new, fresh = samples_by_id(store), samples_by_id(run(mixed, tmp_path / f"fresh-{name}").store)
    assert list(new) == mixed.samples["id"].to_pylist()
    for k in new:
        if k in whole:
            assert_alike(new[k], fresh[k], WHERE)
            assert new[k]["shard"] >= shards
        else:
            assert_alike(new[k], old[k])


def test_no_other_object_changes_by_a_byte(
    run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    whole = no_image(mixed.folder / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    (mixed.folder / "a" / "000.png").write_bytes(whole)
    run(mixed, store, retry_failed=True)
    after = content(store)
    assert {path for path in before if before[path] != after[path]} == CHANGED
    shards = len([path for path in before if path.startswith("y_hat/c")])
    assert after.keys() - before.keys() == {
        f"{name}/c/{shards}/0" for name in ("y_hat", "scale_index", "z_hat")
    }


def test_no_chunk_of_an_hdf5_store_changes_by_a_byte(
    run: Run, mixed: Source, tmp_path: Path
) -> None:
    def chunks(array: h5py.Dataset) -> list[bytes]:
        step = array.chunks[1]
        return [array.id.read_direct_chunk((0, k))[1] for k in range(0, array.shape[1], step)]

    whole = no_image(mixed.folder / "a" / "000.png")
    store = tmp_path / "store.h5"
    run(mixed, store)
    with h5py.File(store) as file:
        before = {name: chunks(file[name]) for name in ("y_hat", "scale_index", "z_hat")}
    (mixed.folder / "a" / "000.png").write_bytes(whole)
    run(mixed, store, retry_failed=True)
    with h5py.File(store) as file:
        for name, old in before.items():
            new = chunks(file[name])
            assert new[: len(old)] == old
            assert len(new) > len(old)


def test_many_of_all_sizes_fill_several_shards(run: Run, mixed: Source, tmp_path: Path) -> None:
    paths = mixed.samples["path"].to_pylist()[:27]
    whole = {path: no_image(mixed.folder / path) for path in paths}
    store = tmp_path / "store"
    shards = run(mixed, store).store.header.layout.shards
    for path, image in whole.items():
        (mixed.folder / path).write_bytes(image)
    run(mixed, store, retry_failed=True)
    found = check(store)
    assert found.header.layout.shards > shards + 3
    fresh = samples_by_id(run(mixed, tmp_path / "fresh").store)
    for name, sample in samples_by_id(found).items():
        assert_alike(sample, fresh[name], WHERE)


def test_no_shard_is_added_for_what_fails_again(
    run: Run, mixed: Source, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = mixed.samples["path"].to_pylist()[:12]
    whole = {path: no_image(mixed.folder / path) for path in paths}
    store = tmp_path / "store"
    shards = run(mixed, store).store.header.layout.shards
    (mixed.folder / paths[-1]).write_bytes(whole[paths[-1]])
    monkeypatch.setattr(layout, "SHARD_SAMPLES", 4)
    run(mixed, store, retry_failed=True)
    found = check(store)
    assert found.header.layout.shards == shards + 1
    assert row(found, paths[-1])["shard"] == shards


@pytest.mark.parametrize(
    ("size", "rows"), [((640, 640), "1600 .* and 100"), ((16, 192), "12 .* and 3")]
)
def test_one_that_does_not_fit_into_a_shard_is_too_large(
    run: Run, uniform: Source, row: Row, tmp_path: Path, size: tuple[int, int], rows: str
) -> None:
    large, fitting = uniform.folder / "a" / "000.png", uniform.folder / "b" / "001.png"
    no_image(large)
    whole = no_image(fitting)
    store = tmp_path / "store"
    before = run(uniform, store).store.header.layout
    assert (before.shard_rows, before.z_shard_rows) == (32, 2)
    Image.new("RGB", size[::-1]).save(large)
    fitting.write_bytes(whole)
    run(uniform, store, retry_failed=True)
    found = check(store)
    assert row(found, "b/001.png")["status"] == "ok"
    refused = row(found, "a/000.png")
    assert (refused["status"], refused["first_row"]) == ("too_large", -1)
    assert (refused["height"], refused["width"]) == size
    assert re.search(
        f"take {rows} of z_hat.* has 32 and 2: encode the store anew", refused["reason"]
    )


def test_what_fails_again_gets_its_new_reason_and_no_shard(
    run: Run, mixed: Source, content: Content, row: Row, tmp_path: Path
) -> None:
    path = mixed.folder / "a" / "000.png"
    whole = no_image(path)
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    path.write_bytes(whole[:-40])
    result = run(mixed, store, retry_failed=True)
    assert result.retried is not None
    assert (result.retried.samples, result.retried.repaired) == (1, 0)
    assert row(check(store), "a/000.png")["status"] == "truncated"
    after = content(store)
    assert after.keys() == before.keys()
    assert {path for path in before if before[path] != after[path]} == {
        "manifest.json",
        "samples.parquet",
    }


@pytest.mark.parametrize("name", ["store", "store.h5"])
def test_what_fails_in_the_same_way_again_changes_nothing(
    run: Run, mixed: Source, tmp_path: Path, name: str
) -> None:
    no_image(mixed.folder / "a" / "000.png")
    cut_off(mixed.folder / "b" / "001.png")
    store = tmp_path / name
    run(mixed, store)

    def files() -> dict[str, tuple[int, int]]:
        paths = [store, *store.rglob("*")]
        return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths if p.is_file()}

    before = files()
    result = run(mixed, store, retry_failed=True)
    assert result.retried is not None
    assert (result.retried.samples, result.retried.repaired) == (2, 0)
    assert files() == before
    check(store)


def test_without_failed_samples_there_is_nothing_to_do(
    run: Run, uniform: Source, content: Content, tmp_path: Path
) -> None:
    said: list[str] = []

    class View(ProgressView):
        def say(self, text: str) -> None:
            said.append(text)

    store = tmp_path / "store"
    run(uniform, store)
    before = content(store)
    # No worker is asked for: at this address there is none.
    again = run(uniform, store, retry_failed=True, scheduler="tcp://127.0.0.1:1", view=View())
    assert (again.was_complete, again.retried) == (True, None)
    assert said == [f"{store}: no sample has failed; there is none to try again"]
    assert content(store) == before


def test_a_store_that_is_not_complete_is_finished_first(
    run: Run, mixed: Source, tmp_path: Path
) -> None:
    whole = cut_off(mixed.folder / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    (store / "manifest.json").unlink()
    (mixed.folder / "a" / "000.png").write_bytes(whole)
    result = run(mixed, store, retry_failed=True)
    assert (result.was_complete, result.reused) == (False, 40)
    assert result.retried is not None
    assert (result.retried.samples, result.retried.repaired) == (1, 1)
    check(store)


def test_on_error_fail_stops_and_leaves_the_store_alone(
    run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    no_image(mixed.folder / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    with pytest.raises(ImageFailedError, match=r"a/000\.png: not_an_image"):
        run(mixed, store, retry_failed=True, on_error="fail")
    assert content(store) == before


def test_stores_of_several_codecs_are_retried_one_after_the_other(
    run_all: Callable[..., list[JobResult]], mixed: Source, tmp_path: Path
) -> None:
    whole = no_image(mixed.folder / "a" / "000.png")
    stores = {tmp_path / "one": "standin", tmp_path / "two": "standin:other"}
    run_all(mixed, stores)
    (mixed.folder / "a" / "000.png").write_bytes(whole)
    results = run_all(mixed, stores, retry_failed=True)
    assert [result.retried and result.retried.repaired for result in results] == [1, 1]
    for store in stores:
        manifest = check(store).manifest
        assert manifest is not None
        assert manifest.samples.failed == 0


def test_in_object_storage_too(run: Run, mixed: Source, s3: str) -> None:
    whole = no_image(mixed.folder / "a" / "000.png")
    run(mixed, f"{s3}/store")
    (mixed.folder / "a" / "000.png").write_bytes(whole)
    store = run(mixed, f"{s3}/store", retry_failed=True).store
    findings = verify(f"{s3}/store", lambda *_: None)
    assert findings.outcome == "sound", findings.problems
    assert store.read_sample(0)["y_hat"].any()
    assert not [path for path in store.location.beside(".job").sizes() or {} if "retry" in path]
