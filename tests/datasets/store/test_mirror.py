"""A store on the web is read through a cache: once, whole, checked, shared, within its limit."""

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest

from latentset.datasets.errors import (
    StoreCorruptError,
    StoreError,
    StoreIncompleteError,
    StoreUnreachableError,
)
from latentset.datasets.storage import http_request
from latentset.datasets.storage.location import open_location
from latentset.datasets.store import Store, mirror, open_store
from latentset.datasets.store.convert import convert
from tests.makers.faulty import Answer, Fault, FaultyServer, Request
from tests.makers.hub import FakeHub
from tests.makers.synthetic import write_synthetic_store


class Stores(FaultyServer):
    """Serves folders."""

    root = Path()

    def answer(self, request: Request, body: bytes) -> Answer:
        path = self.root / request.path.lstrip("/")
        return Answer(200, path.read_bytes()) if path.is_file() else Answer(404)


@pytest.fixture
def server(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    monkeypatch.setattr(http_request, "BACK_OFF_S", 0.001)
    stores = Stores()
    stores.root = made.parent
    with stores.serve("api"):
        yield stores


@pytest.fixture
def url(server: Stores) -> str:
    return f"{server.urls['api']}/store.zarr"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that start quickly, with nothing of this one's."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", __name__, "httpx"])
    return context


def read_all(store: Store) -> None:
    for index in range(store.header.layout.shards):
        store.read_shard(index)


def requested(server: Stores, part: str = "/c/") -> list[str]:
    return [request.path for request in server.requests if part in request.path]


def test_each_shard_is_fetched_once_and_when_it_is_needed(
    url: str, made: Path, server: Stores, cache: Path
) -> None:
    near, far = open_store(made), open_store(url, cache=cache)
    assert requested(server) == []
    for name, values in near.read_sample(0).items():
        np.testing.assert_array_equal(far.read_sample(0)[name], values)
    assert sorted(set(requested(server))) == sorted(requested(server))
    assert len(requested(server)) == 3
    again = open_store(url, cache=cache)
    for index in range(near.header.layout.shards):
        for array, rows in near.read_shard(index).items():
            np.testing.assert_array_equal(again.read_shard(index)[array], rows)
    assert len(requested(server)) == len(set(requested(server)))
    assert str(far.location) == url
    (folder,) = (path for path in (cache / "stores").iterdir() if len(path.name) == 64)
    with pytest.raises(StoreIncompleteError):
        open_store(folder)


def test_a_mirror_travels_to_other_processes(url: str, cache: Path) -> None:
    far = open_store(url, cache=cache)
    read_all(pickle.loads(pickle.dumps(far)))


def test_a_store_on_the_hub_and_in_object_storage(
    hub: FakeHub, made: Path, s3: str, tmp_path: Path
) -> None:
    files = {
        path.relative_to(made).as_posix(): path.read_bytes()
        for path in made.rglob("*")
        if path.is_file()
    }
    hub.add("org/set", files)
    bucket = open_location(f"{s3}/store.zarr")
    for path, content in files.items():
        bucket.write(path, content)
    near = open_store(made).read_shard(0)
    for url in ("hf://datasets/org/set", str(bucket)):
        far = open_store(url, cache=tmp_path / "other")
        for name, rows in far.read_shard(0).items():
            np.testing.assert_array_equal(near[name], rows)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_differs_from_the_manifest_is_never_read(
    url: str, server: Stores, cache: Path
) -> None:
    server.faults = [Fault("samples.parquet", flip=100)]
    with pytest.raises(StoreCorruptError, match=r"samples\.parquet differs from its sha256"):
        open_store(url, cache=cache)
    far = open_store(url, cache=cache)
    server.faults = [
        Fault("/y_hat/c/0/0", flip=20, times=2),
        Fault("/z_hat/c/0/0", answer=Answer(404), times=2),
    ]
    with pytest.raises(StoreCorruptError, match="y_hat/c/0/0 differs from its sha256"):
        far.read_rows("y_hat", 0, 1)
    with pytest.raises(StoreCorruptError, match="z_hat/c/0/0 is missing"):
        far.read_rows("z_hat", 0, 1)
    server.faults = [Fault("GET", answer=Answer(500), times=100)]
    with pytest.raises(StoreUnreachableError, match="y_hat/c/0/0 cannot be read: the server ans"):
        far.read_rows("y_hat", 0, 1)
    server.faults = []
    far.read_rows("y_hat", 0, 1)


def test_what_is_damaged_in_the_cache_is_fetched_again(
    url: str, server: Stores, made: Path, cache: Path
) -> None:
    far = open_store(url, cache=cache)
    read_all(far)
    (folder,) = (path for path in (cache / "stores").iterdir() if len(path.name) == 64)

    def damage() -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                content = bytearray(path.read_bytes())
                content[len(content) // 2] ^= 1
                content[-1] ^= 1
                path.write_bytes(content)

    def contents() -> dict[str, bytes]:
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        return {str(path): (folder / path).read_bytes() for path in files}

    sound = contents()
    damage()
    far, near = open_store(url, cache=cache), open_store(made)
    np.testing.assert_array_equal(far.read_rows("y_hat", 0, 1), near.read_rows("y_hat", 0, 1))
    expected = near.read(near.indices())
    for name, grids in far.read(far.indices()).items():
        for found, wanted in zip(grids, expected[name], strict=True):
            np.testing.assert_array_equal(found, wanted)
    read_all(far)
    assert contents() == sound
    shard = server.root / "store.zarr/y_hat/c/0/0"
    server.requests.clear()
    damage()
    server.faults = [Fault("/y_hat/c/0/0", flip=len(shard.read_bytes()) // 2, times=9)]
    with pytest.raises(StoreCorruptError, match="y_hat/c/0/0 differs from its sha256"):
        open_store(url, cache=cache).read_rows("y_hat", 0, 1)
    assert requested(server) == ["/store.zarr/y_hat/c/0/0"]


def test_many_samples_are_read_from_the_web(url: str, made: Path, cache: Path) -> None:
    near, far = open_store(made), open_store(url, cache=cache)
    expected = near.read(near.indices())
    for name, grids in far.read(far.indices()).items():
        for found, wanted in zip(grids, expected[name], strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_a_store_is_converted_from_the_web(url: str, cache: Path, tmp_path: Path) -> None:
    written = convert(open_store(url, cache=cache), open_location(tmp_path / "s.h5"), "hdf5")
    assert written.samples.num_rows == 12


def test_shards_are_fetched_ahead_in_the_order_of_need(
    url: str, server: Stores, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "FETCHERS", 1)  # of several, any may be first
    far = open_store(url, cache=cache)
    firsts = far.samples["first_row"].to_numpy()
    firsts = firsts[firsts >= 0][::-1]
    shards = far.header.layout.shards
    with far.fetch_ahead(["y_hat"], firsts):
        while len(requested(server)) < shards:
            time.sleep(0.01)
    found = [int(path.split("/")[-2]) for path in requested(server)]
    assert found == list(reversed(range(shards)))


def test_what_is_reserved_together_fits_together(url: str, server: Stores, cache: Path) -> None:
    far = open_store(url, cache=cache)
    rows = far.samples["first_row"].to_numpy()
    sizes = {item.path: item.bytes for item in far.manifest.objects} if far.manifest else {}
    small = sum(size for path, size in sizes.items() if "/c/" not in path)
    far = open_store(url, cache=cache, cache_bytes=small + sizes["y_hat/c/0/0"] + 1)
    far.reserve(["y_hat"], rows[:1])
    with pytest.raises(StoreError, match="allow more, or read fewer splits"):
        far.reserve(["z_hat"], rows[:1])
    assert requested(server) == []


def test_a_cache_that_cannot_be_written_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write to the cache .*--cache FOLDER"):
        open_store(url, cache=tmp_path / "file")


def test_what_was_not_fetched_ahead_ends_with_the_epoch(
    url: str, server: Stores, cache: Path
) -> None:
    far = open_store(url, cache=cache)
    server.delay_s = 0.05
    with far.fetch_ahead(["y_hat", "z_hat"], far.samples["first_row"].to_numpy()[:3]):
        pass
    assert len(requested(server)) <= 8


def test_the_store_used_last_is_kept_within_the_limit(
    server: Stores, cache: Path, tmp_path: Path, processes: ForkServerContext
) -> None:
    server.root = tmp_path
    folders, sizes = [], []
    for k in range(3):
        store = open_store(write_synthetic_store(tmp_path / f"{k}.zarr", seed=k))
        folders.append(cache / "stores" / store.manifest_sha256)
        sizes.append(sum(item.bytes for item in store.manifest.objects) if store.manifest else 0)
    limit = sizes[0] + sizes[1] + sizes[2] // 2
    for k in (1, 0, 2):  # in processes that end, so that nobody uses them
        run(processes, read_through, f"{server.urls['api']}/{k}.zarr", cache, limit)
    assert [folder.exists() for folder in folders] == [True, False, True]
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) <= limit
    with pytest.raises(StoreError, match=r"needed in the cache .*1,000 are allowed"):
        read_through(f"{server.urls['api']}/2.zarr", tmp_path / "small", 1000)


def test_a_store_in_use_is_not_evicted(server: Stores, cache: Path, tmp_path: Path) -> None:
    server.root = tmp_path
    stores = [write_synthetic_store(tmp_path / f"{k}.zarr", seed=k) for k in range(2)]
    manifest = open_store(stores[0]).manifest
    limit = sum(item.bytes for item in manifest.objects) + 5000 if manifest else 0
    first = open_store(f"{server.urls['api']}/0.zarr", cache=cache, cache_bytes=limit)
    read_all(first)
    with pytest.raises(StoreError, match="the other stores in it are in use"):
        read_through(f"{server.urls['api']}/1.zarr", cache, limit)
    read_all(first)


def read_through(url: str, cache: Path, limit: int | None = None) -> None:
    """Read every shard; in a process of its own."""
    read_all(open_store(url, cache=cache, cache_bytes=limit))


def start(context: ForkServerContext, function: object, *args: object) -> "multiprocessing.Process":
    process = context.Process(target=function, args=args)  # type: ignore[arg-type]
    process.start()
    return process  # type: ignore[return-value]


def run(context: ForkServerContext, function: object, *args: object) -> None:
    process = start(context, function, *args)
    process.join(60)
    assert process.exitcode == 0


def test_processes_share_a_cache(
    url: str, server: Stores, cache: Path, processes: ForkServerContext
) -> None:
    server.delay_s = 0.01
    three = [start(processes, read_through, url, cache) for _ in range(3)]
    for process in three:
        process.join(60)
        assert process.exitcode == 0
    assert len(requested(server)) == len(set(requested(server)))


def test_after_kill_9_the_others_go_on(
    url: str, server: Stores, cache: Path, processes: ForkServerContext
) -> None:
    server.delay_s = 0.03
    killed, other = (start(processes, read_through, url, cache) for _ in range(2))
    while len(requested(server)) < 5:
        time.sleep(0.005)
    assert killed.pid
    os.kill(killed.pid, signal.SIGKILL)
    other.join(60)
    assert other.exitcode == 0
    server.requests.clear()
    run(processes, read_through, url, cache)
    assert requested(server) == []
    assert not list(cache.rglob("*.partial-*"))
