"""Tar files in object storage, on an S3 server: as in a folder, each image by its range."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import ImageError, SourceError, StoreUnreachableError
from latentset.datasets.sources import open_source, resolve_inside, tar_member
from latentset.datasets.sources.images import read_bytes, read_size
from latentset.datasets.storage.location import Bucket, open_location
from tests.makers.tars import picture, rows

Pack = Callable[..., Path]


def upload(folder: Path, url: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            open_location(url).write(str(path.relative_to(folder)), path.read_bytes())


REMOTE: dict[str, dict[str, dict[str, str | bytes]]] = {
    "webdataset": {
        "set-train-0.tar": {"b.png": picture(0), "b.cls": "1", "a.png": picture(1), "a.cls": "0"},
        "set-val-0.tar": {"c.json": '{"label": 1}', "c.png": picture(2), "c.cls": "1"},
    },
    "split folders": {
        "train/0.tar": {"x/1.png": picture(0), "x/1.json": '{"label": "dog"}'},
        "test/0.tar": {"x/2.png": picture(1), "x/2.json": '{"label": "dog"}'},
    },
    "packed class folders": {
        "all.tar": {f"set/cat/{'ü' * 120}.png": picture(3), "set/dog/1.png": picture(4)}
    },
}


@pytest.mark.parametrize("name", REMOTE)
def test_in_object_storage_as_in_a_folder(
    name: str, pack: Pack, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pack(REMOTE[name])
    (root / "0_stats.json").write_text("{}")
    upload(root, s3)
    near, far = open_source(root), open_source(s3)
    assert (far.kind, far.root) == ("tar", Bucket(s3))
    assert far.samples.equals(near.samples)
    assert (far.classes, far.excluded) == (near.classes, near.excluded)
    monkeypatch.setattr(tar_member, "list_tar", None)  # no tar file is read twice
    for row in far.samples.select(["path", "part"]).to_pylist():
        shard, _, member = row["path"].partition(".tar/")
        content = REMOTE[name][f"{shard}.tar"][member]
        for source in (near, far):
            image = resolve_inside(source.root, **row)
            assert read_bytes(image) == content
            assert read_size(image) == (160, 200)


def test_one_tar_file_by_its_url(pack: Pack, s3: str) -> None:
    upload(pack({"a.tar": {"cat/1.png": picture(0)}, "b.tar": {"dog/1.png": ""}}), s3)
    source = open_source(f"{s3}/a.tar")
    assert rows(source) == [("a.tar/cat/1.png", 0, "")]
    image = resolve_inside(source.root, "a.tar/cat/1.png")  # searched
    assert read_bytes(image) == picture(0)
    with pytest.raises(ImageError, match="no such file"):
        read_bytes(resolve_inside(source.root, "a.tar/cat/2.png"))
    with pytest.raises(SourceError, match="no such file"):
        open_source(f"{s3}/c.tar")


def test_class_folders_beside_a_tar_file_in_object_storage(s3: str) -> None:
    for path in ("cat/1.jpg", "archive.tar"):
        open_location(s3).write(path, b"x")
    assert rows(open_source(s3)) == [("cat/1.jpg", 0, "")]


def test_a_folder_named_as_a_tar_file_in_object_storage(s3: str) -> None:
    open_location(s3).write("cat.tar/1.png", picture(0))
    source = open_source(s3)
    assert source.classes == ("cat.tar",)
    assert read_bytes(resolve_inside(source.root, "cat.tar/1.png")) == picture(0)


def test_a_packed_split_beside_one_of_folders_in_object_storage(s3: str) -> None:
    for path in ("train/a.tar", "val/cat/1.jpg"):
        open_location(s3).write(path, b"x")
    with pytest.raises(SourceError, match=r"train holds tar files, .* pack all splits or none"):
        open_source(s3)


def test_a_shorter_file_than_was_listed_in_object_storage(pack: Pack, s3: str) -> None:
    upload(pack({"0.tar": {"cat/a.png": picture(0), "cat/b.png": picture(1)}}), s3)
    (_, place) = open_source(s3).samples.select(["path", "part"]).to_pylist()
    upload(pack({"0.tar": {"cat/b.png": b"small"}}), s3)
    for read in (read_bytes, read_size):
        with pytest.raises(ImageError, match="shorter than it was") as error:
            read(resolve_inside(Bucket(s3), **place))
        assert error.value.status == "changed"


def test_a_file_that_is_searched_is_listed_again_when_it_was_replaced(pack: Pack, s3: str) -> None:
    one, other = ({"cat/a.png": picture(k), "cat/b.png": picture(1 - k)} for k in (0, 1))
    upload(pack({"0.tar": one}), s3)
    assert read_bytes(resolve_inside(Bucket(s3), "0.tar/cat/a.png")) == picture(0)
    upload(pack({"0.tar": dict(reversed(other.items()))}), s3)
    assert read_bytes(resolve_inside(Bucket(s3), "0.tar/cat/a.png")) == picture(1)


def test_a_damaged_file_in_object_storage(pack: Pack, s3: str) -> None:
    root = pack({"0.tar": {"a.png": picture(0), "b.png": picture(1)}})
    open_location(s3).write("0.tar", (root / "0.tar").read_bytes()[:95_000])
    with pytest.raises(SourceError, match=r"0\.tar: cut off within|cannot be read as a tar file"):
        open_source(s3)


def test_a_service_that_fails_is_no_damage(
    pack: Pack, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(pack({"0.tar": {"cat/a.png": picture(0)}}), s3)

    def fail(self: Any, *_: Any, **__: Any) -> bytes:
        raise ConnectionError("the line is cut")

    monkeypatch.setattr("s3fs.core.S3File._fetch_range", fail)
    with pytest.raises(StoreUnreachableError, match="the line is cut"):
        open_source(s3)
