"""Failed samples of a complete store are tried again, and nothing else of it changes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from latentset.datasets.errors import (
    JobError,
    PhotographFailedError,
    StoreCorruptError,
    StoreIncompleteError,
)
from latentset.datasets.sources import Source
from latentset.datasets.store import Store, layout, open_store
from latentset.datasets.store.hdf5 import USER_BLOCK
from latentset.datasets.store.places import Folder
from latentset.datasets.store.verify import verify
from latentset.pipeline.encoding import amend, retry
from latentset.pipeline.encoding.job import EncodeResult, encode_all
from latentset.pipeline.encoding.progress import Silence

Run = Callable[..., EncodeResult]
Content = Callable[[Path], dict[str, bytes]]
Row = Callable[[Store, str], dict[str, Any]]

WHERE = ("first_row", "z_first_row", "shard")
"""Columns that tell where a sample lies: a retried one lies elsewhere than in a fresh store."""

TIMEOUT_S = 300

CHANGED = {
    "manifest.json",
    "samples.parquet",
    "zarr.json",
    "y_hat/zarr.json",
    "scale_index/zarr.json",
    "z_hat/zarr.json",
}
"""Objects that a retry may write anew."""


def no_image(path: Path) -> bytes:
    """Spoil a photograph's header, and return what it was."""
    whole = path.read_bytes()
    path.write_bytes(b"no image")
    return whole


