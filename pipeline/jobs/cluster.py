"""Dask workers: of this machine, of a scheduler that is running already, or of a queueing system.

All that a job knows of Dask is here and, for queueing systems, in ``jobqueue``.
"""

import atexit
import logging
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from multiprocessing import active_children, resource_tracker
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any

import dask.config
import distributed
from dask.system import CPU_COUNT
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from latentset.datasets.errors import JobError
from latentset.pipeline.jobs.jobqueue import start_queue
from latentset.pipeline.jobs.options import JobOptions

PACKAGE = "latentset"

CONNECT_TIMEOUT_S = 30
"""Seconds to wait for a scheduler."""

POLL_S = 5.0
"""Seconds between looks at whether there are workers."""

REMIND_S = 60.0
"""Seconds without a worker between two messages that say so."""

LOST_S = 180.0
"""Seconds without a single local worker after which the job stops: one that died is started again
in a few seconds, unless it died while it was starting."""

CLOSE_S = 20.0
"""Seconds that client and local workers may take to end."""

TASKS_A_MESSAGE = 200
"""Tasks sent to the scheduler at once: 200 lists of 1,024 paths are 8 MB, and Dask wants less
than 10."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

_LOCAL = {
    # Dask's own 30 s are short where encoding leaves other processes little time.
    "distributed.comm.timeouts.connect": "120s",
    "distributed.comm.timeouts.tcp": "120s",
    # Dask's own also has malloc return memory to the system at once: 6 % of the encoding time.
    "distributed.nanny.pre-spawn-environ": _ONE_THREAD,
    # Watching itself, Dask takes 3 % of two cores.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "10s",
}
"""Dask's configuration for local workers."""

_LOCAL_HINT = (
    "the local workers died. Often they ran out of memory: use fewer --workers or a smaller "
    "--batch, and run the same command again"
)

_MEMORY_HINT = "use fewer --workers or a smaller --batch, and run the same command again"

_dask: Any = distributed  # it says that it is typed, but most of it is not

_LOST = (
    CommClosedError,
    CancelledError,
    getattr(distributed.client, "ClosedClientError", CommClosedError),  # older versions lack it
)
"""How Dask says that the scheduler is gone."""


