"""``latentset`` with the stand-in codec in a process of its own, and what it leaves on disk."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.makers import CLIENT

TIMEOUT_S = 300


@contextmanager
def client(
    *arguments: object, gate: bool = False, **environment: str
) -> Iterator["subprocess.Popen[str]"]:
    """Run the command as the leader of a process group, as a terminal would start it.

    With a gate, its workers stop after a few batches (standin.py).
    """
    if gate:
        environment["LATENTSET_STANDIN_GATE"] = "closed"
    process = subprocess.Popen(
        [sys.executable, str(CLIENT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait for something that a running process does."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def records_of(store: Path) -> list[Path]:
    """Records of the shards that are done."""
    return sorted(store.with_name(f"{store.name}.job").glob("*/shards/[0-9]*.json"))


def content_of(store: Path) -> dict[str, bytes]:
    """Every file of a store, also one that does not belong there, by its path."""
    files = [store] if store.is_file() else [path for path in store.rglob("*") if path.is_file()]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in sorted(files)}
