"""What goes wrong around a job ends in a clear error or a status, and then it can be finished."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentset.datasets.errors import JobError, StoreError
from latentset.datasets.sources import Source, open_source
from latentset.datasets.storage.location import Folder
from latentset.datasets.storage.lock import hold
from latentset.pipeline.jobs import coder
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers import CLIENT
from tests.makers.commands import TIMEOUT_S, client, records_of, wait_for

Run = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]

# --- the target ---

SCRIPT = """
run() {  # name: run the command and say how it ended
    code=0
    "$PYTHON" "$CLIENT" encode "$SOURCE" "$TARGET/store" --codec standin --workers 1 \
        > "$LOGS/$1" 2>&1 || code=$?
    echo "$1 $code"
}
mount -t tmpfs -o "size=$SIZE" none "$TARGET"
"""


@pytest.fixture
def in_own_mounts(mixed: Source, tmp_path: Path) -> Callable[..., dict[str, int]]:
    """Run a shell script that may mount: nothing of it is seen outside, and nothing stays."""
    folders = {name: tmp_path / name.lower() for name in ("TARGET", "LOGS", "OUT")}
    for folder in folders.values():
        folder.mkdir()

    def run_it(script: str, size: str) -> dict[str, int]:
        names = {"SOURCE": mixed.folder, "PYTHON": sys.executable, "CLIENT": CLIENT, **folders}
        environment = {**os.environ, **{key: str(value) for key, value in names.items()}}
        command = ["unshare", "--mount", "sh", "-ec", SCRIPT + script]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={**environment, "SIZE": size},
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return {name: int(code) for name, code in (row.split() for row in done.stdout.splitlines())}

    try:
        run_it("", "1m")
    except (AssertionError, FileNotFoundError):
        pytest.skip("a file system cannot be mounted here (unshare --mount as root)")
    return run_it


def test_a_full_disk_is_an_error_and_with_room_the_job_goes_on(
    in_own_mounts: Any, run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    codes = in_own_mounts(
        """
        run planning
        mount -o remount,size=120k "$TARGET"
        run encoding
        ls "$TARGET"/store.job/*/shards > "$LOGS/shards"
        mount -o remount,size=10m "$TARGET"
        run roomy
        cp -r "$TARGET/store" "$OUT/store"
        """,
        "12k",
    )
    assert codes == {"planning": 1, "encoding": 1, "roomy": 0}
    for name in ("planning", "encoding"):
        text = (tmp_path / "logs" / name).read_text()
        assert "No space left on device. Make room" in text
        assert "Traceback" not in text
    assert (tmp_path / "logs" / "shards").read_text()
    assert "were encoded by an earlier run" in (tmp_path / "logs" / "roomy").read_text()
    run(mixed, tmp_path / "undisturbed")
    assert content(tmp_path / "out" / "store") == content(tmp_path / "undisturbed")


def test_a_read_only_target_is_an_error_and_a_complete_store_needs_no_writing(
    in_own_mounts: Any, run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    codes = in_own_mounts(
        """
        mount -o remount,ro "$TARGET"
        run from-the-start
        mount -o remount,rw "$TARGET"

        export LATENTSET_STANDIN_GATE="$OUT/gate"
        run in-the-middle > "$LOGS/code" & job=$!
        while [ "$(ls "$TARGET"/store.job/*/shards 2> /dev/null | wc -l)" -lt 2 ]; do
            kill -0 $job
            sleep 0.1
        done
        sleep 0.5  # for what is being written
        mount -o remount,ro "$TARGET"
        touch "$OUT/gate"
        wait $job
        cat "$LOGS/code"
        mount -o remount,rw "$TARGET"

        run writable
        mount -o remount,ro "$TARGET"
        run complete
        cp -r "$TARGET/store" "$OUT/store"
        """,
        "10m",
    )
    assert codes == {"from-the-start": 1, "in-the-middle": 1, "writable": 0, "complete": 0}
    for name in ("from-the-start", "in-the-middle"):
        text = (tmp_path / "logs" / name).read_text()
        assert "Read-only file system. Make room or give permission" in text
        assert "Traceback" not in text
    assert "complete already" in (tmp_path / "logs" / "complete").read_text()
    run(mixed, tmp_path / "undisturbed")
    assert content(tmp_path / "out" / "store") == content(tmp_path / "undisturbed")


# --- other jobs, and people ---


def test_a_second_job_is_refused_while_the_first_one_runs(
    run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    store, gate = tmp_path / "store", tmp_path / "gate"
    command = ["encode", mixed.folder, store, "--codec", "standin", "--workers", "1"]
    with client(*command, LATENTSET_STANDIN_GATE=str(gate)) as process:
        wait_for(lambda: len(records_of(store)) >= 1, process)
        with pytest.raises(JobError, match=f"another job is at work .*process {process.pid} of"):
            run(mixed, store)
        gate.touch()
        assert process.wait(TIMEOUT_S) == 0
    assert run(mixed, store).was_complete
    run(mixed, tmp_path / "undisturbed")
    assert content(store) == content(tmp_path / "undisturbed")


def test_a_job_that_is_still_planning_keeps_others_off(
    run: Run, mixed: Source, tmp_path: Path
) -> None:
    """There is no store yet that would refuse other settings."""
    options: dict[str, Any]
    with hold(Folder(tmp_path / "store.job" / "lock"), lambda text: None):
        for options in ({}, {"sigma_hat": True}):
            with pytest.raises(JobError, match="another job is at work"):
                run(mixed, tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()


@pytest.fixture
def in_the_middle(standin: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have something done once, by the codec, when it has encoded some batches."""

    def do(what: Callable[[], object], after: int = 5) -> None:
        encode, count = standin.StandIn.encode, 0

        def spoil(self: Any, images: Any) -> Any:
            nonlocal count
            count += 1
            if count == after:
                what()
            return encode(self, images)

        monkeypatch.setattr(standin.StandIn, "encode", spoil)

    return do


