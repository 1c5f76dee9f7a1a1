"""Workers that a queueing system starts: Slurm, PBS, SGE, LSF, by way of dask-jobqueue.

Queue, account, cores, memory and walltime of a job come from dask-jobqueue's own configuration
(docs/cluster.md). What is decided here is what encoding wants: one thread a worker, as many jobs as
there is work for, and workers that leave before their walltime ends.
"""

import getpass
import math
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType
from typing import Any

import dask.config
import distributed
from distributed.deploy.spec import ProcessInterface

from latentset.datasets.errors import JobError, MissingEnvironmentError

IDLE_S = 60
"""Seconds for which workers without work are kept: planning ends before encoding starts, and a
position in the queue that was given back is not had again at once."""

ADAPT_EVERY_S = 2
"""Seconds between looks at how many workers are wanted."""

CLOSE_S = 20
"""Seconds that jobs may take to be cancelled."""

LOST_S = 10
"""Seconds after which a job whose workers have left is replaced by a new one."""

FRUITLESS = 3
"""How often all jobs may end without a result in between."""


@dataclass(frozen=True)
class QueueKind:
    """A queueing system."""

    cluster: str
    """dask-jobqueue's class for it."""
    listing: str
    """Command that shows jobs, up to their numbers."""
    separator: str
    """Between the numbers."""
    walltime: Mapping[int, tuple[int, ...]]
    """Seconds of each part of a walltime written with colons, by the number of parts."""


_CLOCK = MappingProxyType({1: (1,), 2: (60, 1), 3: (3600, 60, 1)})

QUEUES: Mapping[str, QueueKind] = MappingProxyType(
    {
        # sbatch(1), --time: minutes, M:S, H:M:S; with days below.
        "slurm": QueueKind(
            "SLURMCluster", "squeue --jobs ", ",", {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}
        ),
        "pbs": QueueKind("PBSCluster", "qstat ", " ", _CLOCK),
        "sge": QueueKind("SGECluster", "qstat -j ", ",", _CLOCK),
        # bsub(1), -W: minutes, H:M.
        "lsf": QueueKind("LSFCluster", "bjobs ", " ", {1: (60,), 2: (3600, 60)}),
    }
)
"""The queueing systems by the names that ``--cluster`` has for them."""

_SLURM_DAYS = MappingProxyType({1: (3600,), 2: (3600, 60), 3: (3600, 60, 1)})


def walltime_seconds(kind: str, walltime: object) -> float:
    """Read a walltime by the rules of a queueing system; infinite if it has no limit."""
    text = str(walltime).strip()
    if text.lower() in {"unlimited", "infinite"}:
        return math.inf
    days, dash, rest = text.rpartition("-") if kind == "slurm" else ("", "", text)
    parts = rest.split(":")
    units = (_SLURM_DAYS if dash else QUEUES[kind].walltime).get(len(parts))
    if units is None or not all(part.isdecimal() for part in (*parts, days or "0")):
        raise _misconfigured(kind, "walltime", f"expected a time as {kind} writes it, got {text!r}")
    seconds = sum(unit * int(part) for unit, part in zip(units, parts, strict=True))
    seconds += 86400 * int(days or "0")
    if seconds < 60:
        text = f"expected at least a minute, got {text!r} ({seconds} s)"
        raise _misconfigured(kind, "walltime", text)
    return seconds


def lifetime_of(walltime_s: float) -> tuple[float, float]:
    """Seconds after which a worker leaves of itself, and by how much they vary.

    A worker counts from its own start, the queue from that of the job; and a worker that leaves
    may need half a minute to end. Workers that were started together do not leave together.
    """
    margin = min(180.0, walltime_s / 4)
    stagger = min(300.0, (walltime_s - margin) / 10)
    return walltime_s - margin - stagger, stagger


def where_configured(kind: str, name: str) -> str:
    """The sentence that says where a setting of dask-jobqueue is configured."""
    variable = f"DASK_JOBQUEUE__{kind}__{name}".upper()
    return f"Set it in ~/.config/dask/jobqueue.yaml or in {variable} (docs/cluster.md)"


