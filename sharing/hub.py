"""A data set's repository on the Hugging Face Hub, to which a store is published."""

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from latentset.datasets.errors import (
    MissingEnvironmentError,
    StoreError,
    StoreUnreachableError,
)
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.location import Folder, Web
from latentset.datasets.store.digests import StoredObject
from latentset.datasets.store.findings import Report
from latentset.sharing.location_target import altered, read_unaltered

if TYPE_CHECKING:
    from huggingface_hub import (
        CommitOperationAdd,
        CommitOperationDelete,
        DatasetInfo,
        HfApi,
        RepoFile,
        RepoFolder,
    )

FOLDER_ENTRIES, REPOSITORY_FILES, FILE_BYTES = 10_000, 100_000, 500 * 10**9
"""The Hub's limits. Source: https://huggingface.co/docs/hub/storage-limits."""

WINDOW_REQUESTS = 3_000
"""Files that anybody can fetch in five minutes, at least.
Source: https://huggingface.co/docs/hub/rate-limits."""

_COMMIT_OBJECTS, _COMMIT_BYTES = 100, 5 * 10**9
"""Of one commit, at most: the Hub advises fewer than 100 files, and a commit has a minute."""

_UPLOADS = 8
"""Objects that are uploaded at a time."""

_TRIES, _MAX_WAIT_S = 5, 600.0
"""How often a request is made that the Hub refuses for now, and how long it is waited for."""

_NAME = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)/?", re.ASCII)

T = TypeVar("T")


