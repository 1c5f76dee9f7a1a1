"""Workers that a queueing system starts: a stand-in for its commands really runs the jobs."""

import math
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.config
import pytest
from typer.testing import CliRunner

from latentset.cli.main import app
from latentset.datasets.errors import JobError, MissingEnvironmentError
from latentset.datasets.sources import Source
from latentset.pipeline.jobs import cluster, jobqueue
from latentset.pipeline.jobs.jobqueue import JobShape, lifetime_of, walltime_seconds
from latentset.pipeline.jobs.progress import ProgressView
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers import CLIENT, PYTHONPATH

pytest.importorskip("dask_jobqueue")

Run = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]

KINDS = ("slurm", "pbs", "sge", "lsf")
TIMEOUT_S = 60

DEATH_S = 60
"""dask-jobqueue's ``death-timeout``: a worker that is cancelled while it starts, when the scheduler
has just gone, leaves after as long."""


def configured(kind: str, **options: Any) -> Any:
    """Set dask-jobqueue's configuration of one queueing system."""
    hour = "01:00" if kind == "lsf" else "01:00:00"
    options = {"cores": 1, "memory": "1GB", "interface": "lo", "walltime": hour} | options
    return dask.config.set({f"jobqueue.{kind}.{name}": value for name, value in options.items()})


class Queue:
    """What became of the jobs of the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def scripts(self) -> list[str]:
        paths = sorted(self.folder.glob("*.sh"), key=lambda path: int(path.stem))
        return [path.read_text() for path in paths]

    def running(self) -> list[int]:
        """Process groups that are still there."""
        found = []
        for path in self.folder.glob("*.pid"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(int(path.read_text()), 0)
                found.append(int(path.read_text()))
        return found


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    """The stand-in's commands, first on PATH; jobs write into a folder of their own."""
    commands, jobs = tmp_path / "bin", tmp_path / "jobs"
    commands.mkdir()
    jobs.mkdir()
    for name in ("sbatch", "qsub", "bsub", "scancel", "qdel", "bkill"):
        (commands / name).write_text(
            f"#!/bin/sh\nexec {shlex.quote(sys.executable)} "
            f'{shlex.quote(str(commands / f"{name}.py"))} "$@"\n'
        )
        (commands / name).chmod(0o755)
        (commands / f"{name}.py").symlink_to(CLIENT.with_name("queueing.py"))
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LATENTSET_STANDIN_QUEUE", str(jobs))
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with dask.config.set({"jobqueue.lsf.lsf-units": "mb"}):
        yield Queue(jobs)


class Heard(ProgressView):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_of_a_queue_write_the_same_store(
    run: Run, mixed: Source, content: Content, queue: Queue, kind: str, tmp_path: Path
) -> None:
    view = Heard()
    with configured(kind, queue="long"):
        result = run(mixed, tmp_path / "queued", scheduler=None, queue=kind, workers=2, view=view)
    assert result.encoded == 40
    run(mixed, tmp_path / "near")
    assert content(tmp_path / "queued") == content(tmp_path / "near")
    for script in queue.scripts:
        command = script.strip().splitlines()[-1]
        assert command.startswith(f"{sys.executable} -m distributed.cli.dask_worker tcp://127.")
        assert "--nthreads 1 " in command
        assert "--lifetime 3120s --lifetime-stagger 300s" in command  # 3600 - 180 - 300
        assert re.findall(r"--memory-limit (\S+)", command)[-1] == "0"  # the last one counts
        assert re.search(r"(?m)^#\S+ .*long$", script)
    assert 1 <= len(queue.scripts) <= 2
    assert view.lines[0].startswith(f"asking {kind} for up to 2 workers: jobs of 1, each with 1 ")
    end = time.monotonic() + DEATH_S + TIMEOUT_S
    while queue.running():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("processes", [1, 2])
