"""Finding the layout, and options that belong to one."""

import json
import os
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
    with pytest.raises(SourceError, match=r"expected a folder of images, found a file$"):
        open_source(tmp_path / "image.jpg")


def test_archives_are_named(plant: Plant) -> None:
    root = plant(["images/set.tar.gz", "images/notes.txt"])
    expected = r"skipped: \.gz files \(1\), \.txt files \(1\)\. Unpack archives first"
    with pytest.raises(SourceError, match=expected):
        open_source(root / "images")
    with pytest.raises(SourceError, match="found a file; unpack it first"):
        open_source(root / "images" / "set.tar.gz")


@pytest.mark.parametrize("split", ["val", "test"])
def test_splits_without_a_common_class_are_refused(plant: Plant, split: str) -> None:
    root = plant(["train/cat/1.jpg", "train/dog/1.jpg", f"{split}/cats/1.jpg"])
    expected = rf"train \(2 classes: cat, dog\) and {split} \(1: cats\) have no class"
    with pytest.raises(SourceError, match=expected):
        open_source(root)
    assert len(open_source(root, allow=["disjoint-splits"]).classes) == 3
    assert len(open_source(plant([f"{split}/cat/1.jpg"])).classes) == 3


def test_splits_of_a_list_without_a_common_class_are_refused(tmp_path: Path) -> None:
    lines = [*(f"{name}.jpg,{name},train" for name in "dcba"), "e.jpg,e,val"]
    (tmp_path / "l.csv").write_text("\n".join(["path,label,split", *lines]))
    expected = r"l\.csv: train \(4 classes: a, b, c, …\) and val \(1: e\) have .*: give a class the"
    with pytest.raises(SourceError, match=expected):
        open_source(tmp_path / "l.csv")


@pytest.mark.parametrize("name", ["l.tsv", "l.txt", "l.XLSX", "l.json"])
def test_other_tables_are_no_lists(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(SourceError, match=r"a list is a \.csv or \.parquet file: convert it"):
        open_source(tmp_path / name)
    (tmp_path / "folder" / name / "cat").mkdir(parents=True)
    (tmp_path / "folder" / name / "cat" / "1.jpg").touch()
    assert open_source(tmp_path / "folder" / name).classes == ("cat",)


def test_a_store_is_no_source(plant: Plant) -> None:
    group = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"latentset": {}}})
    root = plant(["b.h5"], {"a.zarr/zarr.json": group, "c/zarr.json": "[1]"})
    (root / "c/cat").mkdir()
    (root / "c/cat/1.jpg").touch()
    for name in ("a.zarr", "b.h5"):
        with pytest.raises(SourceError, match=rf"{name} is a store, .*: latentset encode SOURCE"):
            open_source(root / name)
    assert open_source(root / "c").classes == ("cat",)


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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "Cat"),
        ("caf\u00e9", "cafe\u0301"),
        ("cat", "cat "),
        ("cat", "cat\u200b"),
        ("cat", "\u200ecat"),
        ("cat", "c\u00adat"),
        ("caf\u00e9", "caf\ufeffe\u0301"),
    ],
)
def test_classes_that_differ_by_a_mistake_are_refused(
    plant: Plant, tmp_path: Path, one: str, other: str
) -> None:
    root = plant([f"{one}/1.jpg", f"{other}/2.jpg"])
    listed = tmp_path / "list.csv"
    listed.write_text(f"path,label\na.jpg,{one}\nb.jpg,{other}\n")
    for source in (root, listed):
        with pytest.raises(
            SourceError, match="differ in case, Unicode form, blanks or invisible characters"
        ):
            open_source(source)
        assert len(open_source(source, allow=["similar-classes"]).classes) == 2


def test_a_mistyped_allowance_is_refused(plant: Plant) -> None:
    with pytest.raises(
        SourceError,
        match="expected similar-classes or split-names or nested-classes or disjoint-splits, got '",
    ):
        open_source(plant(["a/1.jpg"]), allow=["splits"])


def test_a_pipe_named_as_a_header_is_not_opened(plant: Plant) -> None:
    root = plant(["cat/1.jpg"])
    os.mkfifo(root / "zarr.json")
    assert open_source(root).classes == ("cat",)
