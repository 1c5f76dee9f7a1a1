"""MINC-2500's layout as distributed, in small."""

from pathlib import Path

import pytest

from latentset.datasets.errors import SourceError
from latentset.datasets.sources import open_source
from latentset.datasets.sources.minc2500 import open_minc2500
from tests.makers.plant import Plant

IMAGES = [f"images/{name}/{name}_00000{i}.jpg" for name in ("brick", "carpet") for i in range(5)]
LABELS = {
    "categories.txt": "carpet\nbrick\n",  # the file's order counts, not the alphabet's
    "labels/train1.txt": "images/carpet/carpet_000001.jpg\nimages/brick/brick_000003.jpg\n"
    "images/brick/brick_000000.jpg\n\n",
    "labels/validate1.txt": "images/brick/brick_000001.jpg\r\n",
    "labels/test1.txt": "images/carpet/carpet_000000.jpg\nimages/brick/brick_000004.jpg",
    "labels/train5.txt": "images/brick/brick_000002.jpg\n",
    "labels/validate5.txt": "images/brick/brick_000003.jpg\n",
    "labels/test5.txt": "images/carpet/carpet_000002.jpg\n",
}


def test_first_split(plant: Plant) -> None:
    source = open_minc2500(plant(IMAGES, LABELS))
    assert source.kind == "minc2500"
    assert source.classes == ("carpet", "brick")
    assert [tuple(row.values()) for row in source.samples.to_pylist()] == [
        (path, path, label, split)
        for path, label, split in [
            ("images/carpet/carpet_000001.jpg", 0, "train"),
            ("images/brick/brick_000000.jpg", 1, "train"),
            ("images/brick/brick_000003.jpg", 1, "train"),
            ("images/brick/brick_000001.jpg", 1, "val"),
            ("images/carpet/carpet_000000.jpg", 0, "test"),
            ("images/brick/brick_000004.jpg", 1, "test"),
        ]
    ]


def test_another_split_by_its_number(plant: Plant) -> None:
    source = open_source(plant(IMAGES, LABELS), minc_split=5)
    assert source.kind == "minc2500"
    assert source.samples["path"].to_pylist() == [
        "images/brick/brick_000002.jpg",
        "images/brick/brick_000003.jpg",
        "images/carpet/carpet_000002.jpg",
    ]


@pytest.mark.parametrize("number", [0, 6])
def test_a_split_that_is_not_there(plant: Plant, number: int) -> None:
    with pytest.raises(SourceError, match=f"splits 1 to 5, but {number} was asked for"):
        open_minc2500(plant(IMAGES, LABELS), number)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels/test1.txt", None, "labels/test1.txt is missing"),
        ("categories.txt", None, "categories.txt is missing"),
        (
            "labels/train1.txt",
            "images/brick/brick_000000.jpg\n\nimages/wood/wood_000000.jpg\n",
            "line 3: expected images/CLASS/FILE .*found 'images/wood/wood_000000.jpg'",
        ),
        ("labels/train1.txt", "brick/brick_000000.jpg", "line 1: expected images/CLASS/FILE"),
        ("labels/train1.txt", "images/brick/../x.jpg", "line 1: expected images/CLASS/FILE"),
        ("labels/train1.txt", "copies/brick/brick_000000.jpg", "expected images/CLASS/FILE"),
        ("labels/train1.txt", "images/brick", "line 1: expected images/CLASS/FILE"),
        (
            "labels/train1.txt",
            "images/brick/brick_000000.jpg\nimages/brick/brick_000000.jpg\n",
            "line 2: images/brick/brick_000000.jpg is already listed in labels/train1.txt",
        ),
        (
            "labels/test1.txt",
            "images/carpet/carpet_000001.jpg\n",
            "test1.txt, line 1: .* is already listed in labels/train1.txt",
        ),
        (
            "labels/test1.txt",
            "images/carpet/carpet_000009.jpg\n",
            "test1.txt, line 1: images/carpet/carpet_000009.jpg is listed, but no such image",
        ),
        ("categories.txt", "brick\ncarpet\nbrick\n", "'brick' twice, or no name of a class"),
        ("categories.txt", "brick\n../brick\n", "twice, or no name of a class"),
        ("categories.txt", "brick\ncarpet\nwood\n", None),
    ],
)
def test_errors_name_the_line(
    plant: Plant, name: str, text: str | None, message: str | None
) -> None:
    root = plant(IMAGES, LABELS)
    (root / name).unlink()
    if text is not None:
        (root / name).write_text(text)
    if message is None:
        assert open_minc2500(root).classes == ("brick", "carpet", "wood")
    else:
        with pytest.raises(SourceError, match=message):
            open_minc2500(root)


def test_class_folder_missing(plant: Plant) -> None:
    root = plant([path for path in IMAGES if "carpet" not in path], LABELS)
    with pytest.raises(SourceError, match="is listed, but no such image is there; unpack"):
        open_minc2500(root)


def test_text_that_is_none(plant: Plant) -> None:
    root = plant(IMAGES, LABELS)
    (root / "categories.txt").write_bytes(b"br\xffck\n")
    with pytest.raises(SourceError, match="not a text file in UTF-8"):
        open_minc2500(root)


def test_link_out_of_the_root(plant: Plant) -> None:
    root: Path = plant(IMAGES, LABELS)
    (root / "images" / "brick" / "brick_000000.jpg").unlink()
    (root / "images" / "brick" / "brick_000000.jpg").symlink_to("/etc/hostname")
    with pytest.raises(
        SourceError, match=r"'images/brick/brick_000000.jpg' leads out of the source"
    ):
        open_minc2500(root)
