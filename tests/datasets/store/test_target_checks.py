"""No store is made inside of another one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from latentset.datasets.errors import StoreError
from latentset.datasets.storage.location import Folder, Location, open_location
from latentset.datasets.store.target_checks import refuse_nested
from tests.makers.synthetic import write_synthetic_store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """A complete store in each kind of location that can be written."""
    where = tmp_path if request.param == "folder" else request.getfixturevalue("s3")
    location = open_location(f"{where}/done.zarr")
    write_synthetic_store(str(location), samples=4)
    return location


@pytest.mark.parametrize("below", [("sub",), ("y_hat", "c", "new.zarr")])
def test_inside_a_store(below: tuple[str, ...], store: Location) -> None:
    target = store
    for name in below:
        target = target / name
    with pytest.raises(StoreError, match=r"is inside the store .*/done\.zarr, .* beside it"):
        refuse_nested(target)


def test_a_store_itself_and_what_lies_beside(store: Location) -> None:
    for free in (store, store.beside(".job"), store.beside("2"), store.beside("2") / "sub"):
        refuse_nested(free)


@pytest.mark.parametrize("gone", ["manifest.json", "zarr.json"])
def test_inside_a_store_that_is_not_whole(gone: str, store: Location) -> None:
    store.remove(gone)
    with pytest.raises(StoreError, match="is inside the store"):
        refuse_nested(store / "sub")


@pytest.mark.parametrize(
    "content", [b"{}", b"[]", b"?", b'{"attributes": null}', b'{"attributes": 3}', b""]
)
def test_files_of_others_by_these_names(content: bytes, tmp_path: Path) -> None:
    for name in ("zarr.json", "manifest.json"):
        (tmp_path / name).write_bytes(content)
    refuse_nested(Folder(tmp_path / "new.zarr"))


def test_by_a_link(tmp_path: Path) -> None:
    write_synthetic_store(tmp_path / "done.zarr", samples=4)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "done.zarr" / "y_hat")
    with pytest.raises(StoreError, match=r"is inside the store .*/done\.zarr"):
        refuse_nested(Folder(tmp_path / "elsewhere" / "new.zarr"))


def test_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "store.h5").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"sub/new cannot be made: .*/store\.h5 is a file"):
        refuse_nested(Folder(tmp_path / "store.h5" / "sub" / "new"))


def test_a_web_server_is_left_to_whoever_writes(serve: Callable[..., str], tmp_path: Path) -> None:
    refuse_nested(open_location(f"{serve(tmp_path)}/a/b"))


def test_names_too_long_to_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="File name too long"):
        refuse_nested(Folder(tmp_path / ("x" * 300) / "new.zarr"))
