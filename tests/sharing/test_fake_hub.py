"""The fake Hub against the real client: what both agree on is what the other tests rely on."""

import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.makers.faulty import Fault, Request
from tests.makers.hub import (
    INVALID_TOKEN,
    READ_TOKEN,
    STRANGER,
    TOKEN,
    FakeHub,
    rate_limited,
)

NAME = "org/set"
FILES = {"zarr.json": b"{}", "c/0/0": b"\0" * 3000, "c/1/0": b"\xff" * 100, "c/2": b"text"}


def publish(api: HfApi) -> str:
    api.create_repo(NAME, repo_type="dataset", private=True, exist_ok=True)
    operations = [CommitOperationAdd(path, content) for path, content in FILES.items()]
    made = api.create_commit(NAME, operations, commit_message="files", repo_type="dataset")
    return str(made.oid)


def test_a_commit_holds_the_files_and_nothing_changes_if_it_is_repeated(hub: FakeHub) -> None:
    api = HfApi(hub.url)
    assert api.whoami()["name"] == "owner"
    sha = publish(api)
    repository = hub.repositories[NAME]
    assert repository.private
    assert repository.files == FILES | {".gitattributes": b"*.parquet filter=lfs\n"}
    assert api.dataset_info(NAME).sha == sha == repository.commits[-1].sha
    assert publish(api) == sha
    assert len(repository.commits) == 2


def test_a_listing_comes_in_pages_with_digests(hub: FakeHub) -> None:
    api = HfApi(hub.url)
    publish(api)
    hub.page = 2
    found: list[Any] = list(api.list_repo_tree(NAME, repo_type="dataset", recursive=True))
    files = {item.path: item for item in found if hasattr(item, "blob_id")}
    assert set(files) == {*FILES, ".gitattributes"}
    assert {item.path for item in found} - set(files) == {"c", "c/0", "c/1"}
    # Literals from git hash-object and sha256sum.
    assert files["c/2"].blob_id == "f3a34851d44d6b97c90fbb99dd3d18c261b9a237"
    assert files["c/2"].lfs is None
    assert files["c/0/0"].lfs.sha256.startswith("c81ca5ed")
    assert sum("/tree/" in request.path for request in hub.requests) == 4


def test_a_download_follows_the_redirect_without_the_token(hub: FakeHub, tmp_path: Path) -> None:
    sha = publish(HfApi(hub.url))
    for path, content in FILES.items():
        got = hf_hub_download(
            NAME, path, repo_type="dataset", revision=sha, local_dir=tmp_path, endpoint=hub.url
        )
        assert Path(got).read_bytes() == content
    at = {port: [r for r in hub.requests if r.port == port] for port in hub.urls}
    assert len(at["cdn"]) == 2
    assert not any(TOKEN in str(r.headers) for r in at["cdn"] + at["upload"])
    assert all(r.headers["authorization"] == f"Bearer {TOKEN}" for r in at["api"])


def test_refusals_are_the_errors_that_the_client_knows(hub: FakeHub) -> None:
    sha = publish(HfApi(hub.url))
    anyone, stranger = HfApi(hub.url, token=False), HfApi(hub.url, token=STRANGER)
    for api in (anyone, stranger):
        with pytest.raises(RepositoryNotFoundError):
            api.dataset_info(NAME)
    with pytest.raises(RevisionNotFoundError):
        HfApi(hub.url).dataset_info(NAME, revision="v9")
    with pytest.raises(HfHubHTTPError, match="403 Forbidden: You don't have the rights"):
        stranger.create_repo(NAME, repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="write token"):
        HfApi(hub.url, token=READ_TOKEN).create_commit(
            NAME, [CommitOperationAdd("a", b"a")], commit_message="x", repo_type="dataset"
        )
    HfApi(hub.url).update_repo_settings(
        NAME, gated="auto", visibility="public", repo_type="dataset"
    )
    assert hub.repositories[NAME].gated == "auto"
    with pytest.raises(GatedRepoError):
        hf_hub_download(NAME, "c/2", repo_type="dataset", token=STRANGER, endpoint=hub.url)
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(NAME, "no", repo_type="dataset", revision=sha, endpoint=hub.url)


def test_faults_happen_as_often_as_they_should(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.faults += [
        Fault("POST /api/datasets/org/set/preupload", answer=rate_limited(7)),
        Fault("PUT", port="upload", cut=10),
        Fault("GET /api/whoami-v2", answer=INVALID_TOKEN),
        Fault("GET /api/datasets/org/set", lost=True, after=1),
    ]
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(hub.url).whoami()
    sha = publish(HfApi(hub.url))
    assert hub.repositories[NAME].commits[-1].sha == sha
    assert [fault.times for fault in hub.faults] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("wanted", "status", "content"),
    [
        ("", 200, b"0123456789"),
        ("bytes=2-4", 206, b"234"),
        ("bytes=-2", 206, b"89"),
        ("bytes=8-", 206, b"89"),
        ("bytes=10-", 416, b""),
    ],
)
def test_parts_and_wrong_bytes(hub: FakeHub, wanted: str, status: int, content: bytes) -> None:
    import httpx

    hub.add(NAME, {"a": b"0123456789"})
    url = f"{hub.url}/datasets/{NAME}/resolve/main/a"
    with httpx.Client() as client:
        answer = client.get(url, headers={"Range": wanted} if wanted else {})
        assert (answer.status_code, answer.content) == (status, content)
        hub.faults.append(Fault("resolve", flip=0))
        assert client.get(url).content == b"1123456789"
        hub.faults.append(Fault("resolve", cut=3))
        with pytest.raises(httpx.RemoteProtocolError, match="received 3 bytes, expected 10"):
            client.get(url)


def test_what_is_not_served_is_named(hub: FakeHub) -> None:
    answer = hub.answer(Request("api", "GET", "/api/models", {}), b"")
    assert answer.headers["X-Error-Message"] == "the fake hub does not serve /api/models"
