"""Training the runs of a sweep, each in a process of its own.

A run that crashes ends alone. Two sweeps may use one folder of runs: the sweep that trains a run
locks its log file, and the training process inherits the lock, which ends with that process. A
sweep waits for runs that another one trains, and trains those that end without a result.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from rich.console import Console

from latentset.datasets.errors import TrainingError
from latentset.datasets.storage.atomic import try_lock
from latentset.paper.sweep import Job
from latentset.train.run.run_files import RECIPE, RESULT, read_result

PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from latentset.cli.main import main; main()"
)
"""The command line of this installation. A sweep stops it by Ctrl-C, which background jobs of a
script inherit ignored."""

POLL_S = 0.2
"""Between two looks at the processes, seconds."""

STOP_TIMEOUT_S = 60.0
"""For runs to end after Ctrl-C, seconds."""


@dataclass
class Running:
    """A run that is being trained."""

    job: Job
    process: subprocess.Popen[bytes]
    started: float
    """By time.monotonic."""


class Sweep:
    """Trains runs in order, some at a time.

    Args:
        jobs: The runs.
        limit: Runs at a time.
        console: For a line each.
    """

    def __init__(self, jobs: Sequence[Job], limit: int, console: Console) -> None:
        self._jobs = list(jobs)
        self._waiting = list(jobs)
        self._running: list[Running] = []
        self._failed: dict[Job, str] = {}
        self._elsewhere: set[Job] = set()
        self._limit = limit
        self._console = console

    def run(self) -> None:
        """Train what is not finished.

        Raises:
            TrainingError: Some runs failed; all others have ended.
            KeyboardInterrupt: Ctrl-C, or SIGTERM; the runs were stopped and can be resumed.
        """
        with _terminable():
            try:
                while self._waiting or self._running:
                    self._start_ready()
                    self._collect()
                    if self._running or self._waiting:
                        time.sleep(POLL_S)
            except BaseException:  # whatever it was: no process is left running
                self._stop()
                raise
        if self._failed:
            raise TrainingError(
                f"{len(self._failed)} of {len(self._jobs)} runs failed:\n"
                + "\n".join(f"  {job.title}: {why}" for job, why in self._failed.items())
                + "\nThe same command trains them again"
            )

    def _start_ready(self) -> None:
        folders_failed = {job.folder: job for job in self._failed}
        for job in list(self._waiting):
            if job.is_finished():
                self._waiting.remove(job)
                where = "elsewhere" if job in self._elsewhere else "already"
                self._log(job, f"done {where}: {describe_result(job)}")
            elif job.needs in folders_failed:
                self._fail(job, f"not run, because {folders_failed[job.needs].title} failed")
            elif len(self._running) < self._limit and self._is_ready(job):
                self._start(job)

    def _is_ready(self, job: Job) -> bool:
        if job.needs is None:
            return True
        ending = any(running.job.folder == job.needs for running in self._running)
        return not ending and (job.needs / RESULT).is_file()

    def _start(self, job: Job) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            if not try_lock(log):
                if job not in self._elsewhere:
                    self._elsewhere.add(job)
                    self._log(job, "another process trains it: waiting")
                return
            if job.is_finished():  # by the process that had the lock until now
                return
            self._waiting.remove(job)
            self._log(job, "resumes" if (job.folder / RECIPE).exists() else "starts")
            process = subprocess.Popen(
                # -P: a folder `datasets` where the command runs is not ours.
                [sys.executable, "-P", "-c", PROGRAM, *job.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(self._limit),
                start_new_session=True,  # Ctrl-C reaches it through us, once
            )
        self._running.append(Running(job, process, time.monotonic()))

    def _collect(self) -> None:
        for running in list(self._running):
            status = running.process.poll()
            if status is None:
                continue
            self._running.remove(running)
            job = running.job
            if status == 0 and job.is_finished():
                minutes = (time.monotonic() - running.started) / 60
                self._log(job, f"{describe_result(job)} ({minutes:.1f} min)")
            else:
                self._fail(job, f"{_reason(status)}; see {job.log}")

    def _fail(self, job: Job, why: str) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        self._failed[job] = why
        self._log(job, f"FAILED: {why}")

    def _stop(self) -> None:
        """Let runs end by themselves, as after Ctrl-C; a second Ctrl-C ends them at once."""
        if not self._running:
            return
        count = len(self._running)
        self._print(f"stopping {count} runs; the same command resumes them")
        self._signal(signal.SIGINT)
        end = time.monotonic() + STOP_TIMEOUT_S
        try:
            while time.monotonic() < end and any(r.process.poll() is None for r in self._running):
                time.sleep(POLL_S)
        finally:
            self._signal(signal.SIGKILL)
            for running in self._running:
                running.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for running in self._running:
            if running.process.poll() is None:
                running.process.send_signal(number)

    def _log(self, job: Job, what: str) -> None:
        count = len(self._jobs)
        number = f"{self._jobs.index(job) + 1:>{len(str(count))}}"
        self._print(f"[{number}/{count}] {job.title}: {what}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def describe_result(job: Job) -> str:
    """Accuracy of a finished run, such as ``test top-1 77.3 %``."""
    result = read_result(job.folder)
    if result["test"]:
        return f"test top-1 {100 * result['test']['top1']:.1f} %"
    if result["best"]:
        return f"val top-1 {100 * result['best']['val_top1']:.1f} %"
    return "trained"


def _environment(limit: int) -> dict[str, str]:
    """Divide the cores: threads that wait for a busy one slow a small network down a great deal."""
    threads = max(1, len(os.sched_getaffinity(0)) // limit)
    return {"OMP_NUM_THREADS": str(threads)} | os.environ


def _reason(status: int) -> str:
    if status < 0:
        return f"ended by signal {-status} ({signal.Signals(-status).name})"
    return f"ended with status {status}" if status else "ended without a result"


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM, which job schedulers send, as Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
