"""One job at a time works on a store: the lock beside it, how it is kept and how it is taken over.

``STORE.job/lock/`` holds numbered *claims*, ``000001.json``, ``000002.json``, … The job of the
highest one holds the lock until its claim is marked as released, or its process is found dead. Then
whoever creates the next number holds the lock: creating a name that must not exist is the one step
that a file system (``link``) and object storage (a conditional put: S3 since 2024, Google, MinIO)
both do for one caller only. Nobody writes to another's claim and none is removed, so that two jobs
that take over from the same dead one cannot both succeed, whatever they have read before.

Is the holder alive? A process of this machine's same boot and process table: the system knows; the
time when it started tells it from a later process of the same number. Elsewhere: the holder raises
a counter in its claim every ``BEAT_S`` seconds, and whoever wants the lock watches it for up to
``WATCH_S`` seconds of local time; clocks of two machines are never compared.

- A crash, a kill, a power cut: the claim stays, and is found dead. Ctrl-C and errors release it.
- NFS: the server does ``link``, once. If its answer is lost and the call repeated, the name exists,
  but with our own token. A client may show an older counter for up to a minute (its attribute
  cache); ``WATCH_S`` is longer.
- A holder that was paused for long (a suspended machine) and whose lock was taken, or whose
  ``STORE.job`` was deleted, stops with a JobError at its next check, which it makes before every
  shard that it writes, before the plan and before the store is finished. Until then both write the
  same bytes, because the store itself refuses a job of other settings.
"""

import os
import pwd
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from latentset.datasets.errors import JobError, StoreError
from latentset.datasets.storage.location import Location

BEAT_S = 15.0
"""Seconds between two signs of life of the holder."""

LOOK_S = 5.0
"""Seconds between two looks at a holder that is elsewhere."""

WATCH_S = 90.0
"""Seconds without a sign of life after which a holder counts as dead: more than the minute for
which NFS may show an old state, and several beats."""

STOP_S = 10.0
"""Seconds that the thread of the beats may take to end."""

_held: set[str] = set()
"""Tokens of this process. A claim of this very process that is not among them was left by a run
that could not release it, for instance because the disk was full."""


class Claim(BaseModel):
    """``STORE.job/lock/NNNNNN.json``; an empty text or 0 is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str
    host: str
    boot: str
    pid_namespace: str
    pid: PositiveInt
    started: NonNegativeInt
    """Clock ticks since boot."""
    user: str
    since: str
    beats: NonNegativeInt = 0
    released: bool = False

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

    def check(self) -> None:
        """Raise a JobError if another job has taken the lock over, or the claim is gone."""
        after, mine = _read(self.location, self.number + 1), _read(self.location, self.number)
        if after is None and (claim := _parse(mine)) is not None and claim.token == self.token:
            return
        other = after or mine
        if other is None:
            raise JobError(
                f"{self.location}: this job's lock is gone; was the folder deleted? Finished "
                "shards whose records are still there are kept: run the same command again"
            )
        raise JobError(
            f"{self.location}: another job has taken the store over ({_describe(_parse(other))}): "
            "this one had given no sign of life, or its lock was deleted. The other job continues; "
            "nothing is left to do here"
        )


@contextmanager
def hold(location: Location, log: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the lock whose claims are at ``location`` for as long as the context lasts.

    Check the lease before writing what another job could be writing too. ``log`` is called when
    there is something to wait for.

    Raises:
        JobError: Another job holds the lock.
        StoreError: The claim cannot be written.
    """
    mine = make_claim()
    _held.add(mine.token)
    try:
        lease = Lease(location, _take(location, mine, log), mine.token)
        stop = threading.Event()
        beats = threading.Thread(target=_beat, args=(lease, mine, stop), name="lock", daemon=True)
        beats.start()
        try:
            yield lease
        finally:
            stop.set()
            beats.join(STOP_S)
            # What cannot be released is found dead: the process will have ended, or forgotten it.
            _update(lease, mine.model_copy(update={"released": True}))
    finally:
        _held.discard(mine.token)


