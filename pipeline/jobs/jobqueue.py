"""Workers that a queueing system starts: Slurm, PBS, SGE, LSF, by way of dask-jobqueue.

Queue, account, cores, memory and walltime of a job come from dask-jobqueue's own configuration
(docs/cluster.md). What is decided here is what encoding wants: one thread a worker, as many jobs as
there is work for, and workers that leave before their walltime ends.
"""

import asyncio
import getpass
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import dask.config
import distributed
from distributed.deploy.spec import ProcessInterface

from latentset.datasets.errors import JobError, MissingEnvironmentError
from latentset.pipeline.jobs.jobshape import QUEUES, JobShape, read_shape, where_configured

IDLE_S = 60
"""Seconds for which workers without work are kept: planning ends before encoding begins, and a
place in the queue that was given back is not had again at once."""

ADAPT_EVERY_S = 2
"""Seconds between looks at how many workers are wanted."""

CLOSE_S = 20
"""Seconds that jobs may take to be cancelled."""

LOST_S = 10
"""Seconds after which a job whose workers have left is replaced by a new one."""


FRUITLESS = 3
"""How often all jobs may end without a result in between."""


@dataclass
class Submitted:
    """What was asked of the queue, for messages."""

    kind: str
    """One of ``QUEUES``."""
    shape: JobShape
    """What one job is."""
    maximum: int
    """Workers that are asked for at most."""
    jobs: list[str] = field(default_factory=list)
    """Numbers of the jobs, the last one last."""
    refused: list[str] = field(default_factory=list)
    """What the queue said to jobs that it did not take."""
    ended: int = 0
    """Jobs all of whose workers have left since the last result."""

    def describe(self) -> str:
        """Say what is asked for."""
        shape = self.shape
        return (
            f"asking {self.kind} for up to {self.maximum} workers: jobs of {shape.processes}, each "
            f"with {shape.cores} cores, {shape.memory}, walltime {shape.walltime}"
        )

    def hint(self) -> str:
        """Say where to look when no worker comes."""
        if not self.jobs:
            return f"no job was submitted yet; see: {QUEUES[self.kind].listing.split()[0]}"
        last = self.jobs[-10:]
        queue = QUEUES[self.kind]
        return (
            f"look at the jobs with: {queue.listing}{queue.separator.join(last)} "
            f"(all of {getpass.getuser()}'s with: {queue.listing.split()[0]} -u "
            f"{getpass.getuser()}). One that is not there has ended; what it printed is in "
            f"{dask.config.get(f'jobqueue.{self.kind}.log-directory', None) or 'this folder'}"
        )

    def progress(self) -> None:
        """Take note of a result."""
        self.ended = 0

    def check(self) -> None:
        """Raise an error if the queue takes no job at all, or jobs end before they have done any.

        Raises:
            JobError: With what the queue said, or what to change.
        """
        if self.ended > FRUITLESS * self.maximum // self.shape.processes:
            raise JobError(
                f"{self.ended} jobs ended and not one task: a walltime of {self.shape.walltime} is "
                "too short for the start of a worker and one shard. Ask for more "
                f"({where_configured(self.kind, 'walltime')}), or make --shard-mib smaller"
            )
        if self.refused and not self.jobs:
            text = self.refused[-1]
            text = " ".join((text.rpartition("stderr:")[2].strip() or text).split())
            raise JobError(
                f"{self.kind} refused the job: {text}. Set queue, account, memory and walltime as "
                f"this cluster wants them. {where_configured(self.kind, 'queue')}"
            )