def cut_off(path: Path) -> bytes:
    """Spoil a photograph's body: it turns out when it is decoded."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    return whole


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


def check(store: Path) -> Store:
    """Verify a store and open it."""
    findings = verify(store, lambda *_: None)
    assert findings.is_sound, findings.problems
    assert not list(store.parent.glob(f"{store.name}.job/*/retry"))
    return open_store(store)


@pytest.mark.parametrize("name", ["store", "store.h5"])
def test_repaired_photographs_get_what_a_fresh_store_has(
    run: Run, mixed: Source, tmp_path: Path, name: str
) -> None:
    header, body, still = "a/000.png", "b/001.png", "b/005.png"
    whole = {header: no_image(mixed.root / header), body: cut_off(mixed.root / body)}
    cut_off(mixed.root / still)
    before = run(mixed, tmp_path / name).store
    old = samples_by_id(before)
    assert [old[k]["status"] for k in (header, body, still)] == [
        "not_an_image",
        "truncated",
        "truncated",
    ]
    for path, content in whole.items():
        (mixed.root / path).write_bytes(content)
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
    whole = no_image(mixed.root / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    (mixed.root / "a" / "000.png").write_bytes(whole)
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

    whole = no_image(mixed.root / "a" / "000.png")
    store = tmp_path / "store.h5"
    run(mixed, store)
    with h5py.File(store) as file:
        before = {name: chunks(file[name]) for name in ("y_hat", "scale_index", "z_hat")}
    (mixed.root / "a" / "000.png").write_bytes(whole)
    run(mixed, store, retry_failed=True)
    with h5py.File(store) as file:
        for name, old in before.items():
            new = chunks(file[name])
            assert new[: len(old)] == old
            assert len(new) > len(old)


def test_many_of_all_sizes_fill_several_shards(run: Run, mixed: Source, tmp_path: Path) -> None:
    paths = mixed.samples["path"].to_pylist()[:27]
    whole = {path: no_image(mixed.root / path) for path in paths}
    store = tmp_path / "store"
    shards = run(mixed, store).store.header.layout.shards
    for path, photograph in whole.items():
        (mixed.root / path).write_bytes(photograph)
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
    whole = {path: no_image(mixed.root / path) for path in paths}
    store = tmp_path / "store"
    shards = run(mixed, store).store.header.layout.shards
    (mixed.root / paths[-1]).write_bytes(whole[paths[-1]])
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
    large, fitting = uniform.root / "a" / "000.png", uniform.root / "b" / "001.png"
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
    path = mixed.root / "a" / "000.png"
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
    no_image(mixed.root / "a" / "000.png")
    cut_off(mixed.root / "b" / "001.png")
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

    class View(Silence):
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
    whole = cut_off(mixed.root / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    (store / "manifest.json").unlink()
    (mixed.root / "a" / "000.png").write_bytes(whole)
    result = run(mixed, store, retry_failed=True)
    assert (result.was_complete, result.reused) == (False, 40)
    assert result.retried is not None
    assert (result.retried.samples, result.retried.repaired) == (1, 1)
    check(store)


def test_on_error_fail_stops_and_leaves_the_store_alone(
    run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    no_image(mixed.root / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    with pytest.raises(PhotographFailedError, match=r"a/000\.png: not_an_image"):
        run(mixed, store, retry_failed=True, on_error="fail")
    assert content(store) == before


def test_stores_of_several_codecs_are_retried_one_after_the_other(
    standin: Any, scheduler: str, mixed: Source, tmp_path: Path
) -> None:
    whole = no_image(mixed.root / "a" / "000.png")
    stores: list[tuple[Path | str, str]] = [
        (tmp_path / "one", "standin"),
        (tmp_path / "two", "standin:other"),
    ]
    encode_all(mixed, stores, scheduler=scheduler, engine=standin.ENGINE)
    (mixed.root / "a" / "000.png").write_bytes(whole)
    results = encode_all(
        mixed, stores, scheduler=scheduler, engine=standin.ENGINE, retry_failed=True
    )
    assert [result.retried and result.retried.repaired for result in results] == [1, 1]
    for store, _ in stores:
        manifest = check(Path(store)).manifest
        assert manifest is not None
        assert manifest.samples.failed == 0


def test_in_object_storage_too(run: Run, mixed: Source, s3: str) -> None:
    whole = no_image(mixed.root / "a" / "000.png")
    run(mixed, f"{s3}/store")
    (mixed.root / "a" / "000.png").write_bytes(whole)
    store = run(mixed, f"{s3}/store", retry_failed=True).store
    findings = verify(f"{s3}/store", lambda *_: None)
    assert findings.is_sound, findings.problems
    assert store.read_sample(0)["y_hat"].any()
    assert not [path for path in store.place.beside(".job").sizes() or {} if "retry" in path]


class Killed(Exception):  # noqa: N818 - nothing went wrong
    """What stands for a kill."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let the writing or removing of that number fail, counted from when all shards are encoded."""
    steps: list[str] = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Folder, path: str, *rest: Any) -> Any:
            # The claim of the lock is written and read by another thread.
            if counting and self.name != "lock":
                steps.append(f"{function.__name__} {self.name} {path}")
                if len(steps) == step + 1:
                    raise Killed
            return function(self, path, *rest)

        return call

    counting = False

    def begin(*arguments: Any) -> Any:
        nonlocal counting
        counting = True
        return amend.decide(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("latentset.pipeline.encoding.retry.decide", begin)
        patch.setattr(Folder, "write", counted(Folder.write))
        patch.setattr(Folder, "remove", counted(Folder.remove))
        yield steps


@pytest.mark.parametrize("again", [True, False])
def test_killed_before_any_step_of_the_change_it_is_finished(
    run: Run,
    mixed: Source,
    content: Content,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    again: bool,
) -> None:
    """Readers find the store as it was, or none, or as it is to be; a command finishes it.

    With --retry-failed always; without, where the store has lost its manifest.
    """
    whole = no_image(mixed.root / "a" / "000.png")
    cut_off(mixed.root / "b" / "001.png")
    begun, store = tmp_path / "begun", tmp_path / "store"
    run(mixed, begun)
    (mixed.root / "a" / "000.png").write_bytes(whole)
    shutil.copytree(begun, tmp_path / "done")
    run(mixed, tmp_path / "done", retry_failed=True)
    before, after = content(begun), content(tmp_path / "done")
    seen = []
    for step in range(100):
        shutil.rmtree(store, ignore_errors=True)
        shutil.rmtree(tmp_path / "store.job", ignore_errors=True)
        shutil.copytree(begun, store)
        try:
            with killed_at(step, monkeypatch) as steps:
                run(mixed, store, retry_failed=True)
            break
        except Killed:
            try:
                open_store(store)
                assert content(store) in (before, after), steps
                seen.append("as it was" if content(store) == before else "as it is to be")
            except StoreIncompleteError:
                seen.append("refused")
        run(mixed, store, retry_failed=again)
        expected = before if not again and seen[-1] == "as it was" else after
        assert content(store) == expected, steps
    assert list(dict.fromkeys(seen)) == ["as it was", "refused", "as it is to be"]
    assert seen.count("refused") == 9  # the manifest comes after zarr.json, samples and new shards
    assert content(store) == after


@pytest.mark.parametrize(
    ("step", "seen"), [((amend, "assemble"), "truncated"), ((retry, "_forget"), "ok")]
)
def test_an_hdf5_file_is_as_it_was_or_as_it_is_to_be(
    run: Run,
    mixed: Source,
    row: Row,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: tuple[Any, str],
    seen: str,
) -> None:
    whole = cut_off(mixed.root / "a" / "000.png")
    no_image(mixed.root / "b" / "001.png")
    store = tmp_path / "store.h5"
    run(mixed, store)
    (mixed.root / "a" / "000.png").write_bytes(whole)

    def kill(*arguments: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*step, kill)
        with pytest.raises(Killed):
            run(mixed, store, retry_failed=True)
    assert row(open_store(store), "a/000.png")["status"] == seen
    (tmp_path / ".store.h5.partial-0").write_bytes(b"half")
    run(mixed, store, retry_failed=True)
    assert row(check(store), "a/000.png")["status"] == "ok"


def test_a_store_that_is_removed_in_the_middle_is_encoded_anew(
    run: Run, mixed: Source, content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = no_image(mixed.root / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    (mixed.root / "a" / "000.png").write_bytes(whole)
    with pytest.raises(Killed), killed_at(13, monkeypatch):
        run(mixed, store, retry_failed=True)
    with pytest.raises(StoreIncompleteError):
        open_store(store)
    shutil.rmtree(store)
    for plan in (tmp_path / "store.job").glob("*/plan.*"):
        plan.unlink()
    run(mixed, store)
    (store / "manifest.json").unlink()  # as if this one had been stopped too
    run(mixed, store)
    run(mixed, tmp_path / "fresh")
    assert content(store) == content(tmp_path / "fresh")


def test_a_manifest_that_is_removed_by_hand_leaves_no_added_shard_behind(
    run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    whole = no_image(mixed.root / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    (mixed.root / "a" / "000.png").write_bytes(whole)
    run(mixed, store, retry_failed=True)
    (store / "manifest.json").unlink()
    run(mixed, store)
    check(store)
    assert content(store) == before


def test_what_was_altered_after_it_was_laid_ready_is_not_installed(
    run: Run, mixed: Source, content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = no_image(mixed.root / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    (mixed.root / "a" / "000.png").write_bytes(whole)
    install = amend.install

    def alter(place: Folder, ready: Folder) -> None:
        path = ready.path / "samples.parquet"
        path.write_bytes(bytes(len(path.read_bytes())))
        install(place, ready)

    monkeypatch.setattr("latentset.pipeline.encoding.retry.install", alter)
    with pytest.raises(StoreCorruptError, match=r"samples\.parquet was altered or removed\."):
        run(mixed, store, retry_failed=True)
    assert content(store) == before


def test_a_damaged_hdf5_file_is_not_copied(run: Run, mixed: Source, tmp_path: Path) -> None:
    whole = no_image(mixed.root / "a" / "000.png")
    store = tmp_path / "store.h5"
    run(mixed, store)
    (mixed.root / "a" / "000.png").write_bytes(whole)
    with h5py.File(store) as file:
        offset = USER_BLOCK + file["y_hat"].id.get_chunk_info(5).byte_offset
    damaged = bytearray(store.read_bytes())
    damaged[offset + 10] ^= 1
    store.write_bytes(damaged)
    with pytest.raises(StoreCorruptError, match="its damage would be copied"):
        run(mixed, store, retry_failed=True)
    assert store.read_bytes() == damaged


def test_a_store_of_an_earlier_format_is_left_alone(
    run: Run, mixed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_image(mixed.root / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    monkeypatch.setattr(retry, "format_version_of", lambda arrays: "2.0")
    with pytest.raises(JobError, match=r"is of format 1\.0.*latentset convert STORE NEW"):
        run(mixed, store, retry_failed=True)


def test_after_kill_9_the_same_command_goes_on(
    run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    paths = mixed.samples["path"].to_pylist()[:24]
    whole = {path: no_image(mixed.root / path) for path in paths}
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    shutil.copytree(store, tmp_path / "undisturbed")
    for path, photograph in whole.items():
        (mixed.root / path).write_bytes(photograph)
    command = [sys.executable, str(Path(__file__).with_name("client.py")), "encode"]
    command += [str(mixed.root), str(store), "--codec", "standin", "--workers", "1"]
    command += ["--retry-failed"]
    environment = {**os.environ, "LATENTSET_STANDIN_GATE": "closed"}
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        end = time.monotonic() + TIMEOUT_S
        try:
            while len(list(tmp_path.glob("store.job/*/retry/shards/*.json"))) < 2:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert content(store) == before  # complete, and as it was
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert "were there already, from an earlier run" in done.stderr
    assert "24 images: 24 have latents now, 0 failed" in " ".join(done.stdout.split())
    run(mixed, tmp_path / "undisturbed", retry_failed=True)
    assert content(store) == content(tmp_path / "undisturbed")
    check(store)
