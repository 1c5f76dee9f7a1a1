"""A job that was interrupted goes on where it stopped, and writes the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.config
import pytest
from PIL import Image

from latentset.datasets.errors import JobError
from latentset.datasets.sources import Source, open_source
from latentset.datasets.storage.location import Folder
from latentset.pipeline.jobs.plan import Plan
from latentset.pipeline.jobs.shard import read_record
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers import PYTHONPATH
from tests.makers.commands import TIMEOUT_S, client, records_of, wait_for

Run = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]

psutil: Any = pytest.importorskip("psutil")  # it ships no types


def job_of(store: Path) -> Path:
    """The only job folder of a store."""
    (job,) = store.with_name(f"{store.name}.job").glob("[0-9a-f]*")  # beside "lock"
    return job


def group_of(leader: int) -> list[str]:
    """Names of the processes of a group that still run."""
    found = []
    for process in psutil.process_iter(["pid", "status", "cmdline"]):
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def test_after_kill_9_the_same_command_finishes_the_same_store(
    run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    command = ["encode", str(mixed.folder), str(store), "--codec", "standin", "--workers", "2"]
    with client(*command, gate=True) as process:
        wait_for(lambda: len(records_of(store)) >= 3, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (store / "manifest.json").exists()
    (store / ".zarr.json.partial-99").write_bytes(b"half")  # as a process killed while writing
    with client(*command) as process:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    assert "were encoded by an earlier run" in errors
    run(mixed, tmp_path / "undisturbed")
    assert content(store) == content(tmp_path / "undisturbed")
    assert "40: 40 with latents, 0 failed" in output


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(
    run: Run, mixed: Source, tmp_path: Path, ending: signal.Signals
) -> None:
    store = tmp_path / "store"
    command = ["encode", str(mixed.folder), str(store), "--codec", "standin", "--workers", "2"]
    with client(*command, gate=True) as process:
        wait_for(lambda: len(records_of(store)) >= 2, process)
        os.killpg(process.pid, ending)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert "run the same command again to resume" in errors
    assert "Traceback" not in errors
    end = time.monotonic() + TIMEOUT_S
    while group_of(process.pid):
        assert time.monotonic() < end, group_of(process.pid)
        time.sleep(0.1)
    result = run(mixed, store)
    assert result.reused >= 2
    assert result.reused + result.encoded == 40


@pytest.mark.parametrize(
    ("spoil", "shard"),
    [
        (lambda store, job: (store / "y_hat/c/2/0").unlink(), 2),
        (lambda store, job: (store / "z_hat/c/1/0").write_bytes(b""), 1),
        (lambda store, job: flip(store / "scale_index/c/0/0"), 0),
        (lambda store, job: (job / "shards/000003.json").unlink(), 3),
        (lambda store, job: tear(job / "shards/000001.json"), 1),
        (lambda store, job: (job / "shards/000002.json").write_bytes(b""), 2),
        (
            lambda store, job: (store / "zarr.json").write_bytes(
                (store / "zarr.json").read_bytes()
            ),
            None,
        ),
    ],
)
def test_what_is_missing_torn_or_altered_is_done_again_and_nothing_else(
    run: Run,
    mixed: Source,
    content: Content,
    tmp_path: Path,
    spoil: Callable[[Path, Path], object],
    shard: int | None,
) -> None:
    store = tmp_path / "store"
    samples = run(mixed, store).store.samples["shard"].to_pylist()
    before = content(store)
    (store / "manifest.json").unlink()
    spoil(store, job_of(store))
    again = run(mixed, store)
    assert again.encoded == sum(k == shard for k in samples)
    assert again.reused == 40 - again.encoded
    assert content(store) == before


def flip(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(bytes(whole))


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("name", ["plan.json", "plan.parquet"])
@pytest.mark.parametrize("spoil", [Path.unlink, tear])
def test_a_lost_plan_is_made_again(
    run: Run,
    mixed: Source,
    content: Content,
    tmp_path: Path,
    name: str,
    spoil: Callable[[Path], None],
) -> None:
    store = tmp_path / "store"
    run(mixed, store)
    before = content(store)
    (store / "manifest.json").unlink()
    spoil(job_of(store) / name)
    assert run(mixed, store).reused == 40  # planned to the same bytes, so the records hold
    assert content(store) == before


def test_a_record_of_another_plan_is_not_believed(run: Run, mixed: Source, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(mixed, store)
    job = job_of(store)
    plan = Plan(Folder(job))
    text = (job / "shards/000001.json").read_text()
    assert read_record(plan, 1) is not None
    (job / "shards/000002.json").write_text(text)
    assert read_record(plan, 2) is None  # it is shard 1's
    plan.table_sha256 = "0" * 64
    assert read_record(plan, 1) is None
    plan = Plan(Folder(job))
    plan.fingerprint = "0" * 64
    assert read_record(plan, 1) is None


def test_an_image_that_vanishes_or_changes_gets_a_status(
    run: Run, mixed: Source, row: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    run(mixed, store)
    for path in records_of(store):
        path.unlink()
    (store / "manifest.json").unlink()
    (mixed.folder / "a" / "000.png").unlink()
    (mixed.folder / "a" / "002.png").write_bytes((mixed.folder / "b" / "001.png").read_bytes())
    result = run(mixed, store)
    assert row(result.store, "a/000.png")["status"] == "missing"
    changed = row(result.store, "a/002.png")
    assert changed["status"] == "changed"
    assert "bytes when planned" in changed["reason"]
    assert result.store.manifest is not None
    assert result.store.manifest.samples.failed == 2


def test_a_worker_that_dies_again_and_again_ends_in_a_clear_error(
    run: Run, uniform: Source, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64), "white").save(uniform.folder / "b" / "white.png")
    source = open_source(uniform.folder)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        pytest.raises(
            JobError, match=r"workers died .*: shard \d+: run the same command again with a smal"
        ),
    ):
        run(source, tmp_path / "store", codec="standin:kill", scheduler=None, workers=1)
    (source.folder / "b" / "white.png").unlink()


def test_a_running_scheduler_with_workers_of_two_threads(
    run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    dask = [sys.executable, "-m", "dask"]
    local = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    scratch = ["--local-directory", str(tmp_path)]
    with (
        Path(os.devnull).open("w") as nothing,
        subprocess.Popen(
            [*dask, "scheduler", "--port", "0", *local, "--scheduler-file", str(file)],
            stderr=nothing,
            env=environment,
        ) as scheduler,
        subprocess.Popen(
            [*dask, "worker", *local, "--nthreads", "2", "--scheduler-file", str(file), *scratch],
            stderr=nothing,
            env=environment,
        ) as worker,
    ):
        try:
            end = time.monotonic() + TIMEOUT_S
            while not file.exists() or not file.read_text().endswith("}"):
                assert time.monotonic() < end
                time.sleep(0.05)
            address = json.loads(file.read_text())["address"]
            run(mixed, tmp_path / "remote", scheduler=address)
        finally:
            worker.terminate()
            scheduler.terminate()
    run(mixed, tmp_path / "near")
    assert content(tmp_path / "remote") == content(tmp_path / "near")
