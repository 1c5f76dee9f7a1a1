"""What one job of a queueing system is, by dask-jobqueue's configuration: cores, memory, time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import dask.config

from latentset.datasets.errors import JobError


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
            f"{where_configured(kind, 'walltime')}"
        )
    seconds = sum(unit * int(part) for unit, part in zip(units, parts, strict=True))
    seconds += 86400 * int(days or "0")
    if seconds < 60:
        raise JobError(
            f"jobqueue.{kind}.walltime: expected at least a minute, got {text!r} ({seconds} s). "
            f"{where_configured(kind, 'walltime')}"
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


def where_configured(kind: str, name: str) -> str:
    """Say where dask-jobqueue's configuration is set.

    Args:
        kind: One of ``QUEUES``.
        name: Of the setting.

    Returns:
        A sentence.
    """
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
                f"ask for a job ({name}: {example}, for instance). {where_configured(kind, name)}"
            )
    cores = found["cores"]
    processes = cores if found["processes"] is None else found["processes"]
    if not (isinstance(cores, int) and isinstance(processes, int) and 1 <= processes <= cores):
        raise JobError(
            f"jobqueue.{kind}: expected at least one core and no more processes than cores, got "
            f"cores {cores!r} and processes {processes!r}. {where_configured(kind, 'cores')}"
        )
    walltime_s = walltime_seconds(kind, found["walltime"])
    lifetime_s, stagger_s = (
        lifetime_of(walltime_s) if math.isfinite(walltime_s) else (math.inf, 0.0)
    )
    return JobShape(
        cores, str(found["memory"]), processes, str(found["walltime"]), lifetime_s, stagger_s
    )
