"""Training the runs of a sweep, each in a process of its own.

A run that crashes ends alone. Two sweeps may share a folder of runs: whoever trains a run holds a
lock (flock) on its log file, and the training process inherits it, so that the lock ends with that
process, however it ends, and nothing stale is ever left behind. A run that somebody else trains is
waited for; if it ends without a result, it is taken up.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO

from rich.console import Console

from latentset.datasets.errors import TrainingError
from latentset.paper.sweep import Job
from latentset.train.run.run_files import RECIPE, RESULT, read_result

PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from latentset.cli.main import main; main()"
)
"""The command line of this very installation. It listens to Ctrl-C, by which a sweep stops it, also
where the sweep does not: a script's background jobs inherit that it is ignored."""

POLL_S = 0.2
"""Between two looks at what runs, seconds."""

PATIENCE_S = 60.0
"""That runs get to end after Ctrl-C, seconds."""


@dataclass
class Running:
    """A run that is being trained."""

    job: Job
    """Which."""
    process: subprocess.Popen[bytes]
    """Its process."""
    began: float
    """When, by time.monotonic."""


class Sweep:
    """Trains runs in order, some at a time.

    Args:
        jobs: The runs.
        limit: How many are trained at a time.
        console: Where a line for each goes.
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
            KeyboardInterrupt: Ctrl-C, or SIGTERM; the runs were stopped and can go on, as after any
                other exception.
        """
        with _terminable():
            try:
                while self._waiting or self._running:
                    self._start_ready()
                    self._collect()
                    if self._running or self._waiting:
                        time.sleep(POLL_S)
            except BaseException:  # whatever it was: nothing trains on unseen
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
                self._say(job, f"done {where}: {describe_result(job)}")
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
        log = _claim(job)
        if log is None:
            if job not in self._elsewhere:
                self._elsewhere.add(job)
                self._say(job, "is being trained by somebody else: waiting for it")
            return
        with log:
            if job.is_finished():  # by the one who held the log until now
                return
            self._waiting.remove(job)
            self._say(job, "going on" if (job.folder / RECIPE).exists() else "begins")
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
                minutes = (time.monotonic() - running.began) / 60
                self._say(job, f"{describe_result(job)} ({minutes:.1f} min)")
            else:
                self._fail(job, f"{_reason(status)}; see {job.log}")

    def _fail(self, job: Job, why: str) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        self._failed[job] = why
        self._say(job, f"FAILED: {why}")

    def _stop(self) -> None:
        """Let what runs end by itself, as after Ctrl-C; a second Ctrl-C ends it at once."""
        if not self._running:
            return
        count = len(self._running)
        self._print(f"stopping {count} runs; the same command goes on with them")
        self._signal(signal.SIGINT)
        end = time.monotonic() + PATIENCE_S
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

    def _say(self, job: Job, what: str) -> None:
        count = len(self._jobs)
        location = f"[{self._jobs.index(job) + 1:>{len(str(count))}}/{count}]"
        self._print(f"{location} {job.title}: {what}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def describe_result(job: Job) -> str:
    """Put the figures of a finished run into a few words.

    Args:
        job: The run.

    Returns:
        Such as ``test top-1 77.3 %``.
    """
    result = read_result(job.folder)
    if result["test"]:
        return f"test top-1 {100 * result['test']['top1']:.1f} %"
    if result["best"]:
        return f"val top-1 {100 * result['best']['val_top1']:.1f} %"
    return "trained"


def _claim(job: Job) -> IO[bytes] | None:
    """Open the log for more, with its lock; None where somebody else has it."""
    log = job.log.open("ab")
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        log.close()
        return None
    return log


def _environment(limit: int) -> dict[str, str]:
    """Share the cores: threads that wait for a busy one slow a small network down a great deal."""
    threads = max(1, len(os.sched_getaffinity(0)) // limit)
    return {"OMP_NUM_THREADS": str(threads)} | os.environ


def _reason(status: int) -> str:
    if status < 0:
        return f"ended by signal {-status} ({signal.Signals(-status).name})"
    return f"ended with status {status}" if status else "ended without a result"


@contextmanager
def _terminable() -> Iterator[None]:
    """Take SIGTERM, which job schedulers send, for Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
