"""Pulling a store from everywhere; killed at any moment, damaged at its source, in parts."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from latentset.cli.sharing import pull as pull_command
from latentset.datasets.errors import (
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreIncompleteError,
    StoreUnreachableError,
)
from latentset.datasets.storage import http_request
from latentset.datasets.storage.atomic import try_lock
from latentset.datasets.storage.location import open_location
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.verify import verify
from latentset.sharing.pull import NOTE, pull
from tests.makers.commands import TIMEOUT_S, client, wait_for
from tests.makers.faulty import Answer, Fault, FaultyServer, Request
from tests.makers.hub import FakeHub, rate_limited
from tests.makers.synthetic import write_synthetic_store

KILLS = 20


class Published(FaultyServer):
    """Serves a folder."""

    root = Path()

    def answer(self, request: Request, body: bytes) -> Answer:
        path = self.root / request.path.lstrip("/")
        return Answer(200, path.read_bytes()) if path.is_file() else Answer(404)


@pytest.fixture
def server(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    """A server of a copy of the store, that may be damaged."""
    monkeypatch.setattr(http_request, "BACK_OFF_S", 0.001)
    monkeypatch.setenv("LATENTSET_CACHE", str(tmp_path / "cache"))
    published = Published()
    published.root = tmp_path / "www"
    shutil.copytree(made, published.root / "store.zarr")
    with published.serve("api"):
        yield published


@pytest.fixture
def url(server: Published) -> str:
    return f"{server.urls['api']}/store.zarr"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "pulled"


@pytest.fixture
def run() -> Callable[..., str]:
    """Run the command as a pipe does."""
    app = typer.Typer()
    app.command()(pull_command)

    def call(*words: str) -> str:
        result = CliRunner().invoke(app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return call


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", ["folder", "http", "s3", "hub"])
def test_what_is_pulled_is_the_store(
    kind: str, made: Path, target: Path, request: pytest.FixtureRequest
) -> None:
    source = str(made)
    if kind == "http":
        source = request.getfixturevalue("url")
    elif kind == "s3":
        source = f"{request.getfixturevalue('s3')}/store.zarr"
        for path, content in contents(made).items():
            open_location(source).write(path, content)
    elif kind == "hub":
        hub: FakeHub = request.getfixturevalue("hub")
        repository = hub.add("org/set", contents(made) | {"README.md": b"card"})
        source = f"hf://datasets/org/set@{repository.commits[-1].sha}"
        hub.add("org/set", {"zarr.json": b"later"}).commits[:0] = repository.commits
    pulled = pull(source, target)
    assert contents(target) == contents(made)
    assert verify(target).outcome == "sound"
    assert pulled.samples == open_store(made).samples
    assert not target.with_name("pulled.job").exists()


def test_the_command_says_what_it_did(run: Callable[..., str], url: str, target: Path) -> None:
    assert "objects" in (text := run(url, str(target)))
    assert "verified" in text
    (target / "y_hat/c/0/0").write_bytes(b"damaged")
    assert "verified" in run(url, str(target))
    assert verify(target).outcome == "sound"
    assert "give a folder to make" in run(url)
    assert "give a folder to make" in run(url, str(target), "--split", "train")


def test_what_the_source_lacks_is_named_and_fetched_later(
    server: Published, url: str, made: Path, target: Path
) -> None:
    shard = server.root / "store.zarr/y_hat/c/1/0"
    content = shard.read_bytes()
    shard.unlink()
    (server.root / "store.zarr/z_hat/c/0/0").write_bytes(b"short")
    with pytest.raises(StoreCorruptError) as error:
        pull(url, target)
    text = str(error.value)
    assert "\ny_hat/c/1/0 is missing\nz_hat/c/0/0: expected " in text
    count = len(contents(made)) - 1
    assert f"{count - 2} of {count} objects are here and verified" in text
    assert not (target / "manifest.json").exists()
    with pytest.raises(StoreIncompleteError):
        open_store(target)
    assert "Once the source was published again, the same command" in text
    shard.write_bytes(content)
    shutil.copy(made / "z_hat/c/0/0", server.root / "store.zarr/z_hat/c/0/0")
    server.requests.clear()
    pull(url, target)
    assert contents(target) == contents(made)
    assert len([request for request in server.requests if "/c/" in request.path]) == 2


def test_a_damaged_commit_is_not_waited_for(hub: FakeHub, made: Path, target: Path) -> None:
    repository = hub.add("org/set", contents(made) | {"y_hat/c/1/0": b"short"})
    source = f"hf://datasets/org/set@{repository.commits[-1].sha}"
    with pytest.raises(StoreCorruptError, match="This commit will not change: name another"):
        pull(source, target)
    with pytest.raises(StoreCorruptError, match="Once the source was published again"):
        pull("hf://datasets/org/set", target)


def pull_quietly(url: str, target: Path) -> None:
    """Pull, in a process that will be killed."""
    pull(url, target)


def test_killed_at_any_moment_the_same_command_ends_with_equal_bytes(
    server: Published, url: str, made: Path, target: Path
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", __name__, "httpx"])
    moments, started = random.Random(1), 0
    server.delay_s = 0.02
    for _ in range(KILLS):
        process = context.Process(target=pull_quietly, args=(url, target))
        requests = len(server.requests)
        process.start()
        while len(server.requests) == requests and process.is_alive():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.15))
        started += process.is_alive()
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        there = contents(target)
        for path in there.keys() & contents(made).keys():
            assert there[path] == (made / path).read_bytes()
        if "manifest.json" in there:
            assert verify(target).outcome == "sound"
            shutil.rmtree(target)
    assert started > KILLS // 2
    server.delay_s = 0
    pull(url, target)
    assert contents(target) == contents(made)
    assert not target.with_name("pulled.job").exists()


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("ending", ["Ctrl-C", "403"])
def test_no_wait_that_a_server_asks_for_outlasts_the_command(
    split: bool, ending: str, server: Published, url: str, target: Path
) -> None:
    server.faults = [Fault("/c/", answer=rate_limited(TIMEOUT_S), times=100)]
    if ending == "403":
        server.faults.insert(0, Fault("/scale_index/c/0/0", answer=Answer(403)))
    where = ("--split", "train") if split else (target,)
    with client("pull", url, *where) as process:
        if ending == "Ctrl-C":
            wait_for(lambda: any("/c/" in request.path for request in server.requests), process)
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S / 10)
    assert process.returncode == (130 if ending == "Ctrl-C" else 1), errors
    assert "Traceback" not in errors
    assert ("scale_index/c/0/0 cannot be read" in errors) == (ending == "403")


def test_nothing_else_is_overwritten(made: Path, url: str, target: Path, tmp_path: Path) -> None:
    other = write_synthetic_store(tmp_path / "other.zarr", samples=4, seed=5)
    before = contents(other)
    with pytest.raises(StoreError, match="holds another store, or another revision"):
        pull(url, other)
    (other / "manifest.json").unlink()
    with pytest.raises(StoreError, match="is not empty: nothing was changed"):
        pull(url, other)
    del before["manifest.json"]
    assert contents(other) == before
    target.mkdir()
    (target / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match=r"holds thesis\.tex, which is no part of this store"):
        pull(url, target)
    (target / "thesis.tex").unlink()
    (tmp_path / "pulled.job").mkdir()
    (tmp_path / "pulled.job/plan.json").write_text("{}")
    with pytest.raises(StoreError, match=r"pulled\.job holds plan\.json"):
        pull(url, target)
    with pytest.raises(StoreError, match="is the source itself"):
        pull(made, made)
    # A store that is complete may have the folder of another job beside it, as encode leaves it.
    shutil.copytree(made, target, dirs_exist_ok=True)
    assert pull(url, target).manifest_sha256 == open_store(made).manifest_sha256
    assert contents(tmp_path / "pulled.job") == {"plan.json": b"{}"}
    with pytest.raises(StoreError, match="expected a folder to pull into"):
        pull(made, "s3://bucket/store")


def test_two_pulls_and_two_revisions(server: Published, url: str, target: Path) -> None:
    server.faults = [Fault("/y_hat/c/0/0", answer=Answer(404))]
    with pytest.raises(StoreCorruptError):
        pull(url, target)
    with target.with_name("pulled.job").joinpath(NOTE).open("r+b") as note:
        assert try_lock(note)
        with pytest.raises(StoreError, match="another latentset pull is at work"):
            pull(url, target)
    shutil.rmtree(server.root / "store.zarr")
    write_synthetic_store(server.root / "store.zarr", samples=4, shard_bytes=1 << 12, seed=7)
    with pytest.raises(StoreError, match="what a pull of another store, or of another revision"):
        pull(url, target)


def test_what_is_no_complete_zarr_store_is_refused(
    server: Published, url: str, target: Path, tmp_path: Path
) -> None:
    file = tmp_path / "s.h5"
    convert(open_store(server.root / "store.zarr"), open_location(file), "hdf5")
    with pytest.raises(StoreFormatError, match="latentset convert"):
        pull(file, target)
    (server.root / "store.zarr/manifest.json").unlink()
    with pytest.raises(StoreIncompleteError, match="still being made or published"):
        pull(url, target)
    with pytest.raises(
        StoreFormatError, match=f"is not a LatentSet store: no {server.urls['api']}/zarr.json"
    ):
        pull(f"{server.urls['api']}/", target)
    with pytest.raises(StoreUnreachableError, match="cannot be read"):
        pull("http://127.0.0.1:9/store.zarr", target)
    assert not target.exists()


def test_a_manifest_that_leads_out_or_claims_too_much_is_refused(
    server: Published, url: str, target: Path
) -> None:
    path = server.root / "store.zarr/manifest.json"
    manifest = json.loads(path.read_text())
    for change, message in (
        ({"path": "../evil"}, "is no path of an object"),
        ({"path": "manifest.json"}, "manifest.json lists manifest.json, which is no part of"),
        ({"path": ".git/config"}, "lists .git/config, which is no part of the store"),
        ({"bytes": 10**15}, "expected room for"),
    ):
        kept = manifest["objects"][1:] if "bytes" in change else manifest["objects"]
        objects = [manifest["objects"][0] | change, *kept]
        objects.sort(key=lambda item: str(item["path"]))
        path.write_text(json.dumps({**manifest, "format_version": "0.1", "objects": objects}))
        with pytest.raises(StoreError, match=message):
            pull(url, target)
    assert not [name for name in target.rglob("*") if name.is_file()]
    assert not target.with_name("pulled.job").exists()


def test_a_split_is_fetched_into_the_cache(
    server: Published, url: str, run: Callable[..., str], tmp_path: Path
) -> None:
    shutil.rmtree(server.root / "store.zarr")
    write_synthetic_store(server.root / "store.zarr", samples=16, shard_bytes=1 << 12)
    text = run(url, "--split", "val", "--class", "odd")
    assert "\n2 samples are in 2 of 16 shards: " in text
    assert "(12." in text
    assert f"in the cache {tmp_path / 'cache'}, verified" in text
    fetched = len(server.requests)
    store = open_store(url)
    wanted = [7, 15]
    for k in wanted:
        store.read_sample(k)
    assert not [request for request in server.requests[fetched:] if "/c/" in request.path]
    (shard,) = (tmp_path / "cache/stores").glob("*/y_hat/c/7/0")
    content = shard.read_bytes()
    shard.write_bytes(content[::-1])
    assert run(url, "--split", "val", "--class", "odd") == text
    assert shard.read_bytes() == content
    with pytest.raises(StoreError, match="has no split 'vol'; it has train, val"):
        run(url, "--split", "vol")
    with pytest.raises(StoreError, match="has no class 'old'; it has even, odd"):
        run(url, "--class", "old")
    with pytest.raises(StoreError, match="a folder of this machine needs none"):
        run(str(server.root / "store.zarr"), "--split", "val")