@dataclass
class HubTarget:
    """The branch ``main`` of a repository; it need not exist."""

    name: str
    """``ORG/NAME``."""
    public: bool = False
    """Of a new repository: everybody may read it."""
    gated: bool = False
    """Access is to be granted, by the terms of the card."""

    @classmethod
    def parse(cls, url: str, public: bool) -> "HubTarget":
        """Of ``hf://datasets/ORG/NAME``."""
        match = _NAME.fullmatch(url)
        if match is None:
            raise StoreError(
                f"{url}: expected hf://datasets/ORG/NAME to publish to, without a revision or a "
                "folder"
            )
        try:
            import huggingface_hub  # noqa: F401
        except ImportError as error:
            raise MissingEnvironmentError(
                f"{url}: this environment cannot reach the Hub ({error}): "
                "pip install '.[hub]' in its clone"
            ) from error
        return cls(match[1], public)

    _info: "DatasetInfo | None" = field(default=None, init=False)
    """As it was found; None where there is no repository."""
    _files: "dict[str, RepoFile]" = field(default_factory=dict, init=False)
    """What was found."""
    _head: str | None = field(default=None, init=False)
    """The commit of which this is, or the one that was made since."""

    def __str__(self) -> str:
        return f"hf://datasets/{self.name}"

    @property
    def address(self) -> str:
        """From where the store is pulled, with the last commit."""
        return f"{self}@{self._head}"

    @cached_property
    def _api(self) -> "HfApi":
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # there is one for all
        return HfApi(os.environ.get("HF_ENDPOINT"), library_name="latentset")

    def sizes(self) -> dict[str, int]:
        """Look at ``main``: bytes of every file, by path."""
        from huggingface_hub import RepoFile

        self._info, self._files = self._ask(self._look), {}
        if self._info is not None:
            self._head = self._info.sha
            tree = self._ask(self._list)
            self._files = {item.path: item for item in tree if isinstance(item, RepoFile)}
        return {path: file.size for path, file in self._files.items()}

    def check_login(self) -> None:
        """Raise a StoreError if nobody is logged in, or with a token that only reads."""
        found = self._ask(self._api.whoami)
        if found.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise StoreUnreachableError(
                f"{self}: your token only reads. Make one that writes "
                "(https://huggingface.co/settings/tokens), and log in with it: hf auth login"
            )

    def check_card(self, readme: Path) -> None:
        """Have the Hub check README.md, and gate the repository if it asks for that."""
        from huggingface_hub import get_session, get_token, metadata_load

        try:
            fields = metadata_load(readme)
        except ValueError as error:
            raise StoreError(f"{readme}: its front matter is not valid: {error}") from error
        with reading(readme):
            content = readme.read_text(encoding="utf-8")
        answer = self._ask(
            lambda: get_session().post(
                f"{self._api.endpoint}/api/validate-yaml",
                json={"repoType": "dataset", "content": content},
                headers={"Authorization": f"Bearer {get_token()}"},
            )
        )
        if errors := [item["message"] for item in answer.json().get("errors", [])]:
            raise StoreError(
                f"{self}: the Hub does not accept the card: {'; '.join(errors)[:300]}. Choose a "
                "licence of its list (--license), or one with a name (--license-name). Nothing was "
                "changed"
            )
        self.gated |= any(name.startswith("extra_gated") for name in fields or {})

    def _look(self) -> "DatasetInfo | None":
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return self._api.dataset_info(self.name)
        except RepositoryNotFoundError:
            return None

    def _list(self) -> "list[RepoFile | RepoFolder]":
        tree = self._api.list_repo_tree(
            self.name, recursive=True, revision=self._head, repo_type="dataset"
        )
        return list(tree)

    def missing(
        self, source: Folder, items: Sequence[StoredObject], report: Report
    ) -> Iterator[StoredObject]:
        """Objects that :meth:`sizes` did not find with this content."""
        for item in items:
            file = self._files.get(item.path)
            if file is None or file.size != item.bytes:
                yield item
            elif file.lfs is not None:
                if file.lfs.sha256 != item.sha256:
                    yield item
            elif file.blob_id != _git_id(read_unaltered(source, item)):
                yield item

    def prepare(self) -> None:
        """Create the repository unless there is one; gate it if its card asks for it."""
        if self._info is None:
            create = partial(self._api.create_repo, private=not self.public, exist_ok=True)
            self._ask(partial(create, self.name, repo_type="dataset"))
            self.sizes()
        if self.gated and self._info is not None and not self._info.gated:
            gate = partial(self._api.update_repo_settings, gated="auto", repo_type="dataset")
            self._ask(partial(gate, self.name))

    def put(
        self, source: Folder, items: Iterable[StoredObject], advance: Callable[[int], None]
    ) -> None:
        """Upload objects, in commits of bounded size; each follows the one that was seen last."""
        for batch in _batches(items):
            operations = [self._operation(source, item) for item in batch]
            for first in range(0, len(batch), _UPLOADS):
                self._ask(partial(self._upload, operations[first : first + _UPLOADS]))
                advance(sum(item.bytes for item in batch[first : first + _UPLOADS]))
            self._head = self._ask(partial(self._commit, operations, _title(batch)))

    def _upload(self, operations: "list[CommitOperationAdd]") -> None:
        self._api.preupload_lfs_files(
            self.name, operations, repo_type="dataset", num_threads=_UPLOADS, free_memory=False
        )

    def _commit(
        self, operations: "Sequence[CommitOperationAdd | CommitOperationDelete]", title: str
    ) -> str:
        made = self._api.create_commit(
            self.name,
            operations,
            commit_message=f"latentset: {title}",
            repo_type="dataset",
            parent_commit=self._head,
        )
        return made.oid

    def _operation(self, source: Folder, item: StoredObject) -> "CommitOperationAdd":
        from huggingface_hub import CommitOperationAdd

        path = source.path / item.path
        if not path.is_file():
            raise altered(source, item)
        with reading(path):
            operation = CommitOperationAdd(item.path, path)
            digest = operation.upload_info.sha256.hex()
        if digest != item.sha256:
            raise altered(source, item)
        return operation

    def read(self, path: str) -> bytes:
        """Read a file that is there."""
        return Web(f"hf://datasets/{self.name}@{self._head}").read(path, 1 << 20)

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files, in a commit of their own."""
        from huggingface_hub import CommitOperationDelete

        if paths:
            operations = [CommitOperationDelete(path) for path in paths]
            self._head = self._ask(partial(self._commit, operations, f"without {paths[0]}"))

    def removal(self, path: str) -> str:
        """The command that removes a file."""
        return f"hf repos delete-files {self.name} {path} --type dataset"

    def check_limits(self, items: Sequence[StoredObject], source: Folder) -> None:
        """Raise a StoreError if the Hub does not take so many or so large objects."""
        folder, entries = _largest_folder(items)
        largest = max(items, key=lambda item: item.bytes)
        problem = None
        if entries > FOLDER_ENTRIES:
            problem = f"{folder} has {entries:,} entries: a folder may have {FOLDER_ENTRIES:,}"
        elif len(items) > REPOSITORY_FILES:
            problem = f"{len(items):,} files: a repository may have {REPOSITORY_FILES:,}"
        if problem is not None:
            raise StoreError(
                f"{source} does not fit on the Hub: {problem}. Larger shards make fewer files: "
                f"latentset convert {source} BIGGER --shard-bytes 256MiB"
            )
        if largest.bytes > FILE_BYTES:
            raise StoreError(
                f"{source} does not fit on the Hub: {largest.path} has {largest.bytes:,} bytes, "
                f"and a file may have {FILE_BYTES:,}. Smaller shards make smaller files: "
                f"latentset convert {source} SMALLER --shard-bytes 256MiB"
            )

    def describe(self, items: Sequence[StoredObject]) -> Iterator[tuple[str, str]]:
        """What the Hub adds to a plan."""
        folder, entries = _largest_folder(items)
        name = folder or "the top"
        yield "largest folder", f"{name}, {entries:,} entries (at most {FOLDER_ENTRIES:,})"
        yield "files", f"{len(items):,} (at most {REPOSITORY_FILES:,})"
        slow = "" if len(items) <= WINDOW_REQUESTS else "; larger shards make fewer"
        limit = f"the Hub answers {WINDOW_REQUESTS:,} in five minutes, or more"
        yield "a pull", f"{len(items):,} requests ({limit}{slow})"
        private, gated = not self.public, self.gated
        if self._info is not None:
            private, gated = bool(self._info.private), self.gated or bool(self._info.gated)
        kind = "there already" if self._info is not None else "new"
        access = ("private" if private else "public") + (", gated" if gated else "")
        yield "repository", f"{kind}, {access}"

    def _ask(self, call: Callable[[], T]) -> T:
        """Make a request; wait and repeat it where the Hub asks for it, else word its error."""
        attempt = 1
        while True:
            try:
                return call()
            except Exception as error:
                cause: BaseException = error
                while isinstance(cause, RuntimeError) and cause.__cause__ is not None:
                    cause = cause.__cause__  # an upload's, from its thread
                wait = _wait_s(cause)
                if wait is None or wait > _MAX_WAIT_S or attempt == _TRIES:
                    raise self._refusal(cause, wait) from error
            attempt += 1
            time.sleep(wait)

    def _refusal(self, error: BaseException, wait: float | None) -> StoreError:
        resumes = "then run the same command again: it resumes"
        match _status(error):
            case 401:
                advice = (
                    f"the Hub does not know you. Log in (hf auth login) or set HF_TOKEN, {resumes}"
                )
            case 403:
                advice = (
                    "your token may not do this. Look at the name, and at what your token may "
                    f"write (https://huggingface.co/settings/tokens), {resumes}"
                )
            case 404:
                advice = f"it is not there, or not for you. Look at the name, {resumes}"
            case 412:
                advice = f"somebody else changed the repository at the same time. Wait, {resumes}"
            case 429:
                minutes = f"about {wait / 60:.0f} minutes" if wait else "some minutes"
                advice = f"the Hub has had too many requests. Wait {minutes}, {resumes}"
            case _:
                advice = f"Look at the network and the name, {resumes}"
        reason = getattr(error, "server_message", None) or str(error) or type(error).__name__
        text = " ".join(reason.split())[:300]
        return StoreUnreachableError(f"{self}: {advice} ({text})")


def _status(error: BaseException) -> int | None:
    from huggingface_hub.errors import LocalTokenNotFoundError

    if isinstance(error, LocalTokenNotFoundError):
        return 401
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _wait_s(error: BaseException) -> float | None:
    """How long to wait before a request is repeated; None for one that is not."""
    if _status(error) not in (429, 502, 503, 504):
        return None
    headers = getattr(error, "response").headers  # noqa: B009 (of httpx or httpx2)
    reset = re.search(r";\s*t\s*=\s*(\d{1,9})", headers.get("RateLimit", ""))
    after = re.fullmatch(r"\s*(\d{1,9})\s*", headers.get("Retry-After", ""))
    found = reset or after
    return float(found[1]) + 1 if found else 5.0


def _git_id(content: bytes) -> str:
    """Git's id of a file that is no large one."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _batches(items: Iterable[StoredObject]) -> Iterator[list[StoredObject]]:
    batch: list[StoredObject] = []
    for item in items:
        full = sum(other.bytes for other in batch) + item.bytes > _COMMIT_BYTES
        if batch and (full or len(batch) == _COMMIT_OBJECTS):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _title(batch: list[StoredObject]) -> str:
    return batch[0].path if len(batch) == 1 else f"{len(batch)} objects from {batch[0].path}"


def _largest_folder(items: Sequence[StoredObject]) -> tuple[str, int]:
    """The folder with most entries, files and folders, and how many it has."""
    paths = {item.path for item in items}
    for item in items:
        paths.update(str(folder) for folder in PurePosixPath(item.path).parents)
    counts = Counter(path.rpartition("/")[0] for path in paths - {"."})
    return max(counts.items(), key=lambda entry: (entry[1], entry[0]))