def _beat(lease: Lease, claim: Claim, stop: threading.Event) -> None:
    beats = 0
    while not stop.wait(BEAT_S):
        beats += 1
        _update(lease, claim.model_copy(update={"beats": beats}))


def _update(lease: Lease, claim: Claim) -> None:
    """Write one's own claim again, unless the lock was lost; trouble may pass."""
    with suppress(JobError, StoreError):
        lease.check()
        lease.location.write(_path(lease.number), claim.to_bytes())


def _take(location: Location, mine: Claim, log: Callable[[str], None]) -> int:
    last = 0
    while True:
        # One by one: a listing may fail on files that are being written at the time.
        while _read(location, last + 1) is not None:
            last += 1
        if last:
            _wait_until_free(location, last, log)
        last += 1
        if location.create(_path(last), mine.to_bytes()):
            return last
        # One's own, where a lost answer made the file system or the client try twice.
        if (claim := _parse(_read(location, last))) is not None and claim.token == mine.token:
            return last


def _wait_until_free(location: Location, number: int, log: Callable[[str], None]) -> None:
    """Return if the holder has released the lock or is dead; raise a JobError if it is alive."""
    first = _read(location, number)
    claim = _parse(first)
    if first is None or (claim is not None and claim.released):
        return
    if claim is not None and (running := _is_running(claim)) is not None:
        if running:
            raise _refused(location, claim)
        log(f"an earlier run ({_describe(claim)}) has died; taking its lock over")
        return
    log(
        f"a job holds the lock ({_describe(claim)}); watching for {WATCH_S:.0f} s whether it is "
        "alive"
    )
    quiet, before = 0.0, time.monotonic()
    while quiet < WATCH_S:
        time.sleep(LOOK_S)
        found, after = _read(location, number), _read(location, number + 1)
        # A gap without a look (this process or the file server stood still) proves nothing.
        now = time.monotonic()
        quiet, before = quiet + min(now - before, 2 * LOOK_S), now
        if found is None or after is not None:
            return  # the caller looks at what has come
        if found != first:
            current = _parse(found)
            if current is None or not current.released:
                raise _refused(location, current or claim)
            return
    log("it gave no sign of life; taking its lock over")


def _refused(location: Location, claim: Claim | None) -> JobError:
    return JobError(
        f"{location}: another job is at work on this store ({_describe(claim)}). Wait until it has "
        "finished, or stop it there and run this command again: it resumes where that one stopped"
    )


def _describe(claim: Claim | None) -> str:
    """Who holds the lock, for messages."""
    if claim is None:
        return "its claim cannot be read"
    return f"process {claim.pid} of {claim.user} on {claim.host}, since {claim.since}"


def _is_running(claim: Claim) -> bool | None:
    """Whether the process of a claim lives; None where that cannot be seen from here."""
    here = make_claim()
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
    found = process_started(claim.pid)
    # 0: /proc does not show other users' processes here, but there is one of this number.
    return found is not None and found in (0, claim.started)


def process_started(pid: int) -> int | None:
    """When a process started, clock ticks since boot; 0 if unknown, None if it has ended.

    Source: proc(5), /proc/PID/stat, fields 3 (state) and 22 (starttime).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return None if fields[0] in "ZX" else int(fields[19])


def make_claim() -> Claim:
    """Make a new claim of this process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot = namespace = ""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        user = f"user {os.getuid()}"
    return Claim(
        token=secrets.token_hex(16),
        host=socket.gethostname(),
        boot=boot,
        pid_namespace=namespace,
        pid=os.getpid(),
        started=process_started(os.getpid()) or 0,
        user=user,
        since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _path(number: int) -> str:
    return f"{number:06d}.json"


def _read(location: Location, number: int) -> bytes | None:
    try:
        return location.read(_path(number))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JobError(
            f"{location}: the lock cannot be read: {error}. Run the same command again when it can"
        ) from error


def _parse(content: bytes | None) -> Claim | None:
    try:
        return Claim.model_validate_json(content) if content is not None else None
    except ValidationError:
        return None
