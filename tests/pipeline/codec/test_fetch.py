"""Download from a real HTTP server on the loopback interface, well-behaved and not."""

import hashlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from latentset.datasets.errors import CodecGraphError, CodecNotFoundError, FetchError
from latentset.datasets.storage import http_request
from latentset.pipeline.codec import fetch
from latentset.pipeline.codec.catalogue import shipped_codecs
from latentset.pipeline.codec.fetch import FetchedCodec, fetch_codec
from latentset.pipeline.codec.load.codec import load_codec
from tests.makers import by_hand, graphs

NAME = "mine"
"""Of a tiny codec: one with the name of a published codec must be that one."""


class Server:
    """What the server does next, and what it was asked."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.announced: int | None = len(body)
        self.status = 200
        self.requests: list[str] = []
        self.url = ""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_request, "BACK_OFF_S", 0.001)


@pytest.fixture
def server(v2_path: Path) -> Iterator[Server]:
    state = Server(v2_path.read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            self.send_response(state.status)
            self.send_header("Content-Type", "application/octet-stream")
            if state.announced is not None:
                self.send_header("Content-Length", str(state.announced))
            self.end_headers()
            self.wfile.write(state.body)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/metagraphs"
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def _fetch(
    url: str | None, cache: Path, name: str = NAME, *, terminal: bool = False
) -> FetchedCodec:
    console = Console(file=io.StringIO(), force_terminal=terminal)
    return fetch_codec(name, cache=cache, url_prefix=url, console=console)


def _assert_nothing_kept(cache: Path) -> None:
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("terminal", [False, True])
def test_a_download_is_whole_recorded_and_loads(
    server: Server, tmp_path: Path, v2_path: Path, terminal: bool
) -> None:
    cache = tmp_path / "not" / "there" / "yet"
    fetched = _fetch(server.url, cache, terminal=terminal)
    assert fetched.downloaded
    assert fetched.path.read_bytes() == v2_path.read_bytes()
    sha256 = hashlib.sha256(v2_path.read_bytes()).hexdigest()
    assert fetched.sha256 == sha256
    record = cache / f"{NAME}.metagraph.sha256"
    assert record.read_text() == f"{sha256}  {NAME}.metagraph\n"
    assert sorted(p.name for p in cache.iterdir()) == [f"{NAME}.metagraph", record.name]
    assert server.requests == [f"/metagraphs/{NAME}.metagraph"]
    assert load_codec(NAME, cache=cache, self_check=False).info.sha256 == sha256


def test_progress_is_plain_lines_where_there_is_no_terminal(server: Server, tmp_path: Path) -> None:
    text = io.StringIO()
    fetch_codec(NAME, cache=tmp_path, url_prefix=server.url + "/", console=Console(file=text))
    assert text.getvalue() == f"fetching {NAME}\nfetched {NAME}: {len(server.body)} bytes\n"


def test_a_second_fetch_asks_nobody(server: Server, tmp_path: Path) -> None:
    first = _fetch(server.url, tmp_path)
    second = _fetch(server.url, tmp_path)
    assert len(server.requests) == 1
    assert not second.downloaded
    assert second.sha256 == first.sha256


def test_a_file_url(tmp_path: Path, v2_path: Path) -> None:
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    (mirror / f"{NAME}.metagraph").write_bytes(v2_path.read_bytes())
    fetched = _fetch(mirror.as_uri(), tmp_path / "cache")
    assert fetched.path.read_bytes() == v2_path.read_bytes()


def test_a_file_in_the_cache_is_recorded_without_a_network(tmp_path: Path, v2_path: Path) -> None:
    (tmp_path / f"{NAME}.metagraph").write_bytes(v2_path.read_bytes())
    fetched = _fetch("http://127.0.0.1:9/nowhere", tmp_path)
    assert not fetched.downloaded
    assert (tmp_path / f"{NAME}.metagraph.sha256").is_file()


def test_no_length_announced_is_accepted(server: Server, tmp_path: Path) -> None:
    server.announced = None
    assert _fetch(server.url, tmp_path).downloaded


def test_a_cut_connection(server: Server, tmp_path: Path) -> None:
    server.body = server.body[: len(server.body) // 2]
    with pytest.raises(FetchError, match=r"download of .* failed: .* nothing was kept"):
        _fetch(server.url, tmp_path)
    _assert_nothing_kept(tmp_path)


def test_a_cut_connection_without_a_length(server: Server, tmp_path: Path) -> None:
    server.announced = None
    server.body = server.body[: len(server.body) // 2]
    with pytest.raises(FetchError, match=r"metagraph is refused: not a codec"):
        _fetch(server.url, tmp_path)
    _assert_nothing_kept(tmp_path)


def test_a_length_that_is_too_small(server: Server, tmp_path: Path) -> None:
    server.announced = len(server.body) - 10
    with pytest.raises(FetchError, match=r"not a codec|is .* bytes long"):
        _fetch(server.url, tmp_path)
    _assert_nothing_kept(tmp_path)


def test_a_file_that_is_too_large(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_MAX_BYTES", 1000)
    with pytest.raises(FetchError, match="expected at most 1000 bytes, got more; nothing was kept"):
        _fetch(server.url, tmp_path)
    _assert_nothing_kept(tmp_path)


def test_not_found(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(FetchError, match=rf"there is nothing at {server.url}/{NAME}\.metagraph"):
        _fetch(server.url, tmp_path)
    _assert_nothing_kept(tmp_path)


def test_a_server_error(server: Server, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(FetchError, match=r"failed: .* the server answers 503"):
        _fetch(server.url, tmp_path)
    _assert_nothing_kept(tmp_path)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"download of .* failed"):
        _fetch("http://127.0.0.1:9/nowhere", tmp_path)
    _assert_nothing_kept(tmp_path)


@pytest.mark.parametrize("body", [b"<!doctype html><title>Sign in</title>", b""])
def test_something_else_with_status_200(server: Server, tmp_path: Path, body: bytes) -> None:
    server.body, server.announced = body, len(body)
    with pytest.raises(FetchError, match=r"is refused: not a codec"):
        _fetch(server.url, tmp_path)
    _assert_nothing_kept(tmp_path)


def test_a_file_that_differs_later_is_refused(
    server: Server, tmp_path: Path, v1_path: Path
) -> None:
    first = _fetch(server.url, tmp_path)
    first.path.unlink()
    server.body = v1_path.read_bytes()
    server.announced = len(server.body)
    with pytest.raises(FetchError, match=f"differs from what was fetched first.*{first.sha256}"):
        _fetch(server.url, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [f"{NAME}.metagraph.sha256"]


def test_a_file_that_was_changed_in_the_cache_is_refused(
    server: Server, tmp_path: Path, v1_path: Path
) -> None:
    first = _fetch(server.url, tmp_path)
    first.path.write_bytes(v1_path.read_bytes())
    with pytest.raises(FetchError, match="differs from what was fetched first"):
        _fetch(server.url, tmp_path)
    with pytest.raises(FetchError, match="is not the file that was fetched"):
        load_codec(NAME, cache=tmp_path)


def test_a_damaged_record_is_refused(server: Server, tmp_path: Path) -> None:
    _fetch(server.url, tmp_path)
    (tmp_path / f"{NAME}.metagraph.sha256").write_text("")
    with pytest.raises(FetchError, match="holds no SHA-256: remove it"):
        _fetch(server.url, tmp_path)


def test_a_published_codec(published_path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    fetched = _fetch(published_path.parent.as_uri(), cache, published_path.stem)
    assert fetched.path.read_bytes() == published_path.read_bytes()
    assert sorted(p.suffix for p in cache.iterdir() if p.is_file()) == [".metagraph", ".sha256"]
    assert load_codec(fetched.name, cache=cache).info.sha256 == fetched.sha256


@pytest.mark.parametrize("in_cache", [False, True])
def test_a_published_name_is_for_the_published_codec(
    published_path: Path, v2_path: Path, tmp_path: Path, in_cache: bool
) -> None:
    mirror, cache = tmp_path / "mirror", tmp_path / "cache"
    mirror.mkdir()
    cache.mkdir()
    other = {
        "bmshj2018-hyperprior-msssim-4": (v2_path, "channels of y: expected 192, got 8;.*"),
        "bmshj2018-hyperprior-msssim-5": (
            published_path,
            "table of z: expected 128x41, got 128x40",
        ),
    }
    for name, (path, difference) in other.items():
        (mirror / f"{name}.metagraph").write_bytes(path.read_bytes())
        if in_cache:
            (cache / f"{name}.metagraph").write_bytes(path.read_bytes())
        expected = rf"{name}: it is not the published codec of this name \({difference}\). Put "
        with pytest.raises(FetchError, match=f"is refused: .* {expected}"):
            _fetch(mirror.as_uri(), cache, name)
        assert not list(cache.glob("*.sha256"))
        with pytest.raises(CodecGraphError, match=expected):
            load_codec(str(mirror / f"{name}.metagraph"), self_check=False)
    if not in_cache:
        _assert_nothing_kept(cache)


def test_what_has_a_published_name_is_tried(weights: by_hand.Weights, tmp_path: Path) -> None:
    name = "bmshj2018-hyperprior-mse-1"
    path = tmp_path / f"{name}.metagraph"
    path.write_bytes(graphs.build_v1(weights, factorized=True).SerializeToString())
    with pytest.raises(FetchError, match=f"is refused: .* {name}: no sigma_hat"):
        _fetch(tmp_path.as_uri(), tmp_path / "cache", name)
    _assert_nothing_kept(tmp_path / "cache")


def test_names(tmp_path: Path) -> None:
    with pytest.raises(CodecNotFoundError, match="'bls2017' is not a published scale hyperprior"):
        _fetch(None, tmp_path, "bls2017")
    with pytest.raises(CodecNotFoundError, match="is not a codec's name"):
        _fetch("file:///", tmp_path, "../etc/passwd")
    for name in shipped_codecs():
        with pytest.raises(CodecNotFoundError, match="there is nothing to fetch"):
            _fetch(None, tmp_path, name)
