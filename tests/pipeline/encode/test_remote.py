"""A job whose store, plan and records lie in object storage."""

import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import StoreError, StoreUnreachableError
from latentset.datasets.sources import Source, open_source
from latentset.datasets.storage.location import Bucket, open_location
from latentset.datasets.store import open_store
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers import CLIENT

Run = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]

TIMEOUT_S = 300


def objects_of(url: str) -> dict[str, bytes]:
    location = open_location(url)
    return {path: location.read(path) for path in location.sizes() or {}}


def records_of(url: str) -> list[str]:
    return [path for path in open_location(url + ".job").sizes() or {} if "/shards/" in path]


def test_the_store_is_the_same_in_object_storage(
    run: Run, mixed: Source, content: Content, s3: str, tmp_path: Path
) -> None:
    result = run(mixed, f"{s3}/store.zarr")
    run(mixed, tmp_path / "near")
    assert objects_of(f"{s3}/store.zarr") == content(tmp_path / "near")
    assert str(result.store.location) == f"{s3}/store.zarr"
    assert result.store.read_sample(7)["y_hat"].any()
    again = run(mixed, f"{s3}/store.zarr")
    assert again.was_complete


def test_a_job_in_object_storage_goes_on(
    run: Run, mixed: Source, content: Content, s3: str, tmp_path: Path
) -> None:
    url = f"{s3}/store.zarr"
    run(mixed, url)
    open_location(url).remove("manifest.json")
    record = records_of(url)[0]
    open_location(url + ".job").remove(record)
    open_location(url).write("y_hat/c/3/0", b"torn")
    again = run(mixed, url)
    assert 0 < again.encoded < 40
    assert again.reused == 40 - again.encoded
    run(mixed, tmp_path / "near")
    assert objects_of(url) == content(tmp_path / "near")


def test_after_kill_9_the_same_command_finishes_the_same_store(
    run: Run, mixed: Source, content: Content, s3: str, tmp_path: Path
) -> None:
    url = f"{s3}/store.zarr"
    command = [sys.executable, str(CLIENT), "encode", str(mixed.root), url]
    command += ["--codec", "standin", "--workers", "2"]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "LATENTSET_STANDIN_GATE": "closed"},
    ) as process:
        end = time.monotonic() + TIMEOUT_S
        while len(records_of(url)) < 3:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    assert open_location(url).size("manifest.json") is None
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "were encoded by an earlier run" in done.stderr
    run(mixed, tmp_path / "near")
    assert objects_of(url) == content(tmp_path / "near")


def test_a_web_server_is_refused_as_a_target(
    run: Run, mixed: Source, serve: Any, tmp_path: Path
) -> None:
    (tmp_path / "www").mkdir()
    with pytest.raises(StoreError, match="a store cannot be written there"):
        run(mixed, f"{serve(tmp_path / 'www')}/store.zarr")


def test_a_bucket_that_is_not_there_is_named(run: Run, mixed: Source, s3: str) -> None:
    with pytest.raises(StoreError, match="s3://nowhere"):
        run(mixed, "s3://nowhere/store.zarr")


def test_an_unfinished_store_is_said_to_be(run: Run, mixed: Source, s3: str) -> None:
    run(mixed, f"{s3}/store.zarr")
    open_location(f"{s3}/store.zarr").remove("manifest.json")
    with pytest.raises(StoreError, match="run the same latentset encode again"):
        open_store(f"{s3}/store.zarr")


def test_images_in_object_storage_give_the_same_store(
    run: Run, mixed: Source, content: Content, s3: str, tmp_path: Path
) -> None:
    bucket = open_location(f"{s3}/mixed")
    for path in mixed.samples["path"].to_pylist():
        if path != "b/003.png":
            bucket.write(path, (mixed.folder / path).read_bytes())
    bucket.write("b/003.png", b"<html>no image</html>")
    (mixed.folder / "b/003.png").write_bytes(b"<html>no image</html>")
    far = open_source(f"{s3}/mixed")
    run(far, tmp_path / "far")
    run(mixed, tmp_path / "near")
    assert content(tmp_path / "far") == content(tmp_path / "near")
    bucket.write("b/003.png", (mixed.folder / "a/000.png").read_bytes())
    result = run(far, tmp_path / "far", retry_failed=True)
    assert result.retried is not None
    assert result.retried.repaired == 1


def test_tar_files_in_object_storage_give_the_same_store(
    run: Run, mixed: Source, content: Content, s3: str, tmp_path: Path
) -> None:
    def pack() -> None:
        with tarfile.open(tmp_path / "packed/0.tar", "w") as tar:
            tar.add(mixed.folder, "")
        open_location(f"{s3}/packed").write("0.tar", (tmp_path / "packed/0.tar").read_bytes())

    (tmp_path / "packed").mkdir()
    sound = (mixed.folder / "b/003.png").read_bytes()
    (mixed.folder / "b/003.png").write_bytes(b"<html>no image</html>")
    pack()
    run(open_source(tmp_path / "packed"), tmp_path / "near")
    far = run(open_source(f"{s3}/packed"), tmp_path / "far").store
    assert content(tmp_path / "far") == content(tmp_path / "near")
    assert far.samples["status"].to_pylist().count("ok") == 39
    (mixed.folder / "b/003.png").write_bytes(sound)
    pack()
    result = run(open_source(f"{s3}/packed"), tmp_path / "far", retry_failed=True)
    assert result.retried is not None
    assert result.retried.repaired == 1


def test_a_service_that_fails_stops_the_job_and_it_resumes(
    run: Run,
    mixed: Source,
    content: Content,
    s3: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = open_location(f"{s3}/mixed")
    for path in mixed.samples["path"].to_pylist():
        bucket.write(path, (mixed.folder / path).read_bytes())
    read, reads = Bucket.read, 0

    def fail_later(self: Bucket, path: str, *limit: int) -> bytes:
        nonlocal reads
        reads += path.endswith(".png")
        if reads > 9:
            raise OSError("the line is cut")
        return read(self, path, *limit)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "read", fail_later)
        with pytest.raises(StoreUnreachableError, match="the line is cut"):
            run(open_source(f"{s3}/mixed"), tmp_path / "far")
    run(open_source(f"{s3}/mixed"), tmp_path / "far")
    run(mixed, tmp_path / "near")
    assert content(tmp_path / "far") == content(tmp_path / "near")