def test_a_job_whose_folder_is_deleted_stops_and_can_be_begun_again(
    run: Run, mixed: Source, content: Content, in_the_middle: Any, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    in_the_middle(lambda: shutil.rmtree(tmp_path / "store.job", ignore_errors=True))
    with pytest.raises(JobError, match="run the same command again"):
        run(mixed, store)
    assert not (store / "manifest.json").exists()
    run(mixed, store)
    run(mixed, tmp_path / "undisturbed")
    assert content(store) == content(tmp_path / "undisturbed")


def test_a_job_that_was_taken_over_writes_no_more(
    run: Run, mixed: Source, in_the_middle: Any, tmp_path: Path
) -> None:
    claims = tmp_path / "store.job" / "lock"
    seen = []

    def take_over() -> None:
        claim = json.loads((claims / "000001.json").read_text())
        other = {**claim, "token": "other", "host": "elsewhere"}
        (claims / "000002.json").write_text(json.dumps(other))
        seen.extend(records_of(tmp_path / "store"))

    in_the_middle(take_over)
    with pytest.raises(JobError, match=r"another job has taken the store over .*on elsewhere"):
        run(mixed, tmp_path / "store")
    assert not (tmp_path / "store" / "manifest.json").exists()
    # One worker may have been past its look at the lock.
    assert len(records_of(tmp_path / "store")) <= len(seen) + 1


def test_a_file_where_the_jobs_folder_goes_is_named(
    run: Run, mixed: Source, tmp_path: Path
) -> None:
    (tmp_path / "store.job").touch()
    with pytest.raises(StoreError, match=r"store\.job is a file, but .*: rename it"):
        run(mixed, tmp_path / "store")


def test_the_lock_is_free_after_success_and_after_an_error(
    run: Run, mixed: Source, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64), "white").save(mixed.folder / "b" / "white.png")
    source = open_source(mixed.folder)
    for number, codec in enumerate(("standin", "standin:overflow"), 1):
        with suppress(JobError):
            run(source, tmp_path / codec, codec=codec)
        with hold(Folder(tmp_path / f"{codec}.job" / "lock"), lambda text: None) as lease:
            assert lease.number == 2, number


