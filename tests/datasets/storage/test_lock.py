"""The lock: one holder at a time, found dead when it is, and never won by two."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import JobError, StoreError
from latentset.datasets.storage import lock
from latentset.datasets.storage.location import Folder, open_location
from latentset.datasets.storage.lock import Claim, Lease, hold


@pytest.fixture
def location(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store.job" / "lock")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for somebody elsewhere takes half a second."""
    for name, value in (("BEAT_S", 0.05), ("LOOK_S", 0.05), ("WATCH_S", 0.5)):
        monkeypatch.setattr(lock, name, value)


def claim_of(location: Folder, number: int) -> Claim:
    return Claim.model_validate_json((location.path / f"{number:06d}.json").read_bytes())


def leave(location: Folder, **changes: Any) -> Claim:
    """Leave a claim as a job would that has died; of this process if nothing else is said."""
    claim = lock.make_claim().model_copy(update=changes)
    assert location.create("000001.json", claim.to_bytes())
    return claim


@contextmanager
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    """Another process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_whoever_comes_second_is_refused_and_told_who_was_first(
    location: Folder, said: list[str]
) -> None:
    with hold(location, said.append):
        second = hold(location, said.append)
        with pytest.raises(JobError, match=r"is at work .*process \d+ of .* on .*, s"), second:
            pass
        assert claim_of(location, 1).pid == os.getpid()
    assert claim_of(location, 1).released
    with hold(location, said.append) as lease:
        assert lease.number == 2
    assert said == []


def test_an_error_and_ctrl_c_release_it(location: Folder, said: list[str]) -> None:
    for number, error in ((1, ValueError), (2, KeyboardInterrupt)):
        with pytest.raises(error), hold(location, said.append):
            raise error
        assert claim_of(location, number).released


def test_a_process_of_this_machine_is_refused_while_it_lives_and_replaced_when_it_died(
    location: Folder, said: list[str]
) -> None:
    with sleeper() as process:
        leave(location, pid=process.pid, started=lock.process_started(process.pid))
        with (
            pytest.raises(JobError, match=f"process {process.pid} of"),
            hold(location, said.append),
        ):
            pass
        process.kill()
        # Not waited for yet: a zombie, as under a shell script that looks after nobody.
        end = time.monotonic() + 30
        while lock.process_started(process.pid) is not None:
            assert time.monotonic() < end
            time.sleep(0.01)
        with hold(location, said.append) as lease:
            assert lease.number == 2
    assert "has died" in said[0]


def test_a_process_that_was_waited_for_is_dead(location: Folder, said: list[str]) -> None:
    with sleeper() as process:
        leave(location, pid=process.pid, started=lock.process_started(process.pid))
    with hold(location, said.append):
        pass
    assert "has died" in said[0]


def test_another_process_that_got_the_same_number_is_not_taken_for_the_holder(
    location: Folder, said: list[str]
) -> None:
    with sleeper() as process:
        started = lock.process_started(process.pid)
        assert started
        leave(location, pid=process.pid, started=started - 1)
        with hold(location, said.append) as lease:
            assert lease.number == 2


def test_what_this_process_could_not_release_does_not_lock_it_out(
    location: Folder, said: list[str]
) -> None:
    leave(location)  # as after "disk full", in a notebook that goes on
    with hold(location, said.append) as lease:
        assert lease.number == 2


@pytest.mark.parametrize("field", ["host", "boot", "pid_namespace"])
@pytest.mark.usefixtures("quick")
def test_a_holder_elsewhere_without_a_sign_of_life_is_replaced(
    location: Folder, said: list[str], field: str
) -> None:
    # Its clock is years ahead; that is of no account.
    leave(location, **{field: "elsewhere", "since": "2100-01-01T00:00:00Z"})
    before = time.monotonic()
    with hold(location, said.append) as lease:
        assert lease.number == 2
    assert time.monotonic() - before >= 0.5
    assert "watching for" in said[0]


@pytest.mark.usefixtures("quick")
def test_a_holder_elsewhere_that_counts_is_refused(location: Folder, said: list[str]) -> None:
    claim = leave(location, host="elsewhere", pid=1)
    stop = threading.Event()

    def beat() -> None:
        for beats in range(1, 10_000):
            if stop.wait(0.2):
                return
            location.write("000001.json", claim.model_copy(update={"beats": beats}).to_bytes())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(JobError, match="on elsewhere"), hold(location, said.append):
            pass
    finally:
        stop.set()
        thread.join()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", ["released", "deleted"])
def test_a_holder_elsewhere_that_lets_go_is_not_waited_for(
    location: Folder, said: list[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(lock, "WATCH_S", 600.0)
    claim = leave(location, host="elsewhere")

    def let_go() -> None:
        if how == "released":
            location.write("000001.json", claim.model_copy(update={"released": True}).to_bytes())
        else:
            location.remove("000001.json")

    timer = threading.Timer(0.2, let_go)
    timer.start()
    with hold(location, said.append) as lease:
        assert lease.number == 2
    timer.join()


@pytest.mark.usefixtures("quick")
def test_time_in_which_nobody_could_look_does_not_count(
    location: Folder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server that stands still for long keeps the holder from counting, too."""
    claim = leave(location, host="elsewhere")
    clock = iter(range(0, 10**9, 10_000))  # every look took hours
    looks = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 4:
            location.write("000001.json", claim.model_copy(update={"beats": 1}).to_bytes())

    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(time, "sleep", look)
    with pytest.raises(JobError, match="another job is at work"), hold(location, said.append):
        pass


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("content", [b"", b'{"token": "of a later version"}'])
def test_a_claim_that_cannot_be_read_is_watched_like_one_elsewhere(
    location: Folder, said: list[str], content: bytes
) -> None:
    location.create("000001.json", content)
    with hold(location, said.append) as lease:
        assert lease.number == 2


