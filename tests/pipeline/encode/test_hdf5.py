"""The job with an HDF5 file as its store: Zarr beside it, converted at the end."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentset.datasets.errors import JobError, SettingsChangedError, StoreError
from latentset.datasets.sources import Source
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store import open_store
from latentset.pipeline.jobs import finish
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers import CLIENT
from tests.makers.commands import TIMEOUT_S, client, records_of, wait_for

Run = Callable[..., JobResult]


def run_out_of_space(
    run: Run,
    source: Source,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str = "finish_store",
    **options: Any,
) -> None:
    """A job that ends when all shards are done and the store is to be finished."""

    def no_space(*arguments: Any, **options: Any) -> None:
        raise StoreError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(finish, step, no_space)
        with pytest.raises(StoreError, match="no space"):
            run(source, store, **options)


def zarr_of(store: Path) -> Path:
    """The Zarr store that an HDF5 store is converted from."""
    (job,) = store.with_name(f"{store.name}.job").glob("[0-9a-f]*")
    return job / "store.zarr"


def test_the_file_holds_what_the_folder_holds(run: Run, mixed: Source, tmp_path: Path) -> None:
    (mixed.folder / "a" / "000.png").write_bytes(b"no image")
    file = run(mixed, tmp_path / "store.h5", sigma_hat=True).store
    folder = run(mixed, tmp_path / "store.zarr", sigma_hat=True).store
    assert (tmp_path / "store.h5").is_file()
    assert file.header == folder.header
    assert file.samples == folder.samples
    assert file.manifest is not None
    assert folder.manifest is not None
    assert file.manifest.samples == folder.manifest.samples
    assert file.manifest.shards == folder.manifest.shards
    for name in file.header.arrays:
        expected = np.asarray(folder.array(name)[:])
        np.testing.assert_array_equal(np.asarray(file.array(name)[:]), expected)
        assert expected.any()


def test_the_bytes_do_not_depend_on_workers_or_batches(
    run: Run, mixed: Source, tmp_path: Path
) -> None:
    run(mixed, tmp_path / "a.h5", batch=1)
    run(mixed, tmp_path / "b.hdf5", batch=32)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.hdf5").read_bytes()


def test_the_format_goes_by_what_is_asked_for_before_the_name(
    run: Run, uniform: Source, tmp_path: Path
) -> None:
    run(uniform, tmp_path / "latents", format="hdf5")
    run(uniform, tmp_path / "folder.h5", format="zarr")
    assert (tmp_path / "latents").is_file()
    assert (tmp_path / "folder.h5" / "zarr.json").is_file()


def test_a_file_that_is_complete_is_left_alone(run: Run, uniform: Source, tmp_path: Path) -> None:
    run(uniform, tmp_path / "store.h5")
    before = (tmp_path / "store.h5").stat().st_mtime_ns
    assert run(uniform, tmp_path / "store.h5").was_complete
    assert (tmp_path / "store.h5").stat().st_mtime_ns == before


def test_after_a_kill_before_the_clean_up_the_zarr_store_is_removed(
    run: Run, uniform: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = tmp_path / "store.h5"

    def kill(*folders: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finish, "flush", kill)
        with pytest.raises(KeyboardInterrupt):
            run(uniform, store)
    assert zarr_of(store).exists()
    assert run(uniform, store).was_complete
    assert not zarr_of(store).exists()


def test_after_kill_9_the_same_command_finishes_the_same_file(
    run: Run, mixed: Source, tmp_path: Path
) -> None:
    store = tmp_path / "store.h5"
    command = ["encode", mixed.folder, store, "--codec", "standin", "--workers", "2"]
    with client(*command, gate=True) as process:
        wait_for(lambda: len(records_of(store)) >= 3, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not store.exists()
    with client(*command) as process:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    assert "were encoded by an earlier run" in errors
    run(mixed, tmp_path / "undisturbed.h5")
    assert store.read_bytes() == (tmp_path / "undisturbed.h5").read_bytes()


def test_a_shard_that_was_altered_is_made_again(
    run: Run, mixed: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(mixed, tmp_path / "undisturbed.h5")
    before = (tmp_path / "undisturbed.h5").read_bytes()
    store = tmp_path / "store.h5"
    run_out_of_space(run, mixed, store, monkeypatch)
    shard = zarr_of(store) / "y_hat" / "c" / "2" / "0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    again = run(mixed, store)
    assert 0 < again.encoded < 40
    assert store.read_bytes() == before
    assert not zarr_of(store).exists()  # it would double the store


def test_after_a_kill_while_it_is_converted_it_is_converted_again(
    run: Run, mixed: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = tmp_path / "store.h5"
    run_out_of_space(run, mixed, store, monkeypatch, "convert")
    assert not store.exists()
    for name in ("store.h5", ".store.h5.partial-0", "store.h5.job/conversion.json"):
        path = zarr_of(store).parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    again = run(mixed, store)
    assert (again.encoded, again.reused) == (0, 40)
    run(mixed, tmp_path / "undisturbed.h5")
    assert store.read_bytes() == (tmp_path / "undisturbed.h5").read_bytes()
    assert {path.name for path in zarr_of(store).parent.glob("*store*")} == set()


@pytest.mark.parametrize("first", ["zarr", "hdf5"])
@pytest.mark.parametrize("complete", [False, True])
def test_another_format_is_another_setting(
    run: Run,
    mixed: Source,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    first: str,
    complete: bool,
) -> None:
    store, second = tmp_path / "store", {"zarr": "hdf5", "hdf5": "zarr"}[first]
    if complete:
        run(mixed, store, format=first)
    else:
        run_out_of_space(run, mixed, store, monkeypatch, format=first)
    with pytest.raises(SettingsChangedError, match=f"container: {first} before, {second} now"):
        run(mixed, store, format=second)
    assert run(mixed, store, format=first).was_complete == complete


def test_a_file_that_was_begun_with_other_settings_is_refused(
    run: Run, mixed: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = tmp_path / "store.h5"
    run_out_of_space(run, mixed, store, monkeypatch)
    with pytest.raises(SettingsChangedError, match="resize: none before, short:32 now"):
        run(mixed, store, resize=ResizeRule.parse("short:32"))


def test_a_file_of_something_else_is_refused(run: Run, uniform: Source, tmp_path: Path) -> None:
    (tmp_path / "thesis.h5").write_text("precious")
    with pytest.raises(StoreError, match="exists and is no store"):
        run(uniform, tmp_path / "thesis.h5")
    assert (tmp_path / "thesis.h5").read_text() == "precious"


def test_object_storage_is_refused(run: Run, uniform: Source) -> None:
    with pytest.raises(JobError, match="HDF5 is written to a file system only"):
        run(uniform, "s3://bucket/store.h5")


def test_two_codecs_on_the_command_line_make_two_stores(mixed: Source, tmp_path: Path) -> None:
    command: list[Any] = [sys.executable, CLIENT, "encode", mixed.folder, tmp_path / "stores"]
    command += ["--codec", "standin", "--codec", "standin:other", "--format", "hdf5"]
    done = subprocess.run(
        [*command, "--workers", "1"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("standin", "standin:other"):
        store = open_store(tmp_path / "stores" / f"{name}.h5")
        assert store.header.codec is not None
        assert store.header.codec.name == name
        assert f"{name}.h5 is complete" in done.stdout
    twice = subprocess.run(
        [*command, "--codec", "standin"], capture_output=True, text=True, check=False
    )
    assert twice.returncode == 2
    assert "expected different names" in " ".join(twice.stderr.split())