def _misconfigured(kind: str, name: str, text: str) -> JobError:
    return JobError(f"jobqueue.{kind}.{name}: {text}. {where_configured(kind, name)}")


@dataclass(frozen=True)
class JobShape:
    """What one job of the queue is, as dask-jobqueue is configured."""

    cores: int
    memory: str
    processes: int
    """Workers."""
    walltime: str


def read_shape(kind: str) -> tuple[JobShape, list[str]]:
    """Read what a job is from dask-jobqueue's configuration; JobError if something is wrong.

    With it come the arguments of ``dask worker``.
    """
    found = {
        name: dask.config.get(f"jobqueue.{kind}.{name}", None)
        for name in ("cores", "memory", "walltime", "processes")
    }
    for name, example in (("cores", "16"), ("memory", "32GB"), ("walltime", "'04:00:00'")):
        if found[name] is None:
            text = f"not configured: what a job needs, {example} for instance"
            raise _misconfigured(kind, name, text)
    cores = found["cores"]
    processes = cores if found["processes"] is None else found["processes"]
    if not (isinstance(cores, int) and isinstance(processes, int) and 1 <= processes <= cores):
        text = f"expected cores and 1 to as many processes, got {cores!r} and {processes!r}"
        raise _misconfigured(kind, "cores", text)
    # The queue sees to memory. Dask would only stop giving work to a worker near its limit, for
    # good: a codec's memory is nothing that Dask can spill.
    arguments = ["--memory-limit", "0"]
    walltime_s = walltime_seconds(kind, found["walltime"])
    if math.isfinite(walltime_s):
        lifetime_s, stagger_s = lifetime_of(walltime_s)
        arguments += ["--lifetime", f"{lifetime_s:.0f}s", "--lifetime-stagger", f"{stagger_s:.0f}s"]
    return JobShape(cores, str(found["memory"]), processes, str(found["walltime"])), arguments


@dataclass
class Queue:
    """Jobs that were asked of a queueing system, for messages."""

    kind: str
    shape: JobShape
    maximum: int
    """Workers that are asked for at most."""
    cluster: Any = None
    """dask-jobqueue's cluster."""
    ended: int = 0
    """Jobs all of whose workers have left since the last result."""

    def describe(self) -> str:
        """What is asked for, for a message."""
        shape = self.shape
        return (
            f"asking {self.kind} for up to {self.maximum} workers: jobs of {shape.processes}, each "
            f"with {shape.cores} cores, {shape.memory}, walltime {shape.walltime}"
        )

    def hint(self) -> str:
        """Where to look when no worker comes."""
        queue, user = QUEUES[self.kind], getpass.getuser()
        command = queue.listing.split()[0]
        numbers = [str(job.job_id) for job in list(self.cluster.workers.values()) if job.job_id]
        if not numbers:
            return f"the queue has no job of this run; see: {command} -u {user}"
        folder = dask.config.get(f"jobqueue.{self.kind}.log-directory", None) or "this folder"
        return (
            f"look at the jobs with: {queue.listing}{queue.separator.join(numbers[-10:])} "
            f"(all of {user}'s with: {command} -u {user}). One that is not there has ended; what "
            f"it printed is in {folder}"
        )

    def count_result(self) -> None:
        """There is a result."""
        self.ended = 0

    def check(self) -> None:
        """Raise a JobError if jobs end again and again before they have done any task."""
        if self.ended > FRUITLESS * self.maximum // self.shape.processes:
            raise JobError(
                f"{self.ended} jobs ended and not one task: a walltime of {self.shape.walltime} is "
                "too short for the start of a worker and one shard. Ask for more "
                f"({where_configured(self.kind, 'walltime')}), or make --shard-bytes smaller"
            )