def test_ctrl_c_ends_the_job_though_a_worker_stands_still(
    standin: Any, mixed: Source, tmp_path: Path
) -> None:
    killing = pytest.importorskip("tests.makers.killing")
    store = tmp_path / "store"
    command = ["encode", mixed.folder, store, "--codec", "standin", "--workers", "1"]
    with client(*command, gate=True, LATENTSET_TEST_CLOSE_S="0.01") as process:
        wait_for(lambda: len(records_of(store)) >= 1, process)
        (worker,) = killing.children_of(process.pid)
        os.kill(worker, signal.SIGSTOP)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    assert "run the same command again to resume" in errors


# --- workers ---


@pytest.mark.parametrize(
    "where",
    [
        "latentset.pipeline.encode.encode_task.decode_image",
        "tests.makers.standin.StandIn.encode",
        "latentset.pipeline.jobs.shard.shard_objects",
    ],
)
def test_a_worker_without_memory_is_an_error_that_names_the_shard(
    run: Run, mixed: Source, content: Content, tmp_path: Path, where: str
) -> None:
    def refuse(*arguments: Any, **more: Any) -> None:
        raise MemoryError("Unable to allocate 3.2 GiB")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, refuse)
        with pytest.raises(
            JobError, match=r"shard \d+: .*memory \(Unable .*smaller --batch or few"
        ):
            run(mixed, tmp_path / "store")
    run(mixed, tmp_path / "store")
    run(mixed, tmp_path / "undisturbed")
    assert content(tmp_path / "store") == content(tmp_path / "undisturbed")


def test_memory_that_the_system_refuses_is_such_an_error(
    run: Run, mixed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTSET_STANDIN_MIB", "256")
    with pytest.raises(JobError, match=r"shard \d+: a worker ran out of memory \(Unable to alloc"):
        run(mixed, tmp_path / "store", scheduler=None, workers=1)
    monkeypatch.delenv("LATENTSET_STANDIN_MIB")
    assert run(mixed, tmp_path / "store").store.manifest is not None


def test_a_local_worker_that_cannot_start_is_an_error(
    run: Run, mixed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import distributed

    def die(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(distributed, "LocalCluster", die)
    with pytest.raises(JobError, match=r"died while it was starting.*run the same command again"):
        run(mixed, tmp_path / "store", scheduler=None, workers=1)


@pytest.mark.parametrize(
    ("field", "value"), [("tensorflow", "2.15.0"), ("onednn", False), ("decoder", "Pillow 1")]
)
def test_a_worker_that_differs_stops_the_job_and_without_it_the_job_goes_on(
    run: Run, mixed: Source, content: Content, tmp_path: Path, field: str, value: object
) -> None:
    def differ(engine: Any) -> Any:
        return read_software(engine).model_copy(update={field: value})

    read_software = coder.read_software
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coder, "read_software", differ)  # the client has its own name for it
        with pytest.raises(JobError, match=rf"worker has .*{field}={value!r}.* but the job was"):
            run(mixed, tmp_path / "store")
    run(mixed, tmp_path / "store")
    run(mixed, tmp_path / "undisturbed")
    assert content(tmp_path / "store") == content(tmp_path / "undisturbed")


# --- values ---


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ("standin:nan", r"y_hat: expected integers, got float32"),
        ("standin:half", r"y_hat: expected integers, got float32"),
        ("standin:graph", r"expected y_hat to hold integers"),
        ("standin:bits", r"expected a finite number of bits, got nan"),
    ],
)
@pytest.mark.parametrize("batch", [1, 32])
def test_values_that_are_no_integers_stop_the_job_and_name_the_sample(
    run: Run, tmp_path: Path, standin: Any, codec: str, message: str, batch: int
) -> None:
    standin.write_images(tmp_path / "few", ((64, 64),), 4)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "few" / "a" / "white.png")
    name = r"'[ab]/\w+.png'" if batch > 1 and codec[8:] in ("nan", "half") else "'a/white.png'"
    with pytest.raises(JobError, match=f"sample {name}: {message}"):
        run(open_source(tmp_path / "few"), tmp_path / "store", codec=codec, batch=batch)