def test_workers_that_reach_their_lifetime_are_replaced(
    run: Run,
    uniform: Source,
    content: Content,
    queue: Queue,
    processes: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(jobqueue, "LOST_S", 0.5)
    # A worker stays in the middle of a task for ever, after its first batches (standin.py).
    monkeypatch.setenv("LATENTSET_STANDIN_GATE", "closed")
    short = ["--lifetime", "6s", "--lifetime-stagger", "1s"]
    with configured("slurm", cores=processes, **{"worker-extra-args": short}):
        result = run(uniform, tmp_path / "queued", scheduler=None, queue="slurm", workers=2)
    monkeypatch.delenv("LATENTSET_STANDIN_GATE")
    assert result.encoded + result.reused == 32
    assert len(queue.scripts) > 2 // processes
    run(uniform, tmp_path / "near")
    assert content(tmp_path / "queued") == content(tmp_path / "near")


def test_a_walltime_too_short_for_a_shard_does_not_go_on_for_ever() -> None:
    shape = JobShape(1, "1GB", 1, "00:01:00")
    queue = jobqueue.Queue("slurm", shape, maximum=2, ended=2 * jobqueue.FRUITLESS)
    queue.check()  # as many as may end without a result
    queue.ended += 1
    with pytest.raises(JobError) as caught:
        queue.check()
    assert "7 jobs ended and not one task: a walltime of 00:01:00 is too" in str(caught.value)
    assert "make --shard-bytes smaller" in str(caught.value)
    queue.count_result()
    queue.check()


def test_jobs_speak_tls_where_dask_is_configured_so(
    run: Run, uniform: Source, queue: Queue, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography")
    import distributed

    library: Any = distributed
    made = library.Security.temporary()
    files = {"ca-file": made.tls_ca_file}
    for role in ("client", "scheduler", "worker"):
        files |= {f"{role}.cert": made.tls_client_cert, f"{role}.key": made.tls_client_key}
    settings = {}
    for name, content in files.items():
        (tmp_path / f"{name}.pem").write_text(content)
        settings[f"distributed.comm.tls.{name}"] = str(tmp_path / f"{name}.pem")
    with configured("slurm"), dask.config.set(settings):
        result = run(uniform, tmp_path / "store", scheduler=None, queue="slurm", workers=1)
    assert result.encoded == 32
    (script,) = queue.scripts
    assert "distributed.cli.dask_worker tls://" in script
    assert f"--tls-key {tmp_path / 'worker.key.pem'}" in script


def refused(run: Run, source: Source, folder: Path, **options: Any) -> str:
    with pytest.raises(JobError) as caught:
        run(
            source,
            folder / "store",
            **{"scheduler": None, "queue": "slurm", "workers": 2, **options},
        )
    return str(caught.value)


def test_without_dask_jobqueue(
    run: Run, uniform: Source, queue: Queue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(MissingEnvironmentError, match=r"pip install '\.\[encode,cluster\]'"):
        run(uniform, tmp_path / "store", scheduler=None, queue="slurm", workers=2)


def test_without_the_queues_commands(
    run: Run, uniform: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no sbatch on PATH" in refused(run, uniform, tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("memory", None, "jobqueue.slurm.memory: not configured"),
        ("cores", None, "jobqueue.slurm.cores: not configured"),
        ("walltime", None, "jobqueue.slurm.walltime: not configured"),
        ("walltime", "a day", "expected a time as slurm writes it, got 'a day'"),
        ("walltime", "00:30", "expected at least a minute, got '00:30' (30 s)"),
        ("processes", 2, "expected cores and 1 to as many processes, got 1 and 2"),
    ],
)
def test_what_is_not_configured_is_named(
    run: Run,
    uniform: Source,
    queue: Queue,
    tmp_path: Path,
    option: str,
    value: object,
    expected: str,
) -> None:
    with configured("slurm", **{option: value}):
        message = refused(run, uniform, tmp_path)
    assert expected in message
    assert "~/.config/dask/jobqueue.yaml" in message
    assert (
        f"DASK_JOBQUEUE__SLURM__{'CORES' if option == 'processes' else option.upper()}" in message
    )


def test_a_job_that_the_queue_refuses(
    run: Run,
    uniform: Source,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("LATENTSET_STANDIN_QUEUE_MODE", "refuse")
    with configured("slurm"):
        message = refused(run, uniform, tmp_path)
    words = "sbatch: error: invalid partition specified: nowhere"
    assert message.startswith(f"slurm refused the job: {words}. Set queue, account, ")
    assert "Traceback" not in capfd.readouterr().err


def test_waiting_for_the_queue_is_neither_silent_nor_endless(
    run: Run, uniform: Source, queue: Queue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LATENTSET_STANDIN_QUEUE_MODE", "hold")
    monkeypatch.setattr(cluster, "REMIND_S", 1.0)
    view = Heard()
    with configured("slurm"):
        message = refused(run, uniform, tmp_path, wait_s=5.0, view=view)
    assert re.match(r"no worker for [5-9] s: look at the jobs with: squeue --jobs 1", message)
    reminders = [line for line in view.lines if line.startswith("no worker for ")]
    assert len(reminders) >= 2
    assert all("squeue" in line for line in reminders)


def test_a_scheduler_without_workers_is_not_waited_for_in_silence(
    run: Run, uniform: Source, tmp_path: Path
) -> None:
    import distributed

    library: Any = distributed
    view = Heard()
    with (
        library.LocalCluster(
            n_workers=0, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0"
        ) as empty,
        pytest.raises(JobError, match=r"Start some: dask worker tcp://.* --nthreads 1"),
    ):
        run(uniform, tmp_path / "store", scheduler=empty.scheduler_address, wait_s=1.0, view=view)
    assert view.lines[0].startswith("waiting for a worker: the scheduler has none")


@pytest.mark.parametrize(
    ("kind", "walltime", "seconds"),
    [
        ("slurm", "30", 1800),
        ("slurm", 90, 5400),
        ("slurm", "30:00", 1800),
        ("slurm", "01:30:00", 5400),
        ("slurm", "2-12", 216000),
        ("slurm", "1-00:30", 88200),
        ("slurm", "1-00:00:01", 86401),
        ("slurm", "UNLIMITED", math.inf),
        ("pbs", "3600", 3600),
        ("pbs", "24:00:00", 86400),
        ("sge", "00:30:00", 1800),
        ("lsf", "00:30", 1800),
        ("lsf", "90", 5400),
    ],
)
def test_a_walltime_is_read_as_the_queue_reads_it(
    kind: str, walltime: object, seconds: float
) -> None:
    assert walltime_seconds(kind, walltime) == seconds


@pytest.mark.parametrize("kind", ["pbs", "sge", "lsf"])
def test_days_are_slurms_alone(kind: str) -> None:
    with pytest.raises(JobError, match="expected a time"):
        walltime_seconds(kind, "1-00:00:00")


@pytest.mark.parametrize("walltime", [60, 600, 1800, 14400, 604800])
def test_every_worker_leaves_before_the_walltime_ends(walltime: int) -> None:
    lifetime, stagger = lifetime_of(walltime)
    assert stagger > 0
    assert lifetime - stagger >= walltime / 2
    assert lifetime + stagger <= walltime - min(180, walltime / 4)


def test_options_that_do_not_go_together(uniform: Source, tmp_path: Path) -> None:
    base = ["encode", str(uniform.root), str(tmp_path / "store"), "--codec", "standin"]
    for extra, expected in (
        (["--cluster", "slurm"], "--cluster needs --workers"),
        (["--cluster", "slurm", "--scheduler", "tcp://127.0.0.1:1"], "--scheduler is for workers"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "--scheduler is for workers"),
    ):
        result = CliRunner().invoke(app, [*base, *extra])
        assert result.exit_code == 2
        assert expected in " ".join(result.output.replace("│", " ").split())


def test_a_scheduler_and_workers_without_the_package_are_named(
    run: Run, mixed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PACKAGE", "a_package_that_is_nowhere")
    with pytest.raises(JobError, match="the scheduler and 2 more cannot import a_package_that"):
        run(mixed, tmp_path / "store")
