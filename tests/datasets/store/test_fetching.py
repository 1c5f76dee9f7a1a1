"""Fetching objects: whole and right or not at all, inside the folder, on disks with room."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreUnreachableError
from latentset.datasets.storage import http_request
from latentset.datasets.storage.location import open_location
from latentset.datasets.store.digests import StoredObject, describe_object
from latentset.datasets.store.fetching import fetch_object, fetch_objects
from latentset.datasets.store.verify import verify
from tests.makers.faulty import Answer, Fault, FaultyServer, Request

CONTENT = bytes(range(256)) * 20
ITEM = describe_object("y_hat/c/0/0", CONTENT)
ITEMS = [describe_object(f"y_hat/c/{k}/0", CONTENT) for k in range(20)]


class Shards(FaultyServer):
    """Serves CONTENT as every object but ``lost``."""

    def answer(self, request: Request, body: bytes) -> Answer:
        if "lost" in request.path:
            return Answer(404)
        return Answer(200, CONTENT, {"Accept-Ranges": "bytes"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shards]:
    monkeypatch.setattr(http_request, "BACK_OFF_S", 0.001)
    shards = Shards()
    with shards.serve("api"):
        yield shards


@pytest.fixture(params=["folder", "s3", "http"])
def source(request: pytest.FixtureRequest, tmp_path: Path, server: Shards) -> Any:
    """A location of each kind with the first of ITEMS."""
    if request.param == "http":
        return open_location(server.urls["api"])
    where = tmp_path / "source" if request.param == "folder" else request.getfixturevalue("s3")
    location = open_location(where)
    location.write(ITEM.path, CONTENT)
    return location


def test_an_object_is_fetched_once(source: Any, tmp_path: Path, server: Shards) -> None:
    target = tmp_path / "target/y_hat/c/0/0"
    counted: list[int] = []
    fetch_object(source, ITEM, target, counted.append)
    assert target.read_bytes() == CONTENT
    assert sum(counted) == len(CONTENT)
    requests = len(server.requests)
    counted.clear()
    fetch_object(source, ITEM, target, counted.append)
    assert (len(server.requests), sum(counted)) == (requests, len(CONTENT))
    target.write_bytes(CONTENT[::-1])
    fetch_object(source, ITEM, target)
    assert target.read_bytes() == CONTENT
    missing = ITEM.model_copy(update={"path": "lost"})
    with pytest.raises(StoreCorruptError, match="lost is missing"):
        fetch_object(source, missing, tmp_path / "target/lost")
    assert [path.name for path in target.parent.iterdir()] == ["0"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("GET", flip=7), "y_hat/c/0/0 differs from its sha256"),
        (Fault("GET", answer=Answer(200, CONTENT + b"x")), "expected 5120 bytes, got more"),
        (Fault("GET", answer=Answer(200, CONTENT[:-1])), "expected 5120 bytes, got 5119 bytes"),
        (Fault("GET", answer=Answer(404)), "y_hat/c/0/0 is missing"),
    ],
)
def test_what_is_not_the_object_is_not_kept(
    fault: Fault, message: str, server: Shards, tmp_path: Path
) -> None:
    server.faults = [fault]
    with pytest.raises(StoreCorruptError, match=message):
        fetch_object(open_location(server.urls["api"]), ITEM, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_many_are_fetched_and_the_damaged_ones_are_named(server: Shards, tmp_path: Path) -> None:
    source, reports = open_location(server.urls["api"]), []
    server.faults = [Fault("y_hat/c/3/0", flip=0), Fault("y_hat/c/7/0", answer=Answer(404))]
    problems = fetch_objects(source, ITEMS, tmp_path, lambda *report: reports.append(report))
    assert [problem.what.partition(": ")[2] for problem in problems] == [
        "y_hat/c/3/0 differs from its sha256",
        "y_hat/c/7/0 is missing",
    ]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 18
    assert fetch_objects(source, ITEMS, tmp_path) == []
    assert len(server.requests) == 22
    done = [count for _, count, total in reports if total == 20 * 5120]
    assert done == sorted(done)
    assert done[-1] == 19 * 5120


def test_a_server_that_is_gone_ends_it(server: Shards, tmp_path: Path) -> None:
    server.faults = [Fault("GET", answer=Answer(500), times=1000)]
    with pytest.raises(StoreUnreachableError, match="the server answers 500"):
        fetch_objects(open_location(server.urls["api"]), ITEMS, tmp_path)
    assert len(server.requests) < 2 * 8 * (http_request.RETRIES + 1)


def test_a_claim_larger_than_the_disk_is_refused_at_once(server: Shards, tmp_path: Path) -> None:
    huge = StoredObject(path="huge", bytes=10**15, sha256="0" * 64)
    with pytest.raises(StoreError, match="expected room for 1,000,000,000,005,120 bytes"):
        fetch_objects(open_location(server.urls["api"]), [ITEM, huge], tmp_path)
    assert server.requests == []
    claim = StoredObject(path="a", bytes=10 * 10**9, sha256="0" * 64)
    with pytest.raises(StoreCorruptError, match="expected 10000000000 bytes, got 5120 bytes"):
        fetch_object(open_location(server.urls["api"]), claim, tmp_path / "a")


def test_links_that_lead_out_of_the_folder_are_not_followed(server: Shards, tmp_path: Path) -> None:
    folder, outside = tmp_path / "store", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "y_hat").symlink_to(outside)
    with pytest.raises(StoreError, match="a symbolic link on the way leads to"):
        fetch_objects(open_location(server.urls["api"]), [ITEM], folder)
    (folder / "y_hat").unlink()
    (folder / "y_hat/c/0").mkdir(parents=True)
    (folder / "y_hat/c/0/0").symlink_to(outside / "file")
    with pytest.raises(StoreError, match="a symbolic link on the way leads to"):
        fetch_objects(open_location(server.urls["api"]), [ITEM], folder)
    assert list(outside.iterdir()) == []
    assert server.requests == []


def test_verify_reads_a_store_at_its_source(
    store: Path, serve: Callable[..., str], write_manifest: Callable[..., None]
) -> None:
    url = f"{serve(store.parent)}/store.zarr"
    assert verify(url).outcome == "sound"
    shard = store / "y_hat/c/1/0"
    shutil.copy(store / "y_hat/c/0/0", shard)
    manifest = json.loads((store / "manifest.json").read_text())
    (item,) = [item for item in manifest["objects"] if item["path"] == "y_hat/c/2/0"]
    item["bytes"] = 10**10
    write_manifest(store, manifest)
    problems = verify(url).problems
    assert [text for text in problems if text.startswith("y_hat/c/1/0")]
    assert "y_hat/c/2/0: 10,000,000,000 bytes are too many" in "\n".join(problems)
