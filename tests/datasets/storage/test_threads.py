"""Threads that stop with their caller."""

import signal
from collections.abc import Callable
from concurrent.futures import Future, as_completed

import pytest

from latentset.datasets.storage.threads import pause, stoppable_threads

Futures = list["Future[None]"]


def wait_for(futures: Futures) -> None:
    for future in as_completed(futures):
        future.result()


def start(started: Futures, then: Callable[[], None], *, defer_ctrl_c: bool = False) -> None:
    """Start tasks of ten minutes, do something else, start one more, and wait for all."""
    with stoppable_threads(2, "test", defer_ctrl_c=defer_ctrl_c) as pool:
        started += [pool.submit(pause, 600) for _ in range(4)]
        then()
        started.append(pool.submit(pause, 600))
        wait_for(started)


def test_ctrl_c_waits_until_the_threads_have_stopped() -> None:
    def press() -> None:
        signal.raise_signal(signal.SIGINT)

    started: Futures = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            start(started, press, defer_ctrl_c=True)
        assert len(started) == 5  # the block has gone on
        assert all(future.done() for future in started)
        with pytest.raises(KeyboardInterrupt):
            press()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_block_that_fails_stops_its_threads() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    started: Futures = []
    with pytest.raises(ZeroDivisionError):
        start(started, fail)
    assert len(started) == 4
    assert all(future.done() for future in started)
