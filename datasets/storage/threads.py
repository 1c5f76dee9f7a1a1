"""Threads whose waits end when their caller stops: at Ctrl-C, or as one of them has failed."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from latentset.datasets.errors import StoreError

LOOK_S = 0.1
"""Seconds after which a thread that waits looks whether it should stop."""


class _Stop:
    """A flag without a lock, so that a signal may set it at any moment."""

    is_set = False


_stops: ContextVar[tuple[_Stop, ...]] = ContextVar("stops", default=())
"""What stops this thread: the end of the block that started it, or of one around that."""


@contextmanager
def stoppable_threads(
    count: int, name: str, *, defer_ctrl_c: bool = False
) -> Iterator[ThreadPoolExecutor]:
    """Start threads; where the block ends, however it does, what they do is stopped.

    What has not started is cancelled; what is in progress ends at its next ``check_stop``. With
    ``defer_ctrl_c``, for a block that only waits for its threads, Ctrl-C stops these first: Python
    would raise it anywhere, also where the block has just taken a lock of theirs, and hang.
    """
    stop = _Stop()
    stops = (*_stops.get(), stop)
    with _deferred_ctrl_c(stop) if defer_ctrl_c else nullcontext():
        pool = ThreadPoolExecutor(count, name, initializer=_stops.set, initargs=(stops,))
        try:
            yield pool
        finally:
            stop.is_set = True
            pool.shutdown(cancel_futures=True)


@contextmanager
def _deferred_ctrl_c(stop: _Stop) -> Iterator[None]:
    usual = signal.default_int_handler
    is_usual = signal.getsignal(signal.SIGINT) is usual
    if not is_usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def press(*_: Any) -> None:
        nonlocal pressed
        stop.is_set = pressed = True

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if pressed:
            raise KeyboardInterrupt


def check_stop() -> None:
    """Raise a StoreError, which nobody reads, in a thread that should stop."""
    if any(stop.is_set for stop in _stops.get()):
        raise StoreError("stopped")


def pause(seconds: float) -> None:
    """Sleep; raises as ``check_stop``."""
    end = time.monotonic() + seconds
    check_stop()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_S))
        check_stop()