@contextmanager
def queued(kind: str, maximum: int) -> Iterator[tuple[Any, Submitted]]:
    """Have a queueing system start workers, more or fewer as there is work.

    The scheduler runs in this process; when it ends, however it ends, the workers leave.

    Args:
        kind: One of ``QUEUES``.
        maximum: Workers to ask for at most.

    Yields:
        The Dask cluster, which has no worker yet, and what is asked of the queue.

    Raises:
        MissingEnvironmentError: dask-jobqueue is not installed.
        JobError: The queue's commands are not here, or its configuration lacks something.
    """
    try:
        import dask_jobqueue
    except ImportError as error:
        raise MissingEnvironmentError(
            f"--cluster {kind} needs dask-jobqueue, which is not installed here ({error}): "
            "pip install 'latentset[encode,cluster]'"
        ) from error
    base: Any = getattr(dask_jobqueue, QUEUES[kind].cluster)
    command = base.job_cls.submit_command
    if shutil.which(command) is None:
        raise JobError(
            f"--cluster {kind} submits jobs with {command}, and there is no {command} on PATH: run "
            "this on a login node of the cluster, or name another queueing system"
        )
    shape = read_shape(kind)
    # A job is had whole or not at all.
    jobs = max(1, maximum // shape.processes)
    submitted = Submitted(kind, shape, jobs * shape.processes)
    options = dask.config.get(f"jobqueue.{kind}.scheduler-options", None) or {}
    extra = dask.config.get(f"jobqueue.{kind}.worker-extra-args", None) or []
    cluster = _watched(base, submitted)(
        processes=shape.processes,
        python=dask.config.get(f"jobqueue.{kind}.python", None) or shlex.quote(sys.executable),
        worker_extra_args=[*shape.worker_arguments, *extra],
        scheduler_options={"dashboard_address": "127.0.0.1:0", **options},
        security=_configured_security(),
        name="latentset",
        silence_logs=False,  # whoever connects has silenced them
    )
    try:
        cluster.adapt(
            Adaptive=_whole_jobs(shape.processes),
            minimum=shape.processes,
            maximum=submitted.maximum,
            interval=f"{ADAPT_EVERY_S}s",
            wait_count=IDLE_S // ADAPT_EVERY_S,
        )
        yield cluster, submitted
    finally:
        with suppress(TimeoutError):
            cluster.close(timeout=CLOSE_S)


def _configured_security() -> Any:
    """Dask's TLS settings, where there are any; dask-jobqueue does not look for them itself."""
    configured = dask.config.get("distributed.comm.tls.scheduler.cert", None)
    if configured or dask.config.get("distributed.comm.require-encryption", None):
        security: Any = distributed.Security
        return security(require_encryption=True)
    return None


def _whole_jobs(processes: int) -> Any:
    """Adaptive scaling that asks for whole jobs: anything else would end and start one by turns."""

    class WholeJobs(distributed.Adaptive):
        async def safe_target(self) -> int:
            wanted = await super().safe_target()
            return -(-wanted // processes) * processes

    return WholeJobs


def _watched(base: Any, submitted: Submitted) -> Any:
    """Derive from dask-jobqueue's class one that tells what becomes of its jobs.

    It also replaces a job whose workers have all left, which dask-jobqueue does only for jobs of a
    single worker.
    """
    interface: Any = ProcessInterface

    class Job(base.job_cls):  # type: ignore[misc]
        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, OSError, ValueError) as error:
                # Raised here, it would be a trace on the screen, out of everybody's reach.
                submitted.refused.append(str(error))
                await interface.start(self)
            else:
                submitted.jobs.append(self.job_id)

        async def close(self) -> None:
            await super().close()
            await interface.close(self)  # dask-jobqueue leaves it "running"

    class Cluster(base):  # type: ignore[misc]
        job_cls = Job
        arrived: set[str]

        def _update_worker_status(self, op: str, message: Any) -> None:
            if op == "add":
                self.arrived = getattr(self, "arrived", set()) | self._present(message["workers"])
            super()._update_worker_status(op, message)
            if op == "remove":
                asyncio.get_running_loop().call_later(LOST_S, self._forget_ended)

        def _present(self, workers: Mapping[str, Any]) -> set[str]:
            """Names of the jobs of workers."""
            processes = submitted.shape.processes
            names = (str(worker["name"]) for worker in workers.values())
            return {name.rpartition("-")[0] if processes > 1 else name for name in names}

        def _forget_ended(self) -> None:
            for name in self.arrived - self._present(self.scheduler_info["workers"]):
                self.arrived.discard(name)
                if name in self.workers:
                    submitted.ended += 1
                    # Adaptive scaling sees that it is planned but not requested, and submits it.
                    self._futures.add(asyncio.ensure_future(self.workers.pop(name).close()))

    return Cluster