class Workers:
    """Workers that run functions; a job stops after ``limit_s`` seconds without any.

    Before that ``say`` is called from time to time, with ``hint()`` about what to do. ``check``
    raises an error if waiting is in vain, and ``progress`` is called when there is a result.
    """

    def __init__(
        self,
        client: Any,
        limit_s: float,
        say: Callable[[str], None],
        hint: Callable[[], str],
        check: Callable[[], None] = lambda: None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._limit_s = limit_s
        self._say, self._hint, self._check, self._progress = say, hint, check, progress
        self._since = self._said = monotonic()
        self._seen = False

    def count(self) -> int:
        """Number of workers that there are now."""
        return len(self._client.nthreads())

    def wait(self) -> None:
        """Wait for the first worker; JobError if none comes."""
        with _connection():
            while not self.count():
                self._look()
                sleep(min(1.0, POLL_S))

    def map(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        describe: Callable[[int], str] = lambda _: _MEMORY_HINT,
        **shared: Any,
    ) -> Generator[tuple[int, Any]]:
        """Run a function once for each item; yield its number and the result, in any order.

        Use it in ``contextlib.closing``: when it is closed early, what has not started is
        cancelled. ``shared`` is given to every call. What a call raises is raised, and a JobError
        where workers or the scheduler were lost; it has what ``describe`` gives for the number of
        an item at which workers died.
        """
        futures: list[Any] = []
        numbers: dict[str, int] = {}
        try:
            with _connection():
                futures = self._client.map(
                    function, *arguments, pure=False, batch_size=TASKS_A_MESSAGE, **shared
                )
                numbers = {future.key: k for k, future in enumerate(futures)}
                done: SimpleQueue[Any] = SimpleQueue()
                for future in futures:
                    future.add_done_callback(done.put)
                for _ in futures:
                    key, result = self._next(done)
                    yield numbers[key], result
        except KilledWorker as error:
            what = describe(numbers[str(error.task)])
            raise JobError(
                f"workers died again and again at the same task, often for lack of memory: {what}"
            ) from error
        finally:
            with suppress(Exception):  # the scheduler may be gone, and why is being raised
                self._client.cancel(futures, force=True)

    def _next(self, done: "SimpleQueue[Any]") -> tuple[str, Any]:
        """Wait for the next result and its key, as long as there is hope."""
        self._progress()
        self._since = self._said = monotonic()
        while True:
            try:
                future = done.get(timeout=POLL_S)
                break
            except Empty:
                self._look()
        while True:
            try:
                result = future.result(timeout=POLL_S)
                future.release()
                return future.key, result
            except TimeoutError:
                # Its worker died with the result, and the task runs again.
                if future.status == "error":
                    raise
                self._look()

    def _look(self) -> None:
        """Stop if there has been no worker for too long, and remind of it before."""
        self._check()
        now = monotonic()
        if self.count():
            self._since, self._said, self._seen = now, now, True
            return
        waited = now - self._since
        text = f"no worker for {waited:.0f} s: {self._hint()}"
        if self._seen:
            text += ". Those that were there have ended: look at what they printed"
        if waited > self._limit_s:
            raise JobError(text)
        if now - self._said > REMIND_S:
            self._said = now
            self._say(text)

    @contextmanager
    def subscribed(self, topic: str, receive: Callable[[Any], None]) -> Iterator[None]:
        """Call ``receive`` with what workers :func:`publish`, in another thread."""
        with _connection():
            self._client.subscribe_topic(topic, lambda event: receive(event[1]))
        try:
            yield
        finally:
            with suppress(Exception):
                self._client.unsubscribe_topic(topic)


def publish(topic: str, message: Any) -> None:
    """Send a small message from a running task to the subscribers of a topic."""
    _dask.get_worker().log_event(topic, message)


@contextmanager
def _connection() -> Iterator[None]:
    """Put into words what happens to workers and to the connection with the scheduler."""
    try:
        yield
    except _LOST as error:
        raise JobError(
            f"the connection to the Dask scheduler was lost: {error!r}. "
            "Finished shards are kept: run the same command again"
        ) from error


@contextmanager
def connect(options: JobOptions) -> Iterator[Workers]:
    """Connect to workers, of which at least one is there.

    Local workers are processes of one thread each, as many as cores: two processes of one thread
    encode faster than one of two. They are started afresh ("spawn"), so that they import TensorFlow
    with the right environment, and end when the client does, however it ends.
    """
    say = options.view.say
    with _silenced(), ExitStack() as stack:
        if options.queue is not None:
            with _ctrl_c_for_client_alone():
                queue = stack.enter_context(start_queue(options.queue, options.workers or 1))
                client = stack.enter_context(_closing(_make_client(queue.cluster)))
            say(queue.describe())
            workers = Workers(
                client, options.wait_s, say, queue.hint, queue.check, queue.count_result
            )
            workers.wait()
            _require_package(client)
        elif options.scheduler is not None:
            client = stack.enter_context(_closing(_connect_to(options.scheduler)))
            _require_package(client)
            hint = (
                f"the scheduler has none. Start some: dask worker {options.scheduler} --nthreads 1"
            )
            workers = Workers(client, options.wait_s, say, lambda: hint)
            if not workers.count():
                say(f"waiting for a worker: {hint}")
                workers.wait()
                _require_package(client)
        else:
            count = options.workers or CPU_COUNT
            say(f"starting {count} worker{'s' if count > 1 else ''}")
            client = stack.enter_context(_local(count))
            workers = Workers(client, LOST_S, say, lambda: _LOCAL_HINT)
        yield workers


@contextmanager
def _silenced() -> Iterator[None]:
    """Mute Dask's log, which repeats errors with traces; its configuration sets two levels."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _connect_to(scheduler: str) -> Any:
    try:
        return _make_client(scheduler, timeout=CONNECT_TIMEOUT_S)
    except TypeError as error:
        # This is how Dask says that there are no certificates.
        raise JobError(
            f"{scheduler} speaks TLS, and this client has no certificates for it: {error}. Name "
            "them in Dask's configuration: distributed.comm.tls.ca-file and "
            "distributed.comm.tls.client.cert and .key (docs/cluster.md)"
        ) from error
    except (OSError, ValueError) as error:
        raise JobError(
            f"no Dask scheduler answers at {scheduler}: {error}. Start one (dask scheduler), check "
            "the address (tls://… where it speaks TLS) and its certificates, or leave "
            "--scheduler out to use this machine"
        ) from error


def _require_package(client: Any) -> None:
    """Refuse a scheduler or workers whose environments lack this package; JobError names them.

    They would fail at the first task, and some of them end without a word to the client.
    """
    with _connection():
        found = {"the scheduler": client.run_on_scheduler(find_spec, PACKAGE)}
        for address, spec in client.run(find_spec, PACKAGE, on_error="ignore").items():
            found[f"the worker {address}"] = spec
    lacking = [who for who, spec in found.items() if spec is None]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise JobError(
            f"{lacking[0]}{more} cannot import {PACKAGE}: start it in the client's environment, "
            f"where Python is {sys.executable}"
        )


def _make_client(target: Any, **options: Any) -> Any:
    """A client; on a busy machine its thread may take longer to start than Dask asserts, 10 s."""
    for _ in range(2):
        with suppress(AssertionError):
            return _dask.Client(target, set_as_default=False, **options)
    return _dask.Client(target, set_as_default=False, **options)


@contextmanager
def _closing(thing: Any) -> Iterator[Any]:
    """Close a client or a cluster within its time; no trouble with it hides how the job ended."""
    try:
        yield thing
    finally:
        with suppress(Exception):
            thing.close(timeout=CLOSE_S)


@contextmanager
def _ctrl_c_for_client_alone() -> Iterator[None]:
    """Keep a key press of Ctrl-C from what is started here.

    It signals every process of the terminal's group. The mask is inherited by the cluster's threads
    and by what they start, workers or the queue's commands: the client alone is interrupted, and
    takes the rest down in order. The tracker of multiprocessing would undo the mask when it is
    started, so it is started first.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _local(workers: int) -> Iterator[Any]:
    with dask.config.set(_LOCAL), ExitStack() as stack:
        # Ctrl-C arrives when the inner block ends; by then what was started will be ended again.
        with _ctrl_c_for_client_alone():
            stack.enter_context(_no_child_left())
            try:
                cluster = _dask.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # None takes port 8787, on every interface
                    memory_limit=0,  # results are tiny: there is nothing that Dask could spill
                    silence_logs=logging.CRITICAL,
                    env=_ONE_THREAD,
                )
            except (RuntimeError, OSError) as error:
                raise JobError(
                    f"a local worker died while it was starting: {error.__cause__ or error}. Is "
                    "there memory for it? Then run the same command again"
                ) from error
            stack.enter_context(_closing(cluster))
            client = stack.enter_context(_closing(_make_client(cluster)))
            client.run(atexit.register, os._exit, 0)  # TensorFlow takes half a second to clean up
        yield client


@contextmanager
def _no_child_left() -> Iterator[None]:
    """Kill what has not ended in its time; multiprocessing would wait for it at exit, for ever."""
    before = set(active_children())
    try:
        yield
    finally:
        for child in set(active_children()) - before:
            child.kill()
