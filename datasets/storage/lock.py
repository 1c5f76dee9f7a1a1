"""One job at a time works on a store: the lock beside it, how it is kept and how it is taken over.

``STORE.job/lock/`` holds numbered *claims*, ``000001.json``, ``000002.json``, … The job of the
highest one holds the lock until its claim says that it was released, or until it is found dead.
Then the next number is free, and whoever creates it first holds the lock: creating a name that must
not exist is the one step that a file system (``link``) and object storage (a conditional put) both
do for one caller only. Nobody ever writes to another's claim and none is removed, so that two who
take over the same dead job cannot both win, whatever they have read before.

Is the holder alive?

- A process of this machine's same boot and of the same process table: the system says so, at once.
  The time when it started tells it from a later process of the same number.
- Elsewhere (another machine, another container): the holder raises a counter in its claim every
  ``BEAT_S`` seconds. Whoever wants the lock watches it for up to ``WATCH_S`` seconds of the time
  that passed here: clocks of two machines are never compared. If it changes, he is refused.

What happens

- in a crash, a kill, a power cut: the claim stays; it is found dead at once on the same machine,
  after ``WATCH_S`` seconds elsewhere and after a restart. Ctrl-C and errors release it.
- on NFS: ``link`` is done by the server, once. If its answer is lost and the call repeated, the
  name exists, but the token in it is one's own. A client may show an older counter for up to a
  minute (its attribute cache); ``WATCH_S`` is longer.
- in object storage: the service must know conditional puts (S3 since 2024, Google, MinIO, moto).
- to a holder that was paused for long (a suspended machine) and whose lock was taken: it stops with
  a JobError as soon as it looks, which it does before every shard that it writes, before the plan
  and before the store is finished. Until then both write the same bytes, because a job of other
  settings is refused by the store itself.
- to a holder whose ``STORE.job`` is deleted: likewise. It never makes the claim again.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt, ValidationError

from latentset.datasets.errors import JobError, StoreError
from latentset.datasets.storage.location import Location
from latentset.datasets.store.header import Frozen

BEAT_S = 15.0
"""Seconds between two signs of life of the holder."""

LOOK_S = 5.0
"""Seconds between two looks at a holder that is elsewhere."""

WATCH_S = 90.0
"""Seconds of looking after which a holder without a sign of life is taken for dead: longer than a
minute, which is how long NFS may show what was, and several beats."""

STOP_S = 10.0
"""Seconds that the thread of the beats may take to end."""

_held: set[str] = set()
"""Tokens of this process. A claim of this very process that is not among them was left by a run
that could not release it, for instance because the disk was full."""


class Claim(Frozen):
    """``STORE.job/lock/NNNNNN.json``."""

    token: str
    """Made up at random, for this claim alone."""
    host: str
    """Name of the machine."""
    boot: str
    """What the kernel calls this boot; empty = unknown."""
    pid_namespace: str
    """Which table of processes ``pid`` is of; empty = unknown."""
    pid: PositiveInt
    """Number of the process."""
    started: NonNegativeInt
    """When the process started, clock ticks since boot; 0 = unknown."""
    user: str
    """Who runs it, for people."""
    since: str
    """When it took the lock, ISO 8601, UTC; for people, never compared."""
    beats: NonNegativeInt = 0
    """Counts up as long as the process lives."""
    released: bool = False
    """The holder has let go."""

    def describe(self) -> str:
        """Say who it is."""
        return f"process {self.pid} of {self.user} on {self.host}, since {self.since}"

    def to_bytes(self) -> bytes:
        """The object."""
        return self.model_dump_json(indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Lease:
    """The lock in this job's hands; small, so that tasks carry it."""

    location: Location
    """Of the claims."""
    number: int
    """Of this job's claim."""
    token: str
    """Of this job's claim."""

    def check(self) -> None:
        """Make sure that this job still holds the lock.

        Raises:
            JobError: Another job has taken it over, or the claim is gone.
        """
        with _readable(self.location):
            after, mine = _read(self.location, self.number + 1), _read(self.location, self.number)
        if after is None and mine is not None and (claim := _parse(mine)) is not None:
            if claim.token == self.token:
                return
            after = mine
        if after is None:
            raise JobError(
                f"{self.location}: this job's lock is gone; was the folder deleted? Finished "
                f"shards "
                "whose records are still there are kept: run the same command again"
            )
        other = _parse(after)
        who = other.describe() if other is not None else "an unknown one"
        raise JobError(
            f"{self.location}: another job has taken the store over ({who}): this one had given no "
            "sign of life, or its lock was deleted. It goes on there; nothing is left to do here"
        )


