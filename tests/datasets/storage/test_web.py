"""Reading from web servers that cut, stall, redirect, compress, refuse and never end."""

import gzip
import logging
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreUnreachableError
from latentset.datasets.storage import http_request
from latentset.datasets.storage.location import Web, open_location
from tests.makers.faulty import Answer, Fault, FaultyServer, Request
from tests.makers.hub import TOKEN, FakeHub, rate_limited

CONTENT = bytes(range(256)) * 20
PARTS = {"Accept-Ranges": "bytes"}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_request, "BACK_OFF_S", 0.001)


class Files(FaultyServer):
    """Serves CONTENT at every path below /store; ``ranges`` says whether in parts."""

    ranges = True

    def answer(self, request: Request, body: bytes) -> Answer:
        if not request.path.startswith("/store/") or request.path.endswith("nothing"):
            return Answer(404)
        return Answer(200, CONTENT, PARTS if self.ranges else {})


@pytest.fixture
def files() -> Iterator[Files]:
    server = Files()
    with server.serve("api", "cdn"):
        yield server


@pytest.fixture
def far(files: Files) -> Web:
    return Web(f"{files.urls['api']}/store")


@pytest.fixture
def published(hub: FakeHub) -> FakeHub:
    """The Hub with a data set."""
    hub.add("org/set", {"zarr.json": b"{}", "y_hat/c/0/0": CONTENT})
    return hub


@pytest.fixture
def answering() -> Iterator[Callable[[bytes, Callable[[socket.socket], None]], Web]]:
    """Start a server that sends bytes as they are, and then what a function sends."""
    listeners = []

    def start(head: bytes, rest: Callable[[socket.socket], None]) -> Web:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(head)
                rest(connection)

        threading.Thread(target=serve, daemon=True).start()
        return Web(f"http://127.0.0.1:{listener.getsockname()[1]}/store")

    yield start
    for listener in listeners:
        listener.close()


def test_what_is_there_is_read(far: Web, files: Files) -> None:
    assert far.read("y_hat/c/0/0") == CONTENT
    assert far.size("y_hat/c/0/0") == len(CONTENT)
    assert far.size("nothing") is None
    assert far.sizes() is None
    with pytest.raises(FileNotFoundError):
        far.read("nothing")
    again = pickle.loads(pickle.dumps(far))
    assert again == far
    assert again.read("a") == CONTENT
    assert all(request.headers["accept-encoding"] == "identity" for request in files.requests)


def test_a_child_process_has_connections_of_its_own(far: Web) -> None:
    assert far.read("a") == CONTENT
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"1" if far.read("a") == CONTENT else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b"1"
    assert far.read("a") == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_is_cut_is_resumed(far: Web, files: Files, ranges: bool) -> None:
    files.ranges = ranges
    files.faults = [Fault("GET", cut=1000), Fault("GET", cut=30)]
    assert far.read("a") == CONTENT
    asked = [request.headers.get("range") for request in files.requests]
    # Without parts, the second answer begins anew, and ends before anything new came.
    assert asked == [None, "bytes=1000-", f"bytes={1030 if ranges else 1000}-"]


def test_one_that_is_always_cut_is_given_up(far: Web, files: Files) -> None:
    files.faults = [Fault("GET", cut=1, times=1000)]
    with pytest.raises(StoreUnreachableError, match=r"store/a cannot be read: the connection was "):
        far.read("a")
    assert len(files.requests) == http_request.RETRIES + 1