@dataclass(frozen=True)
class Watched(Folder):
    """A folder whose claims are created only when the test lets them."""

    before_create: Callable[[], object] = lambda: None
    lose_answer: bool = False

    def create(self, path: str, content: bytes) -> bool:
        self.before_create()
        return super().create(path, content) and not self.lose_answer


def test_of_many_who_find_the_same_dead_holder_one_wins(location: Folder) -> None:
    for round_ in range(10):
        claims = Folder(location.path / str(round_))
        leave(claims)
        # All have read the dead claim before the first one writes.
        barrier = threading.Barrier(8)
        late = threading.local()

        def meet(barrier: threading.Barrier = barrier, late: threading.local = late) -> None:
            if not getattr(late, "met", False):
                late.met = True
                barrier.wait(30)

        won: list[int] = []
        refused: list[JobError] = []
        with ExitStack() as stack:

            def take(
                where: Watched = Watched(claims.path, meet),
                stack: ExitStack = stack,
                won: list[int] = won,
                refused: list[JobError] = refused,
            ) -> None:
                try:
                    won.append(stack.enter_context(hold(where, lambda text: None)).number)
                except JobError as error:
                    refused.append(error)

            threads = [threading.Thread(target=take) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert won == [2]
            assert len(refused) == 7


def test_an_answer_that_got_lost_is_made_up_for_by_reading(
    location: Folder, said: list[str]
) -> None:
    with hold(Watched(location.path, lose_answer=True), said.append) as lease:
        assert lease.number == 1
        lease.check()


def test_a_claim_that_cannot_be_written_is_an_error(location: Folder, said: list[str]) -> None:
    location.path.parent.mkdir()
    location.path.write_text("in the way")
    with pytest.raises((StoreError, JobError), match=r"lock"), hold(location, said.append):
        pass


@pytest.mark.usefixtures("quick")
def test_the_counter_goes_up_and_stops_with_the_job(location: Folder, said: list[str]) -> None:
    with hold(location, said.append) as lease:
        end = time.monotonic() + 30
        while claim_of(location, 1).beats < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        lease.check()
    after = claim_of(location, 1)
    assert after.released
    assert not [thread for thread in threading.enumerate() if thread.name == "lock"]


@pytest.mark.usefixtures("quick")
def test_a_holder_that_was_replaced_stops_and_writes_no_more(
    location: Folder, said: list[str]
) -> None:
    with hold(location, said.append) as lease:
        other = lock.make_claim().model_copy(update={"host": "elsewhere"})
        assert location.create("000002.json", other.to_bytes())
        with pytest.raises(JobError, match=r"another job has taken the store over .* on elsewhere"):
            lease.check()
        time.sleep(0.2)
        before = claim_of(location, 1)
        time.sleep(0.2)
        assert claim_of(location, 1) == before
    assert not claim_of(location, 1).released
    assert claim_of(location, 2) == other


@pytest.mark.usefixtures("quick")
def test_a_holder_whose_folder_was_deleted_stops_and_does_not_make_it_again(
    location: Folder, said: list[str]
) -> None:
    with hold(location, said.append) as lease:
        for path in location.path.iterdir():
            path.unlink()
        with pytest.raises(JobError, match="this job's lock is gone; was the folder deleted"):
            lease.check()
        time.sleep(0.2)
        # Somebody else begins in the folder that is empty now: not this job's number 1.
        other = leave(location, host="elsewhere")
        with pytest.raises(JobError, match="another job has taken the store over"):
            lease.check()
    assert claim_of(location, 1) == other


def test_a_lease_travels_to_workers(location: Folder, said: list[str]) -> None:
    import pickle

    with hold(location, said.append) as lease:
        copy: Lease = pickle.loads(pickle.dumps(lease))
        copy.check()


def test_a_stopped_process_still_holds_it(location: Folder, said: list[str]) -> None:
    with sleeper() as process:
        leave(location, pid=process.pid, started=lock.process_started(process.pid))
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(JobError, match="another job is at work"), hold(location, said.append):
            pass


def test_it_is_one_in_object_storage_as_well(s3: str, said: list[str]) -> None:
    bucket = open_location(f"{s3}/store.job/lock")
    with hold(bucket, said.append) as lease:
        second = hold(bucket, said.append)
        with pytest.raises(JobError, match="another job is at work"), second:
            pass
        lease.check()
    with hold(bucket, said.append) as lease:
        assert lease.number == 2
        other = lock.make_claim().model_copy(update={"host": "elsewhere"})
        assert bucket.create("000003.json", other.to_bytes())
        with pytest.raises(JobError, match="another job has taken the store over"):
            lease.check()


@pytest.mark.usefixtures("quick")
def test_of_many_who_take_over_in_object_storage_one_wins(s3: str) -> None:
    bucket = open_location(f"{s3}/store.job/lock")
    bucket.create("000001.json", lock.make_claim().to_bytes())
    barrier, won, refused = threading.Barrier(4), list[int](), list[JobError]()
    with ExitStack() as stack:

        def take() -> None:
            barrier.wait(30)
            try:
                won.append(stack.enter_context(hold(bucket, lambda text: None)).number)
            except JobError as error:
                refused.append(error)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [2]
        assert len(refused) == 3
