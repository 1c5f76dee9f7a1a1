"""Kill -9 of parts of an encode job at chosen moments, with the stand-in codec.

Used by test_kill.py and by benchmarks/kills.py. What is killed are real processes: `latentset
encode` with its own worker, or with a `dask scheduler` and a `dask worker` beside it.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.makers import CLIENT, PYTHONPATH
from tests.makers.commands import content_of

TIMEOUT_S = 180.0
SIZES, IMAGES = ((64, 64), (48, 100), (130, 70)), 40
KINDS: "tuple[Kind, ...]" = ("worker", "scheduler", "client")

Kind = Literal["worker", "scheduler", "client"]
Bytes = dict[str, bytes]


@dataclass(frozen=True)
class Kill:
    """What is killed, and when."""

    kind: Kind
    moment: float
    """Part of the time that an undisturbed run takes from its first trace on disk to its end."""


@dataclass
class Outcome:
    """What came of it."""

    kill: Kill
    phase: str
    """What the job was at: "planning", "encoding", "finishing", or it had "ended"."""
    shards: int
    """Shards recorded when the kill came."""
    redone: int
    """Of these, how many were done again."""
    runs: int
    """How many times the command was run, the one that was disturbed included."""
    equal: bool
    """The store is what an undisturbed run writes."""
    messages: list[str] = field(default_factory=list)
    """What runs that failed had said."""


def draw_kills(seed: int, count: int) -> list[Kill]:
    """Draw moments uniformly for each kind, one in each of equal parts of the time."""
    draw = random.Random(seed)
    kills = []
    for k, kind in enumerate(KINDS):
        number = len(range(k, count, len(KINDS)))
        kills += [Kill(kind, (i + draw.random()) / number) for i in range(number)]
    draw.shuffle(kills)
    return kills


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": PYTHONPATH,
        "SOURCE_DATE_EPOCH": "1000000000",
        "OMP_NUM_THREADS": "1",
    }


@contextmanager
def _started(*command: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process, and whatever it starts, that is gone in the end."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=_environment(),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _cluster(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A scheduler and a worker; yields the address and the scheduler's process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"tcp://127.0.0.1:{port}", folder / "cluster.log"
    local = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    alone = ("--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
    with (
        _started("-m", "dask", "scheduler", "--port", str(port), *local, log=log) as scheduler,
        _started("-m", "dask", "worker", address, *local, *alone, log=log),
    ):
        yield address, scheduler


def children_of(parent: int) -> list[int]:
    """Worker processes that a client has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


class Scene:
    """A collection to encode, what an undisturbed run makes of it, and how long that takes.

    Args:
        source: The images.
        folder: For stores and logs.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        self._source, self._folder = source, folder
        self.expected: Bytes = {}
        self._seconds: dict[bool, float] = {}

    def measure(self, remote: bool) -> None:
        """Run undisturbed, on a scheduler or on local workers."""
        folder = self._folder / f"undisturbed-{remote}"
        folder.mkdir()
        seconds = 0.0

        def wait(process: "subprocess.Popen[bytes]", scheduler: object) -> None:
            nonlocal seconds
            _wait_for(process, lambda: (folder / "store.job").exists())
            begin = time.monotonic()
            process.wait(TIMEOUT_S)
            seconds = time.monotonic() - begin

        code = self._run(folder, remote, wait)
        if code != 0:
            raise RuntimeError((folder / "client.log").read_text())
        self._seconds[remote] = seconds
        content = content_of(folder / "store")
        if self.expected and content != self.expected:
            raise RuntimeError("two undisturbed runs differ")
        self.expected = content

    def play(self, kill: Kill, name: str) -> Outcome:
        """Begin a job, kill a part of it, run it again until it has finished, and compare."""
        folder = self._folder / name
        folder.mkdir()
        store = folder / "store"
        remote = kill.kind == "scheduler"
        phase, before = "ended", dict[Path, int]()

        def disturb(process: "subprocess.Popen[bytes]", scheduler: int | None) -> None:
            nonlocal phase, before
            _wait_for(process, lambda: store.with_name("store.job").exists())
            due = time.monotonic() + kill.moment * self._seconds[remote]
            time.sleep(max(0.0, due - time.monotonic()))
            victim = {"client": process.pid, "scheduler": scheduler}.get(kill.kind)
            while kill.kind == "worker" and victim is None and process.poll() is None:
                victim = next(iter(children_of(process.pid)), None)
            if process.poll() is None and victim is not None:
                os.kill(victim, signal.SIGKILL)
                before = _records(store)
                phase = _phase(store, len(before))
            process.wait(TIMEOUT_S)

        runs, code = 1, self._run(folder, remote, disturb)
        messages = []
        while code != 0 and runs < 4:
            text = (folder / "client.log").read_text()
            if code > 0:
                messages.append(text[-2000:])
            (folder / "client.log").unlink()
            code = self._run(folder, remote, lambda process, scheduler: process.wait(TIMEOUT_S))
            runs += 1
        if code != 0:
            messages.append((folder / "client.log").read_text())
        after = _records(store)
        return Outcome(
            kill=kill,
            phase=phase,
            shards=len(before),
            redone=sum(after.get(path) != stamp for path, stamp in before.items()),
            runs=runs,
            equal=code == 0 and content_of(store) == self.expected,
            messages=messages,
        )

    def _run(
        self,
        folder: Path,
        remote: bool,
        during: "Callable[[subprocess.Popen[bytes], int | None], object]",
    ) -> int:
        """Run the command and return its exit status, negative if it was killed."""
        command = (str(CLIENT), "encode", str(self._source), str(folder / "store"))
        log = folder / "client.log"
        if remote:
            with (
                _cluster(folder) as (address, scheduler),
                _started(*command, "--codec", "standin", "--scheduler", address, log=log) as client,
            ):
                during(client, scheduler.pid)
                return client.wait(TIMEOUT_S)
        with _started(*command, "--codec", "standin", "--workers", "1", log=log) as client:
            during(client, None)
            return client.wait(TIMEOUT_S)


def _wait_for(process: "subprocess.Popen[bytes]", condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


def _records(store: Path) -> dict[Path, int]:
    """Shards that are recorded, and when."""
    found = {}
    for path in store.with_name(f"{store.name}.job").glob("*/shards/[0-9]*.json"):
        with suppress(FileNotFoundError):
            found[path] = path.stat().st_mtime_ns
    return found


def _phase(store: Path, records: int) -> str:
    plans = list(store.with_name(f"{store.name}.job").glob("*/plan.json"))
    if (store / "manifest.json").exists():
        return "ended"
    if not plans:
        return "planning"
    shards: int = json.loads(plans[0].read_text())["header"]["layout"]["shards"]
    return "finishing" if records >= shards else "encoding"
