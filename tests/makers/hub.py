"""A Hugging Face Hub on loopback, with which the real huggingface_hub client works unchanged.

Three ports, as the Hub has three hosts: the API (``HF_ENDPOINT``), the storage to which large
files are uploaded, and the CDN to which ``resolve`` redirects. Storage and CDN refuse an
``Authorization`` header, as signed URLs do. Xet is not served: set ``HF_HUB_DISABLE_XET=1``.

Endpoints, headers and error codes: huggingface_hub 2.4 (``hf_api.py``, ``_commit_api.py``,
``lfs.py``, ``utils/_http.py``); 1.x sends the same, apart from ``private`` for ``visibility``.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from tests.makers.faulty import Answer, FaultyServer, Request
from tests.makers.repository import LFS_BYTES, File, Repository, Tree, is_large

TOKEN, READ_TOKEN, STRANGER = "hf_tokenOfTheOwner", "hf_tokenThatOnlyReads", "hf_tokenOfAnother"
"""Tokens of the user ``owner`` (member of the organisation ``org``), and of the user ``other``."""
USERS = {TOKEN: ("owner", "org"), READ_TOKEN: ("owner", "org"), STRANGER: ("other",)}

FOLDER_ENTRIES = 10_000


def answer_json(value: object, status: int = 200, **headers: str) -> Answer:
    return Answer(
        status, json.dumps(value).encode(), {"Content-Type": "application/json"} | headers
    )


def refusal(status: int, message: str, code: str = "") -> Answer:
    """An error as the Hub words it: for people in ``X-Error-Message``, for programs in the code."""
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Answer(status, json.dumps({"error": message}).encode(), headers)


def rate_limited(seconds: int) -> Answer:
    """429 with both kinds of headers."""
    return Answer(
        429,
        b"",
        {
            "RateLimit": f'"api";r=0;t={seconds}',
            "RateLimit-Policy": '"fixed window";"api";q=500;w=300',
            "Retry-After": str(seconds),
        },
    )


INVALID_TOKEN = refusal(401, "Invalid credentials in Authorization header")


@dataclass
class FakeHub(FaultyServer):
    """The Hub; its ports are ``api``, ``upload`` and ``cdn``."""

    page: int = 1000
    """Entries in one page of a listing."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Uploaded large files by digest."""

    @property
    def url(self) -> str:
        """What ``HF_ENDPOINT`` is set to."""
        return self.urls["api"]

    def add(self, name: str, files: dict[str, bytes], *, private: bool = False) -> Repository:
        """Make a repository that has ``files`` in one commit after its first."""
        repository = Repository(name, private)
        attributes = {".gitattributes": File(b"*.parquet filter=lfs\n", False)}
        self.repositories[name] = repository
        repository.commit("initial commit", attributes)
        if files:
            added = {path: File(content, is_large(content)) for path, content in files.items()}
            repository.commit("files", attributes | added)
        return repository

    def answer(self, request: Request, body: bytes) -> Answer:
        """The right answer to a request."""
        path, _, query = request.path.partition("?")
        if request.port != "api":
            if "authorization" in request.headers:
                return Answer(400, b"Only one auth mechanism allowed")
            return self._upload(path, body) if request.method == "PUT" else self._download(path)
        user, refused = self._user(request)
        if refused is not None:
            return refused
        match path.strip("/").split("/"):
            case ["api", "whoami-v2"]:
                return self._whoami(request, user)
            case ["api", "validate-yaml"]:
                return answer_json({"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                return self._create(request, user, json.loads(body))
            case ["api", "datasets", owner, name, *rest]:
                return self._dataset(request, user, f"{owner}/{name}", rest, query, body)
            case ["datasets", owner, name, "info", "lfs", *rest] if name.endswith(".git"):
                name = f"{owner}/{name.removesuffix('.git')}"
                return self._large_files(request, user, name, rest, body)
            case ["datasets", owner, name, "resolve", revision, *names]:
                return self._resolve(user, f"{owner}/{name}", unquote(revision), names)
            case _:
                return refusal(404, f"the fake hub does not serve {request.path}")

    def _user(self, request: Request) -> tuple[tuple[str, ...], Answer | None]:
        """The namespaces of whoever asks; none for nobody."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in USERS:
            return (), INVALID_TOKEN
        return USERS.get(token, ()), None

    def _whoami(self, request: Request, user: tuple[str, ...]) -> Answer:
        if not user:
            return refusal(401, "Invalid username or password.")
        role = "read" if self._only_reads(request) else "write"
        access = {"accessToken": {"displayName": "test", "role": role}}
        orgs = [{"name": name} for name in user[1:]]
        return answer_json({"type": "user", "name": user[0], "orgs": orgs, "auth": access})

    def _only_reads(self, request: Request) -> bool:
        return READ_TOKEN in request.headers.get("authorization", "")

    def _create(self, request: Request, user: tuple[str, ...], body: dict[str, Any]) -> Answer:
        owner = body.get("organization") or (user[0] if user else "")
        name = f"{owner}/{body['name']}"
        if not user:
            return refusal(401, "Invalid username or password.")
        if owner not in user or self._only_reads(request):
            text = f'You don\'t have the rights to create a dataset under the namespace "{owner}"'
            return refusal(403, text)
        url = f"{self.url}/datasets/{name}"
        if name in self.repositories:
            error = "You already created this dataset repo"
            return answer_json({"error": error, "url": url}, 409)
        private = body.get("visibility") == "private" or body.get("private") is True
        self.add(name, {}, private=private)
        return answer_json({"url": url, "name": name})

    def _find(self, user: tuple[str, ...], name: str) -> Repository | Answer:
        repository = self.repositories.get(name)
        allowed = repository is not None and (
            not repository.private or name.partition("/")[0] in user
        )
        if repository is not None and allowed:
            return repository
        if not user:
            return refusal(401, "Invalid username or password.", "RepoNotFound")
        return refusal(404, "Repository not found", "RepoNotFound")

    def _may_write(self, request: Request, user: tuple[str, ...], name: str) -> Answer | None:
        if not user:
            return refusal(401, "Invalid username or password.")
        if name.partition("/")[0] not in user or self._only_reads(request):
            return refusal(403, "you must use a write token to upload to a repository")
        return None

    def _dataset(
        self,
        request: Request,
        user: tuple[str, ...],
        name: str,
        rest: list[str],
        query: str,
        body: bytes,
    ) -> Answer:
        repository = self._find(user, name)
        if isinstance(repository, Answer):
            return repository
        if request.method in ("POST", "PUT") and (no := self._may_write(request, user, name)):
            return no
        if rest == ["settings"]:
            wanted = json.loads(body)
            repository.gated = wanted.get("gated", repository.gated)
            visibility = "private" if repository.private else "public"
            repository.private = wanted.get("visibility", visibility) == "private"
            return answer_json({})
        revision = unquote(rest[1]) if len(rest) > 1 else "main"
        commit = repository.at(revision)
        if commit is None:
            return refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        match rest:
            case [] | ["revision", _]:
                siblings = [{"rfilename": path} for path in sorted(commit.tree)]
                found = {"id": name, "sha": commit.sha, "private": repository.private}
                return answer_json(found | {"gated": repository.gated, "siblings": siblings})
            case ["tree", _, *names]:
                return self._list(request, commit.tree, unquote("/".join(names)), parse_qs(query))
            case ["preupload", _]:
                return self._modes(commit.tree, json.loads(body))
            case ["commit", _]:
                return self._commit(repository, body)
            case _:
                return refusal(404, f"the fake hub does not serve {request.path}")

    def _list(
        self, request: Request, tree: Tree, folder: str, query: dict[str, list[str]]
    ) -> Answer:
        below = f"{folder}/" if folder else ""
        recursive = query.get("recursive", [""])[0].lower() in ("true", "1")
        entries: dict[str, dict[str, Any]] = {}
        for path, file in tree.items():
            if not path.startswith(below):
                continue
            parts = path.removeprefix(below).split("/")
            for k in range(1, len(parts)):
                parent = below + "/".join(parts[:k])
                digest = hashlib.sha1(parent.encode()).hexdigest()
                entries[parent] = {"type": "directory", "oid": digest, "size": 0, "path": parent}
            entries[path] = file.entry(path)
        if folder and not entries:
            return refusal(404, f"{folder} does not exist", "EntryNotFound")
        names = [name for name in sorted(entries) if recursive or "/" not in name[len(below) :]]
        start = int(query.get("cursor", ["0"])[0])
        page = [entries[name] for name in names[start : start + self.page]]
        headers = {}
        if start + self.page < len(names):
            path = request.path.partition("?")[0]
            following = f"recursive={recursive}&cursor={start + self.page}"
            headers["Link"] = f'<{self.url}{path}?{following}>; rel="next"'
        return answer_json(page, 200, **headers)

    def _modes(self, tree: Tree, body: dict[str, Any]) -> Answer:
        files = []
        for item in body["files"]:
            large = item["size"] >= LFS_BYTES or is_large(base64.b64decode(item["sample"]))
            there = tree.get(item["path"])
            oid = None if there is None else there.sha256 if there.lfs else there.blob_id
            mode = "lfs" if large else "regular"
            name = item["path"]
            files.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return answer_json({"files": files})

    def _commit(self, repository: Repository, body: bytes) -> Answer:
        tree, title = dict(repository.commits[-1].tree), ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    title = value["summary"]
                    if value.get("parentCommit", repository.commits[-1].sha) != (
                        repository.commits[-1].sha
                    ):
                        return refusal(412, "A commit has happened since. Please refresh.")
                case "file":
                    tree[value["path"]] = File(base64.b64decode(value["content"]), False)
                case "lfsFile":
                    content = self.stored.get(value["oid"])
                    if content is None:
                        return refusal(400, f"LFS object {value['oid']} was not uploaded")
                    tree[value["path"]] = File(content, True)
                case "deletedFile":
                    del tree[value["path"]]
                case other:
                    return refusal(400, f"the fake hub does not know {other}")
        folders: dict[str, set[str]] = {}
        for path in tree:
            parts = path.split("/")
            for k in range(len(parts)):
                folders.setdefault("/".join(parts[:k]), set()).add(parts[k])
        if any(len(entries) > FOLDER_ENTRIES for entries in folders.values()):
            return refusal(400, "a folder can contain at most 10,000 entries")
        made = repository.commit(title, tree)
        url = f"{self.url}/datasets/{repository.name}/commit/{made.sha}"
        return answer_json({"success": True, "commitOid": made.sha, "commitUrl": url})

    def _large_files(
        self, request: Request, user: tuple[str, ...], name: str, rest: list[str], body: bytes
    ) -> Answer:
        repository = self._find(user, name)
        if isinstance(repository, Answer):
            return repository
        if (no := self._may_write(request, user, name)) is not None:
            return no
        asked = json.loads(body)
        if rest == ["verify"]:
            return answer_json({}, 200 if asked["oid"] in self.stored else 404)
        verify = {"href": f"{self.url}/datasets/{name}.git/info/lfs/verify"}
        objects = []
        for item in asked["objects"]:
            if item["oid"] not in self.stored:
                upload = {"href": f"{self.urls['upload']}/{item['oid']}?signature=x"}
                item = item | {"actions": {"upload": upload, "verify": verify}}
            objects.append(item)
        return answer_json({"transfer": "basic", "objects": objects})

    def _upload(self, path: str, body: bytes) -> Answer:
        digest = path.strip("/")
        if hashlib.sha256(body).hexdigest() != digest:
            return Answer(400, b"BadDigest")
        self.stored[digest] = body
        return Answer()

    def _resolve(self, user: tuple[str, ...], name: str, revision: str, names: list[str]) -> Answer:
        repository = self._find(user, name)
        if isinstance(repository, Answer):
            return repository
        may_read = {name.partition("/")[0], *repository.members}
        if repository.gated and not may_read.intersection(user):
            page = f"{self.url}/datasets/{name}"
            text = f"Access to dataset {name} is restricted. Visit {page} to ask for access."
            return refusal(403 if user else 401, text, "GatedRepo")
        commit = repository.at(revision)
        if commit is None:
            return refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        file = commit.tree.get(unquote("/".join(names)))
        if file is None:
            return refusal(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if not file.lfs:
            return Answer(200, file.content, headers | {"ETag": f'"{file.blob_id}"'})
        self.stored.setdefault(file.sha256, file.content)
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        target = f"{self.urls['cdn']}/{quote(name)}/{file.sha256}?signature=x"
        return Answer(302, b"", headers | {"Location": target})

    def _download(self, path: str) -> Answer:
        digest = path.rpartition("/")[2]
        if digest not in self.stored:
            return Answer(403, b"expired")
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        return Answer(200, self.stored[digest], headers)


@contextmanager
def serve_hub() -> Iterator[FakeHub]:
    """Serve a Hub without repositories."""
    hub = FakeHub()
    with hub.serve("api", "upload", "cdn"):
        yield hub
