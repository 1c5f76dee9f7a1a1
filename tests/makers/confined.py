"""Running something in a process of its own, with limits of memory and time."""

import multiprocessing
import resource
import signal
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TIME_S = 60
MEMORY_BYTES = 1 << 30
"""What the work may take more than the process has at its start."""

# Processes are forked from one without threads: a lock that a thread holds would stay held.
_CONTEXT = multiprocessing.get_context("forkserver")
# What the environment lacks is passed over.
_CONTEXT.set_forkserver_preload(
    [f"tests.makers.{name}" for name in ("using", "decoding", "classifying")]
)


def confined(
    work: Callable[..., object], *arguments: object, memory_bytes: int = MEMORY_BYTES
) -> str:
    """Call something in a process of its own; return its result as text.

    AssertionError if it raises something, takes too much memory or time, or crashes.
    """
    reading, writing = _CONTEXT.Pipe(duplex=False)
    with reading:
        process = _CONTEXT.Process(
            target=_work_within_limits, args=(writing, memory_bytes, work, arguments)
        )
        process.start()
        writing.close()
        try:
            is_good, told = reading.recv()
        except EOFError:
            is_good, told = False, "nothing"
        process.join()
    code = process.exitcode or 0
    if code < 0:
        raise AssertionError(f"killed by {signal.Signals(-code).name}")
    assert is_good, told
    return str(told)


def _work_within_limits(
    writing: Connection,
    memory_bytes: int,
    work: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    signal.alarm(TIME_S)
    warnings.simplefilter("error", RuntimeWarning)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 6 * MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        told = str(work(*arguments))[:1000]
    except BaseException:
        writing.send((False, traceback.format_exc()[-4000:]))
        return
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    is_good = taken <= memory_bytes
    writing.send((is_good, told if is_good else f"took {taken:,} bytes"))
