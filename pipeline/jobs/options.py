"""How a job runs: one value from the command line to the workers."""

from dataclasses import dataclass, field

from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store.formats import Format
from latentset.datasets.store.layout import SHARD_BYTES
from latentset.pipeline.jobs.coder import TENSORFLOW, Engine
from latentset.pipeline.jobs.progress import ProgressView

WAIT_S = 3600.0
"""Seconds without a worker of a scheduler or a queue after which the job stops."""


@dataclass(frozen=True)
class JobOptions:
    """Options of every job; the first three change what is stored."""

    resize: ResizeRule = field(default_factory=ResizeRule)
    """What to do to each image first, or to each decoded image."""
    format: Format | None = None
    """None is HDF5 for names that end like it, else Zarr."""
    shard_bytes: int = SHARD_BYTES
    """Size of a shard of ``y_hat`` or ``pixels`` before compression."""
    batch: int = 32
    """Images that the codec is given at once, at most."""
    scheduler: str | None = None
    """Address of a Dask scheduler; None uses processes of this machine."""
    workers: int | None = None
    """Number of local workers, None is one a core; or of a queue's, at most."""
    queue: str | None = None
    """Queueing system that starts workers: ``slurm``, ``pbs``, ``sge`` or ``lsf``."""
    wait_s: float = WAIT_S
    """Seconds without a single worker of scheduler or queue after which to stop."""
    view: ProgressView = field(default_factory=ProgressView)
    engine: Engine = TENSORFLOW
    """What runs the codec."""


DEFAULTS = JobOptions()
