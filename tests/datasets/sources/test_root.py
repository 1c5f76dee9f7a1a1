"""Images in object storage, on a real S3 server: listed, and read, as those of a folder are."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentset.datasets.errors import ImageError, SourceError, StoreUnreachableError
from latentset.datasets.sources import open_root, open_source, resolve_inside
from latentset.datasets.sources.images import decode_image, read_bytes, read_size
from latentset.datasets.sources.listing import check_root
from latentset.datasets.sources.remote_image import RemoteImage
from latentset.datasets.storage.location import Bucket
from tests.makers.plant import Plant

NAMES = (
    "train/cat/b.jpg",
    "train/cat/deep/a.PNG",
    "train/dog/a b#%?é[c].jpg",
    "val/cat/1.jpg",
    "val/dog/notes.txt",
    "val/dog/2.jpg",
    "val/dog/.DS_Store",
    "__MACOSX/train/cat/._b.jpg",
)


def put(url: str, name: str, content: bytes = b"x") -> None:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    boto3: Any = pytest.importorskip("boto3")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=content)


def picture(height: int, width: int, **options: Any) -> bytes:
    out = io.BytesIO()
    options = {"format": "PNG"} | options
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(out, **options)
    return out.getvalue()


def test_a_prefix_is_listed_as_a_folder_is(s3: str, plant: Plant) -> None:
    for name in NAMES:
        put(s3, name)
    put(s3, "train/cat/")  # consoles make such objects for folders
    put(s3, "train//cat/x.jpg")
    put(f"{s3}-other", "bird/1.jpg")  # not below the prefix
    near, far = open_source(plant(list(NAMES))), open_source(f"{s3}/")
    assert far.samples.equals(near.samples)
    assert far.classes == near.classes == ("cat", "dog")
    assert far.excluded == near.excluded
    assert (far.kind, far.root) == (near.kind, Bucket(s3))


def test_an_empty_prefix(s3: str) -> None:
    with pytest.raises(SourceError, match="no images there"):
        open_source(s3)


@pytest.mark.parametrize(
    ("location", "kind", "message"),
    [
        ("{s3}", "minc2500", "the layout minc2500 is read from a folder"),
        ("{s3}/list.csv", "auto", "the layout list is read from a folder"),
        ("https://example.org/images", "auto", "a web server has no list of them"),
        ("hf://datasets/org/images", "auto", "a web server has no list of them"),
        ("s3:/bucket/images", "auto", "expected a folder or s3://BUCKET/…"),
    ],
)
def test_what_is_no_source(s3: str, location: str, kind: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(location.format(s3=s3), kind)


def test_a_list_of_images_in_a_bucket(s3: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\nb/2.jpg,dog\na/1.jpg,cat\n")
    source = open_source(tmp_path / "list.csv", root=s3)
    assert source.samples["path"].to_pylist() == ["b/2.jpg", "a/1.jpg"]
    assert source.root == Bucket(s3)
    with pytest.raises(SourceError, match=r"none of the first 2 images .*/b/2\.jpg: .*--root"):
        check_root(source)
    put(s3, "a/1.jpg", b"image")
    check_root(source)


def test_reading(s3: str) -> None:
    # A large one, whose header is at the beginning, and one whose header is at the end.
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    for name, options in {"a.png": {}, "b.tif": {"format": "TIFF"}}.items():
        out = io.BytesIO()
        Image.fromarray(noise).save(out, **({"format": "PNG"} | options))
        put(s3, name, out.getvalue())
        image = resolve_inside(open_root(s3), name)
        assert isinstance(image, RemoteImage)
        assert image.size == len(out.getvalue()) > 1 << 16
        assert read_size(image) == (200, 300)
        assert read_bytes(image) == out.getvalue()
        np.testing.assert_array_equal(decode_image(read_bytes(image)), noise)


@pytest.mark.parametrize("read", [read_bytes, read_size])
@pytest.mark.parametrize(
    ("content", "status"), [(None, "missing"), (b"", "empty"), (b"<html>", "not_an_image")]
)
def test_what_cannot_be_read_has_its_status(
    s3: str, read: Callable[[Any], Any], content: bytes | None, status: str
) -> None:
    if content is not None:
        put(s3, "a.jpg", content)
    if status == "not_an_image" and read is read_bytes:
        return
    with pytest.raises(ImageError) as error:
        read(resolve_inside(open_root(s3), "a.jpg"))
    assert error.value.status == status


def test_a_path_stays_below_the_prefix(s3: str) -> None:
    for path in ("../a.jpg", "/a.jpg", "a/../../b.jpg"):
        with pytest.raises(SourceError, match="is not below the source's root"):
            resolve_inside(open_root(s3), path)


def test_a_service_that_does_not_answer_is_no_missing_image(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Bucket, path: str, first: int, size: int) -> bytes:
        raise OSError("the line is cut")

    put(s3, "a.png", picture(32, 32))
    monkeypatch.setattr(Bucket, "read_part", fail)
    with pytest.raises(StoreUnreachableError, match="the line is cut"):
        read_size(resolve_inside(open_root(s3), "a.png"))