def test_a_part_that_was_not_asked_for_is_refused(far: Web, files: Files) -> None:
    wrong = Answer(206, CONTENT, {"Content-Range": "bytes 0-5119/5120"})
    files.faults = [Fault("GET", cut=1000), Fault("GET", answer=wrong)]
    with pytest.raises(StoreUnreachableError, match="expected the object, got 206"):
        far.read("a")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(
    far: Web, files: Files, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(http_request, "pause", waited.append)
    logging.getLogger(http_request.__name__).disabled = True
    files.faults = [
        Fault("GET", answer=Answer(status, b"", {"Retry-After": "7"})),
        Fault("GET", answer=rate_limited(55)),
    ]
    assert b"".join(far.stream("a")) == CONTENT
    assert [seconds for seconds in waited if seconds > 0] == [7, 55]
    files.faults = [Fault("GET", answer=rate_limited(50), times=1000)]
    with pytest.raises(StoreUnreachableError, match=r"answers 429 .* run the same command again"):
        far.read("a")
    files.faults = [Fault("GET", answer=Answer(503, b"", {"Retry-After": "86400"}))]
    with pytest.raises(StoreUnreachableError, match="again in 86400 s"):
        far.read("a")


def test_refusals_say_what_to_do(far: Web, files: Files) -> None:
    for status in (401, 403):
        files.faults = [Fault("GET", answer=Answer(status))]
        with pytest.raises(StoreUnreachableError, match="Make it readable for everybody"):
            far.read("a")
    files.faults = [Fault("GET", answer=Answer(418))]
    with pytest.raises(StoreUnreachableError, match="got 418"):
        far.read("a")
    zipped = Answer(200, gzip.compress(bytes(10**6)), {"Content-Encoding": "gzip"})
    files.faults = [Fault("GET", answer=zipped)]
    with pytest.raises(StoreUnreachableError, match=r"encoding gzip.*switch compression off"):
        far.read("a")


def test_redirects_are_followed_within_limits(far: Web, files: Files) -> None:
    def to(url: str) -> Answer:
        return Answer(302, b"", {"Location": url})

    files.faults = [Fault("/a", answer=to(f"{files.urls['cdn']}/store/b?signature=x"))]
    assert far.read("a") == CONTENT
    assert [request.port for request in files.requests] == ["api", "cdn"]
    files.faults = [Fault("/a", answer=to("/store/a"), times=1000)]
    with pytest.raises(StoreUnreachableError, match="redirects more than 5 times"):
        far.read("a")
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/a"):
        files.faults = [Fault("/a", answer=to(url))]
        with pytest.raises(StoreUnreachableError, match="not safe; expected https"):
            far.read("a")


def test_a_body_without_end_is_cut_off(answering: Callable[..., Web]) -> None:
    def endless(connection: socket.socket) -> None:
        while True:
            connection.sendall(bytes(1 << 16))

    far = answering(b"HTTP/1.1 200 OK\r\n\r\n", endless)
    with pytest.raises(StoreCorruptError, match="expected at most 1048576 bytes, got more"):
        far.read("manifest.json", 1 << 20)


def test_a_byte_now_and_then_is_no_answer(
    answering: Callable[..., Web], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_request, "STALL_S", 0.5)
    monkeypatch.setattr(http_request, "RETRIES", 1)

    def trickle(connection: socket.socket) -> None:
        for _ in range(3000):
            connection.sendall(b"x")
            time.sleep(0.03)

    far = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", trickle)
    with pytest.raises(StoreUnreachableError, match=r"the server sends \d+ bytes a second"):
        far.read("a")
    far = answering(b"HTTP/1.1 200 OK\r\nX-Long: ", trickle)
    with pytest.raises(StoreUnreachableError, match="no whole answer in"):
        far.read("a")
    far = answering(b"", lambda connection: time.sleep(1))
    with pytest.raises(StoreUnreachableError, match="the server sends nothing for"):
        far.read("a")


def test_a_token_goes_to_the_hub_alone(published: FakeHub) -> None:
    hub = published
    hub.repositories["org/set"].private = True
    far = open_location("hf://datasets/org/set")
    assert far.read("y_hat/c/0/0") == CONTENT
    assert far.read("zarr.json") == b"{}"
    seen = {(request.port, request.headers.get("authorization")) for request in hub.requests}
    assert seen == {("api", f"Bearer {TOKEN}"), ("cdn", None)}
    assert far.sizes() == {".gitattributes": 21, "zarr.json": 2, "y_hat/c/0/0": len(CONTENT)}


def test_folders_and_revisions_of_the_hub(published: FakeHub) -> None:
    hub = published
    first = hub.repositories["org/set"].commits[-1].sha
    hub.add("org/set", {"deep/a/zarr.json": b"[]"})
    below = Web("hf://datasets/org/set/deep/a")
    assert below.read("zarr.json") == b"[]"
    assert below.sizes() == {"zarr.json": 2}
    assert (below / "none").sizes() == {}
    with pytest.raises(StoreUnreachableError, match=f"has no revision '{first}'"):
        Web(f"hf://datasets/org/set@{first}").read("zarr.json")
    with pytest.raises(StoreUnreachableError, match="has no revision 'feature/x'"):
        Web("hf://datasets/org/set@feature%2Fx").read("zarr.json")
    now = hub.repositories["org/set"].commits[-1].sha
    assert Web(f"hf://datasets/org/set@{now}/deep").read("a/zarr.json") == b"[]"


def test_the_hubs_refusals_say_what_to_do(
    published: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    hub = published
    far = Web("hf://datasets/org/set")
    with pytest.raises(FileNotFoundError):
        far.read("nothing")
    hub.repositories["org/set"].gated = "auto"
    with pytest.raises(StoreUnreachableError, match=r"Accept its terms at http.*hf auth login"):
        far.read("zarr.json")
    with pytest.raises(StoreUnreachableError, match="there is no data set org/other, or it is pri"):
        Web("hf://datasets/org/other").read("zarr.json")
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(StoreUnreachableError, match="does not know the token") as refused:
        far.read("zarr.json")
    assert "hf_expired" not in str(refused.value)


def test_addresses_that_cannot_be_are_refused() -> None:
    for url in ("hf://org/set", "hf://datasets/org", "hf://datasets/org/set@", "hf://models/a/b"):
        with pytest.raises(StoreError, match="expected hf://datasets/ORG/NAME"):
            open_location(url)
    for url in ("https://host/store?v=1", "https://host/store#a", "https://me:secret@host/store"):
        with pytest.raises(StoreError, match="without a query, a fragment or a password") as error:
            open_location(url)
        assert "secret" not in str(error.value)
    with pytest.raises(StoreError, match=r"cannot write .*then latentset publish"):
        Web("hf://datasets/org/set").write("a", b"")
