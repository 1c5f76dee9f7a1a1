"""What cannot be looked at is said to be so, by every command, and never ends in a traceback."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import StoreError, StoreFormatError, StoreUnreachableError
from latentset.datasets.storage.location import Bucket, Folder, open_location
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.target_checks import is_free
from latentset.datasets.store.verify import verify
from tests.makers.synthetic import write_synthetic_store

DENIED = r"cannot be read: Permission denied\. Look at the name, the permissions"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_synthetic_store(tmp_path / "store.zarr", samples=4)


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Refuse to look below a folder, as permissions do to all but root."""

    def refuse(folder: Path) -> None:
        scandir, stat = os.scandir, os.stat

        def checked(path: Any) -> None:
            if Path(os.fspath(path)).is_relative_to(folder):
                raise PermissionError(13, "Permission denied", str(path))

        def guarded_scandir(path: Any) -> Any:
            checked(path)
            return scandir(path)

        def guarded_stat(path: Any, **options: Any) -> os.stat_result:
            if not isinstance(path, int) and Path(os.fspath(path)) != folder:
                checked(path)
            return stat(path, **options)

        monkeypatch.setattr(os, "scandir", guarded_scandir)
        monkeypatch.setattr(os, "stat", guarded_stat)

    return refuse


def test_an_array_that_may_not_be_listed(store: Path, deny: Callable[[Path], None]) -> None:
    deny(store / "y_hat")
    with pytest.raises(StoreUnreachableError, match=rf"store\.zarr/y_hat {DENIED}"):
        open_store(store)
    with pytest.raises(StoreUnreachableError, match=DENIED):
        is_free(Folder(store))
    findings = verify(store)
    assert findings.problems == []
    assert len(findings.obstacles) == 1
    assert "Permission denied" in findings.obstacles[0]


def test_a_parent_that_may_not_be_entered(store: Path, deny: Callable[[Path], None]) -> None:
    deny(store.parent)
    for look in (open_store, lambda path: is_free(Folder(path))):
        with pytest.raises(StoreUnreachableError, match=DENIED):
            look(store)
    findings = verify(store)
    assert (findings.problems, len(findings.obstacles)) == ([], 1)


def test_names_that_cannot_be(store: Path, tmp_path: Path) -> None:
    source = open_store(store)
    long = tmp_path / ("x" * 300)
    with pytest.raises(StoreUnreachableError, match="File name too long"):
        open_store(long)
    with pytest.raises(StoreUnreachableError, match="File name too long"):
        convert(source, Folder(long), "zarr")
    findings = verify(long)
    assert (findings.problems, len(findings.obstacles)) == ([], 1)
    with pytest.raises(StoreFormatError, match=r"below is not a LatentSet store"):
        open_store(store / "zarr.json" / "below")
    with pytest.raises(StoreError, match=r"cannot write .*: File name too long\. Name another"):
        Folder(tmp_path).write("x" * 300, b"")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(StoreError, match="is no path: Symlink loop"):
        open_location(tmp_path / "circle")


def test_a_file_that_cannot_be_read(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_store(store)
    converted = convert(source, Folder(store.with_name("s.h5")), "hdf5")
    read, open_descriptor = Path.open, os.open

    def guarded(path: Path, *args: Any, **options: Any) -> Any:
        if Path(path).name in ("0", "s.h5"):
            raise PermissionError(13, "Permission denied", str(path))
        function = (
            read if isinstance(path, Path) and not isinstance(args[0], int) else open_descriptor
        )
        return function(path, *args, **options)

    monkeypatch.setattr(Path, "open", guarded)
    monkeypatch.setattr(os, "open", guarded)
    with pytest.raises(StoreUnreachableError, match=rf"s\.h5 {DENIED}"):
        open_store(converted.location)
    for path in (store, store.with_name("s.h5")):
        findings = verify(path)
        assert findings.problems == []
        assert findings.obstacles
        assert all("Permission denied" in line for line in findings.obstacles)
    with pytest.raises(StoreUnreachableError, match="Permission denied"):
        source.read_sample(0)


def test_an_hdf5_file_far_away(store: Path, serve: Callable[..., str]) -> None:
    convert(open_store(store), Folder(store.with_name("s.h5")), "hdf5")
    url = f"{serve(store.parent)}/s.h5"
    with pytest.raises(StoreFormatError, match="is read from a file system only: copy the file"):
        open_store(url)
    (obstacle,) = verify(url).obstacles
    assert "copy the file to this machine first" in obstacle


@pytest.mark.parametrize("url", ["s3://", "s3:///", "http://"])
def test_urls_that_name_nothing(url: str) -> None:
    with pytest.raises(StoreError, match=f"{url} names no location: expected "):
        open_location(url)


def test_urls_of_files(tmp_path: Path) -> None:
    for url in (f"file://localhost{tmp_path}/a%20b", f"file://{tmp_path}/a b"):
        assert open_location(url) == Folder(tmp_path / "a b")
    with pytest.raises(StoreError, match="on this machine; got the machine 'elsewhere'"):
        open_location("file://elsewhere/store")


def test_names_in_object_storage_are_taken_as_they_are(s3: str) -> None:
    url = f"{s3}/a?b#c.zarr"
    write_synthetic_store(url, samples=4)
    store = open_store(url)
    assert store.read_sample(0)["y_hat"].any()
    assert isinstance(store.location, Bucket)
    prefix = s3.removeprefix("s3://latents/")
    found = store.location.kvstore("y_hat")
    assert (found["bucket"], found["path"]) == ("latents", f"{prefix}/a?b#c.zarr/y_hat/")
