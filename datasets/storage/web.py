# ruff: noqa: D102 (Folder documents the methods)
"""A web server, or a data set of the Hugging Face Hub, as a location that is only read from."""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from latentset.datasets.errors import (
    MissingEnvironmentError,
    StoreCorruptError,
    StoreError,
    StoreUnreachableError,
)
from latentset.datasets.storage.http_request import (
    PROGRESS_BYTES,
    FailedRequest,
    Retries,
    read_steadily,
    request,
    status_of,
)

if TYPE_CHECKING:
    import httpx

READ_BYTES = 64 << 20
"""Bytes that ``read`` takes at most: objects of metadata. A shard is streamed."""

_HUB = re.compile(
    r"hf://datasets/(?P<repository>[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>refs/pr/\d+|[^/@]+))?(?:/(?P<folder>[^@]+))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Web:
    """What is below an address of a web server, or in a data set of the Hub.

    The Hub's address is ``HF_ENDPOINT``; its token is the one that huggingface_hub keeps, and goes
    to that host alone.
    """

    url: str
    """``http(s)://HOST/…`` or ``hf://datasets/ORG/NAME[@REVISION][/FOLDER]``, without a slash at
    its end."""

    def __post_init__(self) -> None:
        if self.is_hub:
            self._parts()
        elif found := re.search(r"[?#]|//[^/]*@", self.url):
            shown = self.url.partition("//")[0] + "//…" if "@" in found[0] else self.url
            raise StoreError(
                f"{shown}: expected the address of a folder, without a query, a fragment or a "
                "password: objects are read below it, and an address is logged"
            )

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def __truediv__(self, name: str) -> "Web":
        return Web(f"{self.url}/{name}")

    def beside(self, suffix: str) -> "Web":
        return Web(self.url + suffix)

    @property
    def is_hub(self) -> bool:
        """Whether it is a data set of the Hub."""
        return self.url.startswith("hf:")

    @property
    def is_commit(self) -> bool:
        """Whether it is a commit of a data set of the Hub, which never changes."""
        return self.is_hub and re.fullmatch("[0-9a-f]{40}", self._parts()[1]) is not None

    def read(self, path: str, limit: int = READ_BYTES) -> bytes:
        """As Folder; nothing beyond ``limit`` is received."""
        pieces, size = [], 0
        for piece in self.stream(path):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise StoreCorruptError(f"{self}/{path}: expected at most {limit} bytes, got more")
        return b"".join(pieces)

    def stream(self, path: str) -> Iterator[bytes]:
        """As Folder; a connection that is cut is resumed, by ``Range`` where the server has it."""
        done, counted_from, retries = 0, 0, Retries(f"{self}/{path}")
        while True:
            try:
                with self._request("GET", path, done) as response:
                    start = 0 if response.status_code == 200 else done
                    for piece in read_steadily(response):
                        new = piece[max(done - start, 0) :]
                        start += len(piece)
                        if new:
                            done += len(new)
                            yield new
                return
            except FailedRequest as failed:
                if done - counted_from >= PROGRESS_BYTES:
                    counted_from = done
                    retries.restart()
                retries.wait(failed)

    def size(self, path: str) -> int | None:
        retries = Retries(f"{self}/{path}")
        while True:
            try:
                with self._request("HEAD", path) as response:
                    length = response.headers.get("content-length", "")
                break
            except FileNotFoundError:
                return None
            except FailedRequest as failed:
                retries.wait(failed)
        if not length.isdecimal():
            raise StoreUnreachableError(f"{self}/{path}: the server names no Content-Length")
        return int(length)

    def sizes(self) -> dict[str, int] | None:
        """As Folder; None for a web server, which cannot list what it holds."""
        if not self.is_hub:
            return None
        hub = _huggingface_hub(self.url)
        repository, revision, folder = self._parts()
        api = hub.HfApi(endpoint=_endpoint())
        try:
            found = list(
                api.list_repo_tree(
                    repository, folder, recursive=True, revision=revision, repo_type="dataset"
                )
            )
        except hub.errors.EntryNotFoundError:
            return {}
        except Exception as error:  # of the client below, which has changed once
            raise StoreUnreachableError(
                f"{self} cannot be listed: {type(error).__name__}: {error}. Look at the network, "
                "then run the same command again"
            ) from error
        prefix = f"{folder}/" if folder else ""
        return {
            item.path.removeprefix(prefix): item.size
            for item in found
            if isinstance(item, hub.hf_api.RepoFile)
        }

    def write(self, path: str, content: bytes) -> None:
        raise self._is_read_only("write", path)

    def create(self, path: str, content: bytes) -> bool:
        raise self._is_read_only("write", path)

    def remove(self, path: str) -> None:
        raise self._is_read_only("remove", path)

    def sweep(self) -> None:
        """Nothing is left behind, as nothing is written."""

    def _is_read_only(self, what: str, path: str) -> StoreError:
        if self.is_hub:
            return StoreError(
                f"cannot {what} {self}/{path}: a store on the Hub is only read from; write it to a "
                "folder, then latentset publish"
            )
        return StoreError(
            f"cannot {what} {self}/{path}: a web server is only read from; "
            "name a folder, s3://… or gs://…"
        )

    def _parts(self) -> tuple[str, str, str]:
        """Repository, revision and folder of the Hub's URL."""
        found = _HUB.fullmatch(self.url)
        if found is None:
            raise StoreError(
                f"{self.url}: expected hf://datasets/ORG/NAME, hf://datasets/ORG/NAME@REVISION "
                "or hf://datasets/ORG/NAME/FOLDER"
            )
        revision = unquote(found["revision"] or "main")  # a branch with a slash: feature%2Fx
        return found["repository"], revision, found["folder"] or ""

    def _request(
        self, method: str, path: str, first: int = 0
    ) -> AbstractContextManager["httpx.Response"]:
        target = f"{self}/{path}"
        if not self.is_hub:
            return request(method, f"{self.url}/{quote(path)}", target, first=first)
        repository, revision, folder = self._parts()
        resolve = f"{_endpoint()}/datasets/{repository}/resolve/{quote(revision, safe='')}"
        address = f"{resolve}/{quote(f'{folder}/{path}' if folder else path)}"
        token = _huggingface_hub(self.url).get_token()
        refuse = self._refuse
        return request(method, address, target, first=first, token=token, refuse=refuse)

    def _refuse(self, response: "httpx.Response") -> None:
        """Word what the Hub refuses; return where only the object is missing."""
        code, (repository, revision, _) = response.headers.get("x-error-code", ""), self._parts()
        page = f"{_endpoint()}/datasets/{repository}"
        if response.headers.get("x-error-message", "").startswith("Invalid credentials"):
            raise StoreUnreachableError(
                f"{self}: the Hub does not know the token of this machine: log in again with: "
                "hf auth login, and look at HF_TOKEN"
            )
        if code == "GatedRepo":
            raise StoreUnreachableError(
                f"{self}: access to this data set is granted on request. Accept its terms at "
                f"{page}, log in with: hf auth login, then run the same command again"
            )
        if code == "RevisionNotFound":
            raise StoreUnreachableError(
                f"{self}: the data set has no revision {revision!r}. Look at the spelling; "
                f"{page}/commits/main lists them"
            )
        if code == "RepoNotFound" or response.status_code == 401:
            raise StoreUnreachableError(
                f"{self}: there is no data set {repository}, or it is private. Look at the "
                "spelling; for a private one log in with: hf auth login"
            )
        if response.status_code == 403:
            raise StoreUnreachableError(
                f"{self} cannot be read: the Hub refuses it ({status_of(response)}). Look at "
                f"{page}, and at the rights of your token (hf auth whoami)"
            )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _huggingface_hub(url: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingEnvironmentError(
            f"{url}: this environment cannot reach the Hub ({error}): "
            "pip install '.[hub]' in its clone"
        ) from error
    return huggingface_hub
