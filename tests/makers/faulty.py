"""HTTP on loopback that goes wrong where a test wants it to."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """What happens to some requests instead of what should."""

    match: str
    """Part of ``"METHOD /path?query"``."""
    port: str = "api"
    answer: Answer | None = None
    """Sent in place of the right one."""
    cut: int | None = None
    """Bytes of the body (of a PUT's; else of the answer's) after which the connection ends."""
    flip: int | None = None
    """Byte of the body that is another one than it should be."""
    lost: bool = False
    """The request is carried out, and the connection ends before the answer."""
    after: int = 0
    """Matching requests that are let through first."""
    times: int = 1
    """Requests that it happens to."""


@dataclass(frozen=True)
class Request:
    """A request that came; for tests to look at."""

    port: str
    method: str
    path: str
    """With the query."""
    headers: dict[str, str]


@dataclass
class FaultyServer:
    """One server with several ports, each with a name; every request and fault is noted here."""

    delay_s: float = 0.0
    """How long every request takes."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)
    """Address of each port."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request, body: bytes) -> Answer:
        """The right answer to a request; called one at a time."""
        raise NotImplementedError

    def take_fault(self, request: Request) -> Fault | None:
        """The fault that happens to a request, if any."""
        for fault in self.faults:
            if fault.port == request.port and fault.match in f"{request.method} {request.path}":
                if fault.after > 0:
                    fault.after -= 1
                elif fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    @contextmanager
    def serve(self, *ports: str) -> Iterator[None]:
        """Listen on loopback, on one host and port for each name."""
        servers = []
        for number, port in enumerate(ports, 1):
            host = f"127.0.0.{number}"
            server = _Server((host, 0), _handler(self, port))
            self.urls[port] = f"http://{host}:{server.server_port}"
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            servers.append(server)
        yield
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing of a client that was killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(owner: FaultyServer, port: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet

        def _serve(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(port, self.command, self.path, headers)
            with owner.lock:
                owner.requests.append(request)
                fault = owner.take_fault(request) or Fault("")
            if owner.delay_s:
                time.sleep(owner.delay_s)
            if fault.cut is not None and self.command == "PUT":
                self.rfile.read(fault.cut)
                self.close_connection = True
                return
            body = self._body()
            answer = fault.answer
            if answer is None:
                with owner.lock:
                    answer = _part(owner.answer(request, body), headers.get("range"))
            if fault.lost:
                self.close_connection = True
                return
            self._send(answer, fault)

        do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815 (the base class's names)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if len(body) < int(self.headers.get("Content-Length", 0)):
                    raise ConnectionAbortedError("the client is gone")
                return body
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def _send(self, answer: Answer, fault: Fault) -> None:
            body = bytearray(answer.body)
            if fault.flip is not None:
                body[fault.flip] ^= 1
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: fault.cut])
            self.close_connection = self.close_connection or fault.cut is not None

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    return Handler


def _part(answer: Answer, wanted: str | None) -> Answer:
    """What a ``Range`` asks for."""
    if answer.status != 200 or not wanted or "Accept-Ranges" not in answer.headers:
        return answer
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    size = len(answer.body)
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if start > end:
        return Answer(416, b"", {"Content-Range": f"bytes */{size}"})
    headers = answer.headers | {"Content-Range": f"bytes {start}-{end}/{size}"}
    return Answer(206, answer.body[start : end + 1], headers)
