"""A limit to what this process may allocate while it runs a codec's graph."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

_STATM = Path("/proc/self/statm")

_lock = Lock()
_running: list[int] = []
_before = resource.getrlimit(resource.RLIMIT_DATA)


@contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """Let allocations fail that would take ``more`` bytes than now; on Linux only.

    Threads share one limit, the highest. It is never above that of the process.
    """
    global _before
    if not _STATM.exists():
        yield
        return
    with _lock:
        if not _running:
            _before = resource.getrlimit(resource.RLIMIT_DATA)
        _running.append(more)
        used = int(_STATM.read_text().split()[5]) * resource.getpagesize()
        bounds = [bound for bound in _before if bound != resource.RLIM_INFINITY]
        soft = min(used + max(_running), *bounds, 1 << 62)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, _before[1]))
    try:
        yield
    finally:
        with _lock:
            _running.remove(more)
            if not _running:
                resource.setrlimit(resource.RLIMIT_DATA, _before)
