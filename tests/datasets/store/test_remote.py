"""Stores in object storage and on web servers are read like those in folders."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from latentset.datasets.errors import StoreCorruptError, StoreError, StoreFormatError
from latentset.datasets.storage import http_request
from latentset.datasets.storage.location import open_location
from latentset.datasets.store import Store, open_store
from tests.makers.synthetic import write_synthetic_store

Serve = Callable[..., str]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A store of images of two sizes in a folder."""
    path = tmp_path / "here" / "store.zarr"
    return write_synthetic_store(path, samples=12, sizes=((64, 64), (100, 330)), failed=(3,))


def upload(made: Path, s3: str) -> str:
    """Copy it to object storage, as one does with any other files."""
    location = open_location(f"{s3}/store.zarr")
    for path in made.rglob("*"):
        if path.is_file():
            location.write(path.relative_to(made).as_posix(), path.read_bytes())
    return str(location)


@pytest.fixture(params=["s3", "http"])
def url(request: pytest.FixtureRequest, made: Path) -> str:
    """The store's address."""
    if request.param == "s3":
        return upload(made, request.getfixturevalue("s3"))
    return f"{request.getfixturevalue('serve')(made.parent)}/store.zarr"


def same(far: Store, near: Store) -> None:
    assert far.header == near.header
    assert far.manifest == near.manifest
    assert far.samples == near.samples
    assert far.stored_bytes() == near.stored_bytes()
    for k in (0, 1, 11):
        found, expected = far.read_sample(k), near.read_sample(k)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)
            assert name == "z_hat" or values.any()
            np.testing.assert_array_equal(far[k][name], values)


def test_a_store_far_away_is_the_store(url: str, made: Path) -> None:
    same(open_store(url), open_store(made))


def test_a_store_is_made_in_object_storage(s3: str, made: Path) -> None:
    sizes = ((64, 64), (100, 330))
    write_synthetic_store(f"{s3}/other.zarr", samples=12, sizes=sizes, failed=(3,))
    same(open_store(f"{s3}/other.zarr"), open_store(made))


def test_what_is_no_store_is_said_to_be_none(s3: str, tmp_path: Path, serve: Serve) -> None:
    for url in (f"{s3}/nothing", f"{serve(tmp_path)}/nothing"):
        with pytest.raises(StoreFormatError, match=r"/nothing/zarr\.json is there"):
            open_store(url)


def test_a_shard_that_is_missing_is_noticed_where_places_can_be_listed(s3: str, made: Path) -> None:
    url = upload(made, s3)
    open_location(url).remove("y_hat/c/0/0")
    with pytest.raises(StoreCorruptError, match="y_hat/c/0/0 is missing"):
        open_store(url)


def test_an_altered_shard_is_noticed_before_it_is_read(made: Path, serve: Serve) -> None:
    path = made / "y_hat/c/0/0"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(bytes(content))
    store = open_store(f"{serve(made.parent)}/store.zarr")
    with pytest.raises(StoreCorruptError, match="y_hat/c/0/0 differs from its sha256"):
        store.read_sample(0)


def test_a_web_server_need_not_send_parts(made: Path, serve: Serve) -> None:
    same(open_store(f"{serve(made.parent, parts=False)}/store.zarr"), open_store(made))


def test_a_web_server_that_does_not_answer_is_named(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_request, "BACK_OFF_S", 0.001)
    with pytest.raises(StoreError, match=r"zarr\.json cannot be read: .*the network"):
        open_store("http://127.0.0.1:9/store.zarr")
    shutil.rmtree(made)
