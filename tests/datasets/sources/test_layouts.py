"""Finding the layout, and options that belong to one."""

from pathlib import Path

import pytest

from latentset.datasets.errors import SourceError
from latentset.datasets.sources import open_source
from latentset.datasets.sources.layouts import find_kind
from tests.makers.plant import Plant


@pytest.mark.parametrize(
    ("paths", "kind"),
    [
        (["cat/1.jpg"], "imagefolder"),
        (["train/cat/1.jpg", "val/cat/2.jpg"], "imagefolder"),
        (["1.jpg"], "imagefolder"),
        (["n01440764/1.JPEG"], "imagefolder"),
        (["val/1.jpg"], "imagefolder"),
        (["train/ILSVRC2012_val_00000001.JPEG"], "imagefolder"),
        (["train/n01440764/1.JPEG", "train/cat/1.JPEG"], "imagefolder"),
        (["train/n01440764/1.JPEG"], "imagenet"),
        (["val/n01440764/1.JPEG"], "imagenet"),
        (["val/ILSVRC2012_val_00000001.JPEG"], "imagenet"),
        (["categories.txt", "labels/train1.txt", "images/brick/1.jpg"], "minc2500"),
    ],
)
def test_kind_is_found(plant: Plant, paths: list[str], kind: str) -> None:
    assert find_kind(plant(paths)) == kind


@pytest.mark.parametrize("name", ["list.csv", "list.CSV", "list.parquet"])
def test_lists_are_found_by_their_ending(plant: Plant, name: str) -> None:
    assert find_kind(plant([name]) / name) == "list"


def test_a_folder_named_like_a_list(plant: Plant) -> None:
    assert find_kind(plant(["list.csv/cat/1.jpg"]) / "list.csv") == "imagefolder"


def test_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="absent: no such file or folder"):
        open_source(tmp_path / "absent")
    (tmp_path / "image.jpg").touch()
    with pytest.raises(SourceError, match="expected a folder of images, found a file"):
        open_source(tmp_path / "image.jpg")


def test_kind_can_be_said(plant: Plant) -> None:
    source = open_source(plant(["train/n01440764/1.JPEG"]), "imagefolder")
    assert source.kind == "imagefolder"
    assert source.classes == ("n01440764",)


def test_options_of_another_layout_are_refused(plant: Plant) -> None:
    root = plant(["cat/1.jpg"])
    with pytest.raises(SourceError, match=r"minc_split is for the layout minc2500, .* imagefolder"):
        open_source(root, minc_split=2)
    with pytest.raises(SourceError, match=r"devkit is for the layout imagenet, .* imagefolder"):
        open_source(root, devkit=root)
    with pytest.raises(SourceError, match=r"root is for the layout list, .* imagefolder"):
        open_source(root, root=root)


def test_order_is_the_same_again(plant: Plant) -> None:
    root = plant(f"{c}/{i}.jpg" for c in "zyx" for i in range(30))
    assert open_source(root).samples == open_source(root).samples
