"""One contract for every location that objects can be written to, and what a web server is not."""

import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from latentset.datasets.errors import MissingEnvironmentError, StoreError
from latentset.datasets.storage.location import Bucket, Folder, Location, open_location


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty location of each kind that can be written."""
    if request.param == "folder":
        return open_location(tmp_path / "store")
    return open_location(f"{request.getfixturevalue('s3')}/store")


def test_what_was_written_is_read(location: Location) -> None:
    assert location.sizes() == {}
    location.write("y_hat/c/0/0", b"latents")
    location.write("zarr.json", b"{}")
    assert location.read("y_hat/c/0/0") == b"latents"
    assert b"".join(location.stream("y_hat/c/0/0")) == b"latents"
    assert location.size("y_hat/c/0/0") == 7
    assert location.sizes() == {"y_hat/c/0/0": 7, "zarr.json": 2}
    location.write("zarr.json", b"{ }")
    assert location.read("zarr.json") == b"{ }"
    assert location.sizes() == {"y_hat/c/0/0": 7, "zarr.json": 3}


def test_what_is_not_there_is_said_to_be_missing(location: Location) -> None:
    with pytest.raises(FileNotFoundError):
        location.read("nothing")
    with pytest.raises(FileNotFoundError):
        list(location.stream("nothing"))
    assert location.size("nothing") is None
    location.remove("nothing")


def test_what_was_removed_is_gone(location: Location) -> None:
    location.write("lock.json", b"1")
    location.remove("lock.json")
    assert location.size("lock.json") is None
    assert location.sizes() == {}


def test_of_many_that_create_one_wins(location: Location) -> None:
    # The S3 server of these tests looks and puts in two steps: there one after the other.
    with ThreadPoolExecutor(8 if isinstance(location, Folder) else 1) as threads:
        won = list(threads.map(lambda k: location.create("lock.json", bytes([k])), range(8)))
    assert won.count(True) == 1
    assert location.read("lock.json") == bytes([won.index(True)])
    assert not location.create("lock.json", b"late")
    assert location.sizes() == {"lock.json": 1}
    location.remove("lock.json")
    assert location.create("lock.json", b"next")


def test_places_below_and_beside(location: Location) -> None:
    assert location.name == "store"
    job = location.beside(".job") / "f00d"
    assert str(job) == f"{location}.job/f00d"
    job.write("plan.json", b"{}")
    assert location.sizes() == {}
    assert (location.beside(".job")).sizes() == {"f00d/plan.json": 2}


def test_a_place_travels_to_workers(location: Location) -> None:
    location.write("a", b"b")
    again = pickle.loads(pickle.dumps(location))
    assert again == location
    assert hash(again) == hash(location)
    assert again.read("a") == b"b"


def test_a_folder_is_named_in_several_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        open_location("a/b") == open_location(f"file://{tmp_path}/a/b") == Folder(tmp_path / "a/b")
    )
    assert open_location("s3://bucket/a/") == Bucket("s3://bucket/a")


def test_a_link_is_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert open_location(tmp_path / "link" / "a") == open_location(tmp_path / "real" / "a")
    assert open_location(tmp_path / "no" / ".." / "real") == Folder(tmp_path / "real")
    assert open_location(str(tmp_path / "link")).beside(".job").name == "real.job"


def test_a_bucket_that_is_not_there_is_named(s3: str) -> None:
    with pytest.raises(StoreError, match=r"cannot write s3://nowhere/a: .*bucket does not exist"):
        open_location("s3://nowhere").write("a", b"")


def test_a_web_server_is_only_read(tmp_path: Path, serve: Callable[..., str]) -> None:
    (tmp_path / "a").write_bytes(b"content")
    location = open_location(serve(tmp_path))
    assert location.read("a") == b"content"
    assert location.size("a") == 7
    assert location.size("b") is None
    assert location.sizes() is None
    with pytest.raises(StoreError, match=r"cannot write .*/b: a web server is only read from"):
        location.write("b", b"")
    with pytest.raises(StoreError, match=r"cannot remove .*/a: a web server is only read from"):
        location.remove("a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_other_schemes_are_refused() -> None:
    with pytest.raises(StoreError, match="expected a folder, s3://, gs://, http://, https:// or"):
        open_location("carrier-pigeon://loft/store").read("zarr.json")


@pytest.mark.parametrize("text", ["s3:/x", "s3:bucket/x", "https:/host/x", "HF://a", "file:x"])
def test_mistyped_addresses_are_no_folders(text: str) -> None:
    for given in (text, Path(text)):
        with pytest.raises(StoreError, match=r"is a mistyped address: expected \w+://…, or \./"):
            open_location(given)


def test_folders_may_have_colons(tmp_path: Path) -> None:
    for name in ("s3:x", "a:b", "s3"):
        assert str(open_location(f"{tmp_path}/{name}")) == f"{tmp_path}/{name}"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingEnvironmentError, match=r"pip install '\.\[gcs\]'"):
        open_location("gs://bucket/store").read("zarr.json")
