"""A retry that ends in the middle: the store is as it was, or as it is to be."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import pytest

from latentset.datasets.errors import (
    JobError,
    StoreCorruptError,
    StoreIncompleteError,
)
from latentset.datasets.sources import Source
from latentset.datasets.storage.location import Folder
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.hdf5.object_headers import USER_BLOCK
from latentset.datasets.store.header import Header
from latentset.pipeline.encode import retry
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers.commands import TIMEOUT_S, client, wait_for
from tests.makers.spoiling import check, cut_off, no_image

Run = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]
Row = Callable[[Store, str], dict[str, Any]]


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

    counting, merge = False, retry.merge_samples

    def begin(*arguments: Any) -> Any:
        nonlocal counting
        counting = True
        return merge(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("latentset.pipeline.encode.retry.merge_samples", begin)
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
    whole = no_image(mixed.folder / "a" / "000.png")
    cut_off(mixed.folder / "b" / "001.png")
    begun, store = tmp_path / "begun", tmp_path / "store"
    run(mixed, begun)
    (mixed.folder / "a" / "000.png").write_bytes(whole)
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
    ("step", "seen"),
    [
        ((retry, "unpack_hdf5"), "truncated"),
        ((retry, "install"), "truncated"),
        ((retry, "pack_hdf5"), "truncated"),
        ((retry, "_remove"), "ok"),
    ],
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
    whole = cut_off(mixed.folder / "a" / "000.png")
    no_image(mixed.folder / "b" / "001.png")
    store = tmp_path / "store.h5"
    run(mixed, store)
    (mixed.folder / "a" / "000.png").write_bytes(whole)

    def kill(*arguments: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*step, kill)
        with pytest.raises(Killed):
            run(mixed, store, retry_failed=True)
    assert row(open_store(store), "a/000.png")["status"] == seen
    run(mixed, store, retry_failed=True)
    assert row(check(store), "a/000.png")["status"] == "ok"


def test_a_store_that_is_removed_in_the_middle_is_encoded_anew(
    run: Run, mixed: Source, content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = no_image(mixed.folder / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    (mixed.folder / "a" / "000.png").write_bytes(whole)
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
    whole = no_image(mixed.folder / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    (mixed.folder / "a" / "000.png").write_bytes(whole)
    run(mixed, store, retry_failed=True)
    (store / "manifest.json").unlink()
    run(mixed, store)
    check(store)
    assert content(store) == before


def test_what_was_altered_after_it_was_staged_is_not_installed(
    run: Run, mixed: Source, content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = no_image(mixed.folder / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    (mixed.folder / "a" / "000.png").write_bytes(whole)
    install = retry.install

    def alter(location: Folder, staged: Folder) -> None:
        path = staged.path / "samples.parquet"
        path.write_bytes(bytes(len(path.read_bytes())))
        install(location, staged)

    monkeypatch.setattr("latentset.pipeline.encode.retry.install", alter)
    with pytest.raises(StoreCorruptError, match=r"samples\.parquet was altered or removed\."):
        run(mixed, store, retry_failed=True)
    assert content(store) == before


@pytest.mark.parametrize("checksums_fit", [False, True])
def test_a_damaged_hdf5_file_is_not_copied(
    checksums_fit: bool, run: Run, mixed: Source, tmp_path: Path
) -> None:
    whole = no_image(mixed.folder / "a" / "000.png")
    store = tmp_path / "store.h5"
    run(mixed, store)
    (mixed.folder / "a" / "000.png").write_bytes(whole)
    if checksums_fit:
        with h5py.File(store, "r+") as file:
            file["y_hat"][3, 1] += 1  # HDF5 writes the chunk's checksum anew
    else:
        with h5py.File(store) as file:
            offset = USER_BLOCK + file["y_hat"].id.get_chunk_info(5).byte_offset
        altered = bytearray(store.read_bytes())
        altered[offset + 10] ^= 1
        store.write_bytes(altered)
    damaged = store.read_bytes()
    with pytest.raises(StoreCorruptError, match="is damaged: "):
        run(mixed, store, retry_failed=True)
    assert store.read_bytes() == damaged


def test_a_store_of_an_earlier_format_is_left_alone(
    run: Run, mixed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_image(mixed.folder / "a" / "000.png")
    store = tmp_path / "store"
    run(mixed, store)
    monkeypatch.setattr(Header, "lowest_version", "2.0")
    with pytest.raises(JobError, match=r"is of format 1\.0.*latentset convert STORE NEW"):
        run(mixed, store, retry_failed=True)


def test_after_kill_9_the_same_command_goes_on(
    run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    paths = mixed.samples["path"].to_pylist()[:24]
    whole = {path: no_image(mixed.folder / path) for path in paths}
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    shutil.copytree(store, tmp_path / "undisturbed")
    for path, image in whole.items():
        (mixed.folder / path).write_bytes(image)
    command = ["encode", mixed.folder, store, "--codec", "standin", "--workers", "1"]
    command += ["--retry-failed"]
    with client(*command, gate=True) as process:
        retried = store.with_name("store.job")
        wait_for(lambda: len(list(retried.glob("*/retry/shards/*.json"))) >= 2, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert content(store) == before  # complete, and as it was
    with client(*command) as process:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    assert "were encoded by an earlier run" in errors
    assert "24 images: 24 have latents now, 0 failed" in " ".join(output.split())
    run(mixed, tmp_path / "undisturbed", retry_failed=True)
    assert content(store) == content(tmp_path / "undisturbed")
    check(store)
