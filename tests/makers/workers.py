"""Dask workers that are threads of this process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def thread_workers(count: int = 2) -> Iterator[str]:
    """Yield the address of a Dask scheduler with so many workers."""
    import distributed

    client: Any = distributed
    with client.LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster.scheduler_address
