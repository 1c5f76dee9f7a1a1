"""One contract for every place that objects can be written to, and what a web server is not."""

import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from latentset.datasets.errors import MissingEnvironmentError, StoreError
from latentset.datasets.storage.location import Bucket, Folder, Place, open_place


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place of each kind that can be written."""
    if request.param == "folder":
        return open_place(tmp_path / "store")
    return open_place(f"{request.getfixturevalue('s3')}/store")


def test_what_was_written_is_read(place: Place) -> None:
    assert place.sizes() == {}
    place.write("y_hat/c/0/0", b"latents")
    place.write("zarr.json", b"{}")
    assert place.read("y_hat/c/0/0") == b"latents"
    assert place.size("y_hat/c/0/0") == 7
    assert place.sizes() == {"y_hat/c/0/0": 7, "zarr.json": 2}
    place.write("zarr.json", b"{ }")
    assert place.read("zarr.json") == b"{ }"
    assert place.sizes() == {"y_hat/c/0/0": 7, "zarr.json": 3}


def test_what_is_not_there_is_said_to_be_missing(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        place.read("nothing")
    assert place.size("nothing") is None
    place.remove("nothing")


def test_what_was_removed_is_gone(place: Place) -> None:
    place.write("lock.json", b"1")
    place.remove("lock.json")
    assert place.size("lock.json") is None
    assert place.sizes() == {}


def test_of_many_that_create_one_wins(place: Place) -> None:
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda k: place.create("lock.json", bytes([k])), range(8)))
    assert won.count(True) == 1
    assert place.read("lock.json") == bytes([won.index(True)])
    assert not place.create("lock.json", b"late")
    assert place.sizes() == {"lock.json": 1}
    place.remove("lock.json")
    assert place.create("lock.json", b"next")


def test_places_below_and_beside(place: Place) -> None:
    assert place.name == "store"
    job = place.beside(".job") / "f00d"
    assert str(job) == f"{place}.job/f00d"
    job.write("plan.json", b"{}")
    assert place.sizes() == {}
    assert (place.beside(".job")).sizes() == {"f00d/plan.json": 2}


def test_a_place_travels_to_workers(place: Place) -> None:
    place.write("a", b"b")
    again = pickle.loads(pickle.dumps(place))
    assert again == place
    assert hash(again) == hash(place)
    assert again.read("a") == b"b"


def test_a_folder_is_named_in_several_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_place("a/b") == open_place(f"file://{tmp_path}/a/b") == Folder(tmp_path / "a/b")
    assert open_place("s3://bucket/a/") == Bucket("s3://bucket/a")


def test_a_link_is_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert open_place(tmp_path / "link" / "a") == open_place(tmp_path / "real" / "a")
    assert open_place(tmp_path / "no" / ".." / "real") == Folder(tmp_path / "real")
    assert open_place(str(tmp_path / "link")).beside(".job").name == "real.job"


def test_a_bucket_that_is_not_there_is_named(s3: str) -> None:
    with pytest.raises(StoreError, match=r"cannot write s3://nowhere/a: .*bucket does not exist"):
        open_place("s3://nowhere").write("a", b"")


def test_a_web_server_is_only_read(tmp_path: Path, serve: Callable[..., str]) -> None:
    (tmp_path / "a").write_bytes(b"content")
    place = open_place(serve(tmp_path))
    assert place.read("a") == b"content"
    assert place.size("a") == 7
    assert place.size("b") is None
    assert place.sizes() is None
    with pytest.raises(StoreError, match=r"cannot write .*/b: a web server is only read from"):
        place.write("b", b"")
    with pytest.raises(StoreError, match=r"cannot remove .*/a: a web server is only read from"):
        place.remove("a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_other_schemes_are_refused() -> None:
    with pytest.raises(StoreError, match="expected a folder, s3://, gs://, http:// or https://"):
        open_place("carrier-pigeon://loft/store").read("zarr.json")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingEnvironmentError, match=r"pip install 'latentset\[gcs\]'"):
        open_place("gs://bucket/store").read("zarr.json")