@contextmanager
def hold(location: Location, say: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the lock for as long as the context lasts.

    Args:
        location: Of the claims, ``STORE.job/lock``.
        say: Told when there is something to wait for.

    Yields:
        The lease; check it before writing what another job could be writing too.

    Raises:
        JobError: Another job holds the lock.
        StoreError: The claim cannot be written.
    """
    mine = _introduce()
    _held.add(mine.token)
    try:
        lease = Lease(location, _take(location, mine, say), mine.token)
        stop = threading.Event()
        beats = _Beats(lease, mine, stop)
        beats.start()
        try:
            yield lease
        finally:
            stop.set()
            beats.join(STOP_S)
            # What cannot be released is found dead: the process will have ended, or forgotten it.
            with suppress(JobError, StoreError):
                lease.check()
                released = mine.model_copy(update={"released": True})
                location.write(_path(lease.number), released.to_bytes())
    finally:
        _held.discard(mine.token)


class _Beats(threading.Thread):
    """Raises the counter of a claim until it is told to stop, or the lock is lost."""

    def __init__(self, lease: Lease, claim: Claim, stop: threading.Event) -> None:
        super().__init__(name="lock", daemon=True)
        self._lease, self._claim, self._stop_it = lease, claim, stop

    def run(self) -> None:
        beats = 0
        while not self._stop_it.wait(BEAT_S):
            beats += 1
            # Trouble may pass (a server that restarts); a lock that was lost stays so, and whoever
            # is about to write finds out.
            with suppress(JobError, StoreError):
                self._lease.check()
                claim = self._claim.model_copy(update={"beats": beats})
                self._lease.location.write(_path(self._lease.number), claim.to_bytes())


def _take(location: Location, mine: Claim, say: Callable[[str], None]) -> int:
    """Create the next claim, if the last one is of nobody or of somebody dead."""
    last = 0
    while True:
        last = max(last, _last(location))
        if last:
            _wait_until_free(location, last, say)
        last += 1
        if location.create(_path(last), mine.to_bytes()):
            return last
        with _readable(location):
            found = _read(location, last)
        # One's own, where a lost answer made the file system or the client try twice.
        if found is not None and (claim := _parse(found)) and claim.token == mine.token:
            return last


def _wait_until_free(location: Location, number: int, say: Callable[[str], None]) -> None:
    """Return if the holder has let go or is dead; raise a JobError if it is alive."""
    with _readable(location):
        first = _read(location, number)
    claim = _parse(first) if first is not None else None
    if first is None or (claim is not None and claim.released):
        return
    if claim is not None and (running := _is_running(claim)) is not None:
        if running:
            raise _refused(location, claim)
        say(f"an earlier run ({claim.describe()}) has died; going on in its place")
        return
    who = claim.describe() if claim is not None else "of which nothing can be read"
    say(f"a job holds the lock ({who}); watching for {WATCH_S:.0f} s whether it is alive")
    quiet, before = 0.0, time.monotonic()
    while quiet < WATCH_S:
        time.sleep(LOOK_S)
        with _readable(location):
            found, after = _read(location, number), _read(location, number + 1)
        # A gap without a look (this process or the file server stood still) proves nothing.
        now = time.monotonic()
        quiet, before = quiet + min(now - before, 2 * LOOK_S), now
        if found is None or after is not None:
            return  # the caller looks at what has come
        if found != first:
            seen = _parse(found)
            if seen is None or not seen.released:
                raise _refused(location, seen or claim)
            return
    say("it gave no sign of life; going on in its place")


def _refused(location: Location, claim: Claim | None) -> JobError:
    who = claim.describe() if claim is not None else "of which nothing can be read"
    return JobError(
        f"{location}: another job is at work on this store ({who}). Wait until it has finished, or "
        "stop it there and run this command again: it goes on where that one stopped"
    )


def _is_running(claim: Claim) -> bool | None:
    """Whether the process of a claim lives; None where that cannot be seen from here."""
    here = _introduce()
    known = bool(here.boot and here.pid_namespace)
    machine = (here.host, here.boot, here.pid_namespace)
    if not known or (claim.host, claim.boot, claim.pid_namespace) != machine:
        return None
    if claim.pid == here.pid and claim.started == here.started:
        return claim.token in _held
    try:
        os.kill(claim.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    found = _started(claim.pid)
    # 0: /proc does not show other users' processes here, but there is one of this number.
    return found is not None and found in (0, claim.started)


def _started(pid: int) -> int | None:
    """When a process started, clock ticks since boot; 0 if unknown, None if it has ended.

    Source: proc(5), /proc/PID/stat, fields 3 (state) and 22 (starttime).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return None if fields[0] in "ZX" else int(fields[19])


def _introduce() -> Claim:
    """Make a claim of this process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot = namespace = ""
    return Claim(
        token=secrets.token_hex(16),
        host=socket.gethostname(),
        boot=boot,
        pid_namespace=namespace,
        pid=os.getpid(),
        started=_started(os.getpid()) or 0,
        user=_user(),
        since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _user() -> str:
    """Name of the user, or the number where it has no name (containers)."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"


def _path(number: int) -> str:
    return f"{number:06d}.json"


def _last(location: Location) -> int:
    """The highest number of a claim; 0 if there is none.

    Asked for one by one: a job has few, and names that come and go while they are listed (files
    that are being written) would be in the way.
    """
    number = 0
    with _readable(location):
        while location.size(_path(number + 1)) is not None:
            number += 1
    return number


def _read(location: Location, number: int) -> bytes | None:
    try:
        return location.read(_path(number))
    except FileNotFoundError:
        return None


def _parse(content: bytes) -> Claim | None:
    """Parse a claim; None if it is not one, for instance of a later version."""
    try:
        return Claim.model_validate_json(content)
    except ValidationError:
        return None


@contextmanager
def _readable(location: Location) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JobError(
            f"{location}: the lock cannot be read: {error}. Run the same command again when it can"
        ) from error