@contextmanager
def start_queue(kind: str, maximum: int) -> Iterator[Queue]:
    """Have a queueing system start ``maximum`` workers at most, more or fewer as there is work.

    The scheduler runs in this process; when it ends, however it ends, the workers leave.
    """
    try:
        import dask_jobqueue
    except ImportError as error:
        raise MissingEnvironmentError(
            f"--cluster {kind} needs dask-jobqueue, which is not installed here ({error}): "
            "pip install '.[encode,cluster]' in its clone"
        ) from error
    cluster_class: Any = getattr(dask_jobqueue, QUEUES[kind].cluster)
    command = cluster_class.job_cls.submit_command
    if shutil.which(command) is None:
        raise JobError(
            f"--cluster {kind} submits jobs with {command}, and there is no {command} on PATH: run "
            "this on a login node of the cluster, or name another queueing system"
        )
    shape, arguments = read_shape(kind)
    jobs = max(1, maximum // shape.processes)  # a job is had whole or not at all
    queue = Queue(kind, shape, jobs * shape.processes)
    options = dask.config.get(f"jobqueue.{kind}.scheduler-options", None) or {}
    extra = dask.config.get(f"jobqueue.{kind}.worker-extra-args", None) or []
    queue.cluster = cluster_class(
        processes=shape.processes,
        python=dask.config.get(f"jobqueue.{kind}.python", None) or shlex.quote(sys.executable),
        worker_extra_args=[*arguments, *extra],
        scheduler_options={"dashboard_address": "127.0.0.1:0", **options},
        security=_configured_security(),
        name="latentset",
        silence_logs=False,  # whoever connects has silenced them
    )
    try:
        _submit_first(queue)
        queue.cluster.adapt(
            Adaptive=_adaptive(queue),
            minimum_jobs=1,
            maximum_jobs=jobs,
            interval=f"{ADAPT_EVERY_S}s",
            wait_count=IDLE_S // ADAPT_EVERY_S,
        )
        yield queue
    finally:
        with suppress(TimeoutError):
            queue.cluster.close(timeout=CLOSE_S)


def _submit_first(queue: Queue) -> None:
    """Submit one job and wait until the queue has taken it: later ones are submitted unseen."""
    cluster = queue.cluster

    async def submit() -> None:
        cluster.worker_spec.update(cluster.new_worker_spec())
        await cluster

    try:
        cluster.sync(submit)
    except (RuntimeError, OSError, ValueError) as error:
        for job in cluster.workers.values():
            cluster.sync(ProcessInterface.close, job)  # else the cluster cannot be closed
        text = " ".join((str(error).rpartition("stderr:")[2].strip() or str(error)).split())
        raise JobError(
            f"{queue.kind} refused the job: {text}. Set queue, account, memory and walltime as "
            f"this cluster wants them. {where_configured(queue.kind, 'queue')}"
        ) from error


def _configured_security() -> Any:
    """Dask's TLS settings, where there are any; dask-jobqueue does not look for them itself."""
    configured = dask.config.get("distributed.comm.tls.scheduler.cert", None)
    if configured or dask.config.get("distributed.comm.require-encryption", None):
        security: Any = distributed.Security
        return security(require_encryption=True)
    return None


def _adaptive(queue: Queue) -> Any:
    """Adaptive scaling that asks for whole jobs, and replaces jobs whose workers have left.

    Dask's own would end and start a part of a job by turns, and dask-jobqueue replaces jobs of a
    single worker only.
    """
    base: Any = distributed.Adaptive  # it ships too few types
    processes = queue.shape.processes

    class WholeJobs(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._present: dict[str, float] = {}

        async def target(self) -> int:
            await self._remove_ended()
            wanted: int = await super().target()
            return -(-wanted // processes) * processes

        async def _remove_ended(self) -> None:
            """Remove jobs that had workers and have had none for ``LOST_S`` seconds."""
            now = monotonic()
            for worker in list(self.cluster.scheduler_info["workers"].values()):
                name = str(worker["name"])
                self._present[name.rpartition("-")[0] if processes > 1 else name] = now
            ended = {name for name, seen in self._present.items() if now - seen > LOST_S}
            for name in ended:
                del self._present[name]
            ended &= set(self.cluster.worker_spec)
            if ended:
                queue.ended += len(ended)
                await self.cluster.scale_down(ended)

    return WholeJobs
