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
from collections.abc import Sequence

from rich.console import Console

from latentset.datasets.errors import TrainingError
from latentset.datasets.storage.atomic import try_lock
from latentset.paper.report.runs import read_run
from latentset.paper.sweep import Job
from latentset.train.run.run_files import RECIPE, RESULT

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


class Sweep:
    """Trains runs in order, ``limit`` at a time, with lines on a console."""

    def __init__(self, jobs: Sequence[Job], limit: int, console: Console) -> None:
        self._jobs = list(jobs)
        self._waiting = list(jobs)
        self._running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}
        """Processes, and when they started (``time.monotonic``)."""
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
        # SIGTERM, which job schedulers send, is treated as Ctrl-C.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            while self._waiting or self._running:
                self._start_ready()
                self._collect()
                if self._running or self._waiting:
                    time.sleep(POLL_S)
        except BaseException:  # whatever it was: no process is left running
            self._stop()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
        if self._failed:
            raise TrainingError(
                f"{len(self._failed)} of {len(self._jobs)} runs failed:\n"
                + "\n".join(f"  {job.title}: {why}" for job, why in self._failed.items())
                + "\nThe same command trains them again"
            )

    def _start_ready(self) -> None:
        failed = {job.folder: job for job in self._failed}
        ending = {job.folder for job in self._running}
        for job in list(self._waiting):
            if job.is_finished():
                self._waiting.remove(job)
                where = "elsewhere" if job in self._elsewhere else "already"
                self._log(job, f"done {where}: {describe_result(job)}")
            elif job.needs in failed:
                self._waiting.remove(job)
                self._fail(job, f"not run, because {failed[job.needs].title} failed")
            elif len(self._running) < self._limit:
                needs = job.needs
                if needs is None or (needs not in ending and (needs / RESULT).is_file()):
                    self._start(job)

    def _start(self, job: Job) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(job.log, flags, 0o666), "ab") as log:
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
        self._running[job] = process, time.monotonic()

    def _collect(self) -> None:
        for job, (process, started) in list(self._running.items()):
            status = process.poll()
            if status is None:
                continue
            del self._running[job]
            if status == 0 and job.is_finished():
                minutes = (time.monotonic() - started) / 60
                self._log(job, f"{describe_result(job)} ({minutes:.1f} min)")
            else:
                why = f"ended with status {status}" if status else "ended without a result"
                if status < 0:
                    why = f"ended by signal {-status} ({signal.Signals(-status).name})"
                self._fail(job, f"{why}; see {job.log}")

    def _fail(self, job: Job, why: str) -> None:
        self._failed[job] = why
        self._log(job, f"FAILED: {why}")

    def _stop(self) -> None:
        """Let runs end by themselves, as after Ctrl-C; a second Ctrl-C ends them at once."""
        processes = [process for process, _ in self._running.values()]
        if not processes:
            return
        self._print(f"stopping {len(processes)} runs; the same command resumes them")
        end = time.monotonic() + STOP_TIMEOUT_S
        try:
            for process in processes:
                process.send_signal(signal.SIGINT)
            while time.monotonic() < end and any(process.poll() is None for process in processes):
                time.sleep(POLL_S)
        finally:
            for process in processes:
                process.kill()  # nothing happens to one that has ended
                process.wait()

    def _log(self, job: Job, what: str) -> None:
        count = len(self._jobs)
        number = f"{self._jobs.index(job) + 1:>{len(str(count))}}"
        self._print(f"[{number}/{count}] {job.title}: {what}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def describe_result(job: Job) -> str:
    """Accuracy of a finished run, such as ``test top-1 77.3 %``."""
    run = read_run(job.folder)
    evaluated = run.result["test"] or run.result["best"]
    return f"{run.split} top-1 {100 * run.top1:.1f} %" if evaluated else "trained"


def _environment(limit: int) -> dict[str, str]:
    """Divide the cores: threads that wait for a busy one slow a small network down a great deal."""
    threads = max(1, len(os.sched_getaffinity(0)) // limit)
    return {"OMP_NUM_THREADS": str(threads)} | os.environ
