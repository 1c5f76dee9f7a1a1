"""Workers that a queueing system starts: Slurm, PBS, SGE, LSF, by way of dask-jobqueue.

Queue, account, cores, memory and walltime of a job come from dask-jobqueue's own configuration
(docs/cluster.md). What is decided here is what encoding wants: one thread a worker, as many jobs as
there is work for, and workers that leave before their walltime ends.
"""

import asyncio
import getpass
import math
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import dask.config
import distributed
from distributed.deploy.spec import ProcessInterface

from latentset.datasets.errors import JobError, MissingEnvironmentError

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


@dataclass(frozen=True)
class Queue:
    """A queueing system."""

    cluster: str
    """dask-jobqueue's class for it."""
    listing: str
    """Command that shows jobs, up to their numbers."""
    separator: str
    """What stands between the numbers."""
    walltime: Mapping[int, tuple[int, ...]]
    """Seconds of each part of a walltime written with colons, by the number of parts."""


_CLOCK = MappingProxyType({1: (1,), 2: (60, 1), 3: (3600, 60, 1)})

QUEUES: Mapping[str, Queue] = MappingProxyType(
    {
        # sbatch(1), --time: minutes, M:S, H:M:S; with days below.
        "slurm": Queue(
            "SLURMCluster", "squeue --jobs ", ",", {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}
        ),
        "pbs": Queue("PBSCluster", "qstat ", " ", _CLOCK),
        "sge": Queue("SGECluster", "qstat -j ", ",", _CLOCK),
        # bsub(1), -W: minutes, H:M.
        "lsf": Queue("LSFCluster", "bjobs ", " ", {1: (60,), 2: (3600, 60)}),
    }
)
"""The queueing systems by the names that ``--cluster`` has for them."""

_SLURM_DAYS = MappingProxyType({1: (3600,), 2: (3600, 60), 3: (3600, 60, 1)})


def walltime_seconds(kind: str, walltime: object) -> float:
    """Read a walltime by the rules of a queueing system.

    Args:
        kind: One of ``QUEUES``.
        walltime: As configured.

    Returns:
        Seconds; infinite if the queue is told that there is no limit.

    Raises:
        JobError: It is not a time, or shorter than a minute.
    """
    text = str(walltime).strip()
    if text.lower() in {"unlimited", "infinite"}:
        return math.inf
    days, dash, rest = text.rpartition("-") if kind == "slurm" else ("", "", text)
    parts = rest.split(":")
    units = (_SLURM_DAYS if dash else QUEUES[kind].walltime).get(len(parts))
    if units is None or not all(part.isdecimal() for part in (*parts, days or "0")):
        raise JobError(
            f"jobqueue.{kind}.walltime: expected a time as {kind} writes it, got {text!r}. "
            f"{_where_configured(kind, 'walltime')}"
        )
    seconds = sum(unit * int(part) for unit, part in zip(units, parts, strict=True))
    seconds += 86400 * int(days or "0")
    if seconds < 60:
        raise JobError(
            f"jobqueue.{kind}.walltime: expected at least a minute, got {text!r} ({seconds} s). "
            f"{_where_configured(kind, 'walltime')}"
        )
    return seconds


def lifetime_of(walltime_s: float) -> tuple[float, float]:
    """Decide when a worker leaves of itself, so that the queue need not kill it.

    A worker counts from its own start, the queue from that of the job; and a worker that leaves
    may need half a minute to end. Workers that were started together do not leave together.

    Args:
        walltime_s: Seconds that the queue gives a job.

    Returns:
        Seconds of a worker's life, and how much it may be longer or shorter.
    """
    margin = min(180.0, walltime_s / 4)
    stagger = min(300.0, (walltime_s - margin) / 10)
    return walltime_s - margin - stagger, stagger


def _where_configured(kind: str, name: str) -> str:
    variable = f"DASK_JOBQUEUE__{kind}__{name}".upper()
    return f"Set it in ~/.config/dask/jobqueue.yaml or in {variable} (docs/cluster.md)"


@dataclass(frozen=True)
class JobShape:
    """What one job of the queue is, from dask-jobqueue's configuration."""

    cores: int
    """Cores."""
    memory: str
    """Memory, as configured."""
    processes: int
    """Workers."""
    walltime: str
    """Time, as the queue writes it."""
    lifetime_s: float
    """Seconds after which a worker leaves; infinite without a walltime's end."""
    stagger_s: float
    """Seconds by which that varies."""

    @property
    def worker_arguments(self) -> list[str]:
        """Arguments of ``dask worker``."""
        # The queue sees to memory. Dask would only stop giving work to a worker near its limit,
        # for good: a codec's memory is nothing that Dask can spill.
        arguments = ["--memory-limit", "0"]
        if math.isfinite(self.lifetime_s):
            arguments += ["--lifetime", f"{self.lifetime_s:.0f}s"]
            arguments += ["--lifetime-stagger", f"{self.stagger_s:.0f}s"]
        return arguments


def read_shape(kind: str) -> JobShape:
    """Read what a job is from dask-jobqueue's configuration.

    Args:
        kind: One of ``QUEUES``.

    Returns:
        The shape.

    Raises:
        JobError: Cores, memory or walltime are not configured, or not what they should be.
    """
    found = {
        name: dask.config.get(f"jobqueue.{kind}.{name}", None)
        for name in ("cores", "memory", "walltime", "processes")
    }
    for name, example in (("cores", "16"), ("memory", "32GB"), ("walltime", "'04:00:00'")):
        if found[name] is None:
            raise JobError(
                f"jobqueue.{kind}.{name} is not configured: --cluster {kind} has to know what to "
                f"ask for a job ({name}: {example}, for instance). {_where_configured(kind, name)}"
            )
    cores = found["cores"]
    processes = cores if found["processes"] is None else found["processes"]
    if not (isinstance(cores, int) and isinstance(processes, int) and 1 <= processes <= cores):
        raise JobError(
            f"jobqueue.{kind}: expected at least one core and no more processes than cores, got "
            f"cores {cores!r} and processes {processes!r}. {_where_configured(kind, 'cores')}"
        )
    walltime_s = walltime_seconds(kind, found["walltime"])
    lifetime_s, stagger_s = (
        lifetime_of(walltime_s) if math.isfinite(walltime_s) else (math.inf, 0.0)
    )
    return JobShape(
        cores, str(found["memory"]), processes, str(found["walltime"]), lifetime_s, stagger_s
    )


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
                f"({_where_configured(self.kind, 'walltime')}), or make --shard-mib smaller"
            )
        if self.refused and not self.jobs:
            text = self.refused[-1]
            text = " ".join((text.rpartition("stderr:")[2].strip() or text).split())
            raise JobError(
                f"{self.kind} refused the job: {text}. Set queue, account, memory and walltime as "
                f"this cluster wants them. {_where_configured(self.kind, 'queue')}"
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
