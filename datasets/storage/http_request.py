"""HTTP requests for objects: bounded in every wait, and careful with what is no answer.

Nothing that a server does makes a request wait without end, or sends a token to another host than
it is for: redirects are followed here, one by one.
"""

import atexit
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING

from latentset.datasets.errors import MissingEnvironmentError, StoreUnreachableError
from latentset.datasets.storage.threads import LOOK_S, check_stop, pause

if TYPE_CHECKING:
    import httpx

STALL_S = 20.0
"""Seconds without a byte, or at less than ``LEAST_BYTES_S``, after which a request has failed."""

HEADERS_STALLS = 3
"""``STALL_S`` after which the headers must be there: of connecting, of waiting, of reading."""

LEAST_BYTES_S = 1024
"""Bytes a second below which a connection is as good as cut."""

RETRIES = 4
"""Failed requests after which an object is given up; counted anew after ``PROGRESS_BYTES``."""

PROGRESS_BYTES = 1 << 20

BACK_OFF_S = 0.5
"""Seconds before the first retry; twice as many before each later one."""

LONGEST_WAIT_S = 330.0
"""Seconds of waiting for one object, as servers ask for it (``Retry-After``); the Hub counts the
requests of 300 seconds."""

REDIRECTS = 5

_log = logging.getLogger(__name__)

_BUSY = (429, 500, 502, 503, 504)


class FailedRequest(Exception):  # noqa: N818 (the caller tries again)
    """A request failed in a way that may pass; ``wait_s`` is how long the server asks to wait."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Retries:
    """Waits between the requests for one object, until there were too many or too long ones."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.restart()

    def restart(self) -> None:
        """Count anew, after progress."""
        self._failures, self._waited_s = 0, 0.0

    def wait(self, failed: FailedRequest) -> None:
        """Wait before the next request; StoreUnreachableError if it is not worth it."""
        wait_s = BACK_OFF_S * 2**self._failures if failed.wait_s is None else failed.wait_s
        self._failures += 1
        self._waited_s += wait_s
        if self._failures > RETRIES or self._waited_s > LONGEST_WAIT_S:
            when = f" in {wait_s:.0f} s" if failed.wait_s else ""
            raise StoreUnreachableError(
                f"{self._target} cannot be read: {failed} (attempts: {self._failures}). Look at "
                f"the address and the network, then run the same command again{when}"
            ) from failed
        if failed.wait_s:
            _log.warning("%s: %s; waiting for %.0f s", self._target, failed, wait_s)
        pause(wait_s)


@contextmanager
def request(
    method: str,
    address: str,
    target: str,
    *,
    first: int = 0,
    token: str | None = None,
    refuse: Callable[["httpx.Response"], None] = lambda _: None,
) -> Iterator["httpx.Response"]:
    """Request an object from byte ``first`` on; the response has status 200 or 206.

    ``target`` names the object in messages. The token goes to the address's host alone. ``refuse``
    may word the refusals 401, 403 and 404 of a known service.

    Raises:
        FileNotFoundError: There is none.
        StoreUnreachableError: The server refuses, or does what no store's server should.
        FailedRequest: Something that may pass.
    """
    client = _client(target)
    import httpx

    try:
        url = httpx.URL(address)
        home = (url.scheme, url.host, url.port)
        for _ in range(REDIRECTS + 1):
            headers = {"Accept-Encoding": "identity"}
            if first:
                headers["Range"] = f"bytes={first}-"
            if token and (url.scheme, url.host, url.port) == home:
                headers["Authorization"] = f"Bearer {token}"
            response = _send(client, client.build_request(method, url, headers=headers))
            try:
                if response.next_request is not None:
                    url = response.next_request.url
                    _check_redirect(response.url, url, target)
                    continue
                if response.status_code in (401, 403, 404):
                    refuse(response)
                _check_status(response, target, first)
                yield response
                return
            finally:
                response.close()
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise StoreUnreachableError(f"{target}: {error}; look at the spelling") from error
    except (httpx.TransportError, httpx.StreamError) as error:
        raise FailedRequest(_describe(error)) from error
    raise StoreUnreachableError(
        f"{target}: the server redirects more than {REDIRECTS} times. Open the address in a "
        "browser, and name the one where the store is"
    )


