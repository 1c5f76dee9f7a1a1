"""Dask workers: processes of this machine, or those of a scheduler that is running already.

All that the job knows of Dask is here.
"""

import logging
import signal
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

import dask.config
import distributed
from dask.system import CPU_COUNT
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from latentset.datasets.errors import JobError

CONNECT_TIMEOUT_S = 30
"""Seconds to wait for a scheduler."""

POLL_S = 5.0
"""Seconds between looks at whether there are workers."""

LOST_S = 180.0
"""Seconds without a single local worker after which the job stops: one that died is started again
in a few seconds, unless it died while it was starting."""

CLOSE_S = 20
"""Seconds that client and local workers may take to end."""

_TIMEOUTS = {
    "distributed.comm.timeouts.connect": "120s",
    "distributed.comm.timeouts.tcp": "120s",
}
"""Of local workers. Dask's own 30 s are short where encoding leaves other processes little time."""

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_dask: Any = distributed  # it says that it is typed, but most of it is not


class Workers:
    """Workers that run functions.

    Args:
        client: A Dask client.
        lost_s: Seconds without a worker after which to stop waiting; None waits for ever.
    """

    def __init__(self, client: Any, lost_s: float | None) -> None:
        self._client = client
        self._lost_s = lost_s
        self._seen = monotonic()

    def count(self) -> int:
        """Number of workers that are there now."""
        return len(self._client.nthreads())

    def map(self, function: Callable[..., Any], *arguments: Any, **shared: Any) -> Generator[Any]:
        """Run a function once for each item, and yield results as they come.

        Use it in ``contextlib.closing``: when it is closed early, what has not begun is cancelled.

        Args:
            function: Can be imported by the workers.
            *arguments: Lists of one length, as for the built-in ``map``.
            **shared: Given to every call.

        Yields:
            Results, in any order.

        Raises:
            JobError: Workers or the scheduler were lost. What a call raises is raised as well.
        """
        futures = self._client.map(function, *arguments, pure=False, **shared)
        try:
            done: SimpleQueue[Any] = SimpleQueue()
            for future in futures:
                future.add_done_callback(done.put)
            for _ in futures:
                yield self._wait(done)
        except KilledWorker as error:
            raise JobError(
                f"workers died again and again at the same task: {error}. Often they ran out of "
                "memory: use fewer --workers or a smaller --batch; the same command goes on"
            ) from error
        except (CommClosedError, CancelledError) as error:
            raise JobError(
                f"the connection to the Dask scheduler was lost: {error!r}. "
                "Finished shards are kept: run the same command again"
            ) from error
        finally:
            with suppress(CommClosedError, CancelledError, RuntimeError):
                self._client.cancel(futures, force=True)

    def _wait(self, done: "SimpleQueue[Any]") -> Any:
        """Wait for the next result, as long as there is hope."""
        self._seen = monotonic()
        while True:
            try:
                future = done.get(timeout=POLL_S)
                break
            except Empty:
                self._check()
        while True:
            try:
                result = future.result(timeout=POLL_S)
                future.release()
                return result
            except TimeoutError:
                # Its worker died with the result, and the task runs again.
                if future.status == "error":
                    raise
                self._check()

    def _check(self) -> None:
        """Raise an error if all workers have been gone for long."""
        if self._lost_s is None or self.count():
            self._seen = monotonic()
        elif monotonic() - self._seen > self._lost_s:
            raise JobError(
                f"workers died and none came back in {self._lost_s:.0f} s. Often they ran out of "
                "memory: use fewer --workers or a smaller --batch; the same command goes on"
            )

    @contextmanager
    def listen(self, topic: str, hear: Callable[[Any], None]) -> Iterator[None]:
        """Hear what workers :func:`tell`, in another thread, for as long as the context lasts.

        Args:
            topic: What to listen to.
            hear: Called with every message.
        """
        self._client.subscribe_topic(topic, lambda event: hear(event[1]))
        try:
            yield
        finally:
            with suppress(CommClosedError, CancelledError, RuntimeError):
                self._client.unsubscribe_topic(topic)


def tell(topic: str, message: Any) -> None:
    """Send a message from a running task to whoever listens.

    Args:
        topic: Who listens.
        message: Something small.
    """
    _dask.get_worker().log_event(topic, message)


@contextmanager
def connect(scheduler: str | None, workers: int | None) -> Iterator[Workers]:
    """Connect to workers.

    Local workers are processes of one thread each, as many as cores: two processes of one thread
    encode faster than one of two. They are started afresh ("spawn"), so that they import TensorFlow
    with the right environment, and end when the client does, however it ends.

    Args:
        scheduler: Address of a running scheduler; None starts local workers.
        workers: Number of local workers; None is one a core.

    Yields:
        The workers.

    Raises:
        JobError: There is no scheduler at that address.
    """
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        if scheduler is None:
            with _local(workers or CPU_COUNT) as client:
                yield Workers(client, LOST_S)
        else:
            with _running(scheduler) as client:
                yield Workers(client, None)
    finally:
        logger.setLevel(level)


@contextmanager
def _running(scheduler: str) -> Iterator[Any]:
    try:
        client = _dask.Client(scheduler, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise JobError(
            f"no Dask scheduler answers at {scheduler}: {error}. Start one (dask scheduler), or "
            "leave --scheduler out to use this machine"
        ) from error
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _local(workers: int) -> Iterator[Any]:
    with dask.config.set(_TIMEOUTS):
        # A key press of Ctrl-C signals every process of the terminal's group. The mask is inherited
        # by the cluster's threads and by the workers that they start: the client alone is
        # interrupted, and takes the workers down in order. The tracker of multiprocessing would
        # undo the mask when it is started, so it is started first.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            cluster = _dask.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",  # None takes port 8787, on every interface
                memory_limit=0,  # results are tiny: there is nothing that Dask could spill
                silence_logs=logging.CRITICAL,
                env=dict.fromkeys(_ONE_THREAD, "1"),
            )
            client = _dask.Client(cluster, set_as_default=False)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            yield client
        finally:
            # Each step within its own time, so that a worker that does not answer holds up nobody.
            with suppress(TimeoutError):
                client.close(timeout=CLOSE_S)
            with suppress(TimeoutError):
                cluster.close(timeout=CLOSE_S)