def _send(client: "httpx.Client", request: "httpx.Request") -> "httpx.Response":
    """Send a request; FailedRequest where its headers do not end, though bytes of them come.

    httpx knows deadlines of single reads only, hence a thread.
    """
    answer: Future[httpx.Response] = Future()

    def send() -> None:
        try:
            answer.set_result(client.send(request, stream=True))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=send, name="http-request", daemon=True).start()
    longest_s = HEADERS_STALLS * STALL_S
    end = time.monotonic() + longest_s
    try:
        while not wait([answer], min(LOOK_S, longest_s)).done:
            check_stop()
            if time.monotonic() > end:
                raise FailedRequest(f"no whole answer in {longest_s:.0f} s")
    except BaseException:
        answer.add_done_callback(_close)
        raise
    return answer.result()


def _close(answer: "Future[httpx.Response]") -> None:
    """Close a response that came too late."""
    if answer.exception() is None:
        answer.result().close()


def _check_status(response: "httpx.Response", target: str, first: int) -> None:
    status = response.status_code
    if status in _BUSY:
        raise FailedRequest(f"the server answers {status_of(response)}", _asked_wait(response))
    if status in (404, 410):
        raise FileNotFoundError(2, "No such object", target)
    if status in (401, 403):
        raise StoreUnreachableError(
            f"{target} cannot be read: the server refuses it ({status_of(response)}). Make it "
            "readable for everybody, or download the store, and use the folder"
        )
    if status not in (200, 206) or (status == 206 and not _starts_at(response, first)):
        raise StoreUnreachableError(
            f"{target} cannot be read: expected the object, got {status_of(response)}. Look at "
            "the address"
        )
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise StoreUnreachableError(
            f"{target}: the server sends it in the encoding {encoding:.40}, though asked not "
            "to: switch compression off for the objects of stores"
        )


def _check_redirect(source: "httpx.URL", url: "httpx.URL", target: str) -> None:
    """Raise a StoreUnreachableError if a redirect leads out of the web, or out of https."""
    if url.scheme != "https" and (source.scheme, url.scheme) != ("http", "http"):
        raise StoreUnreachableError(
            f"{target}: the server redirects to {url.scheme}://{url.host}, which is not safe; "
            "expected https"
        )


def read_steadily(response: "httpx.Response") -> Iterator[bytes]:
    """The body's pieces; FailedRequest where they come too slowly to end some day."""
    start, received = time.monotonic(), 0
    for piece in response.iter_raw():
        check_stop()
        received += len(piece)
        now = time.monotonic()
        if now - start >= STALL_S:
            if received < LEAST_BYTES_S * (now - start):
                rate = received / (now - start)
                raise FailedRequest(f"the server sends {rate:.0f} bytes a second")
            start, received = now, 0
        yield piece


def _starts_at(response: "httpx.Response", first: int) -> bool:
    """Whether a part of an object is the part that was asked for."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
    return first > 0 and found is not None and int(found[1]) == first


def _asked_wait(response: "httpx.Response") -> float | None:
    """Seconds that a busy server asks to wait, in ``Retry-After`` or ``RateLimit``; None if not.

    Sources: RFC 9110, 10.2.3; draft-ietf-httpapi-ratelimit-headers, 4.1 (``"api";r=0;t=55``).
    """
    if found := re.search(r"\bt=(\d+)", response.headers.get("ratelimit", "")):
        return float(found[1])
    text = response.headers.get("retry-after", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def status_of(response: "httpx.Response") -> str:
    """Status code and reason, for messages."""
    return f"{response.status_code} {response.reason_phrase:.80}".strip()


def _describe(error: Exception) -> str:
    import httpx

    if isinstance(error, httpx.ReadTimeout):
        return f"the server sends nothing for {STALL_S:.0f} s"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        return f"the connection was cut ({error})"
    return str(error) or type(error).__name__


def _client(url: str) -> "httpx.Client":
    try:
        return _client_of(os.getpid(), STALL_S)
    except ImportError as error:
        raise MissingEnvironmentError(
            f"{url}: this environment cannot read from web servers ({error}): "
            "pip install '.[http]' in its clone"
        ) from error


@cache
def _client_of(process: int, timeout_s: float) -> "httpx.Client":
    """Make the client of a process; a connection cannot be shared with one that it has forked."""
    import httpx

    client = httpx.Client(timeout=timeout_s, follow_redirects=False)
    # A child must not end the connections that its parent uses.
    atexit.register(lambda: client.close() if os.getpid() == process else None)
    return client
