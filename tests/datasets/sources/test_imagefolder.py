"""Class folders, against torchvision's ImageFolder where it is installed."""

import os
from pathlib import Path

import pytest

from latentset.datasets.errors import SourceError
from latentset.datasets.sources import Source, open_source
from latentset.datasets.sources.imagefolder import open_imagefolder
from latentset.datasets.sources.tree import EXTENSIONS
from tests.makers.plant import Plant

NESTED = [
    "dog/b.JPG",
    "dog/a.png",
    "dog/a/b/3.jpeg",
    "dog/a-b/1.webp",
    "dog/a/2.tif",
    "Cat/x.bmp",
    "cat/ü.pgm",
    "cat/notes.txt",
    "cat/10.ppm",
    "cat/9.tiff",
    "readme.md",
]


def rows(source: Source) -> list[tuple[str, int, str]]:
    assert source.samples["id"] == source.samples["path"]
    return [(row["path"], row["label"], row["split"]) for row in source.samples.to_pylist()]


def test_classes_without_splits(plant: Plant) -> None:
    source = open_imagefolder(plant(NESTED))
    assert source.kind == "imagefolder"
    assert source.folder.is_absolute()
    assert source.classes == ("Cat", "cat", "dog")
    assert rows(source) == [
        ("Cat/x.bmp", 0, ""),
        ("cat/10.ppm", 1, ""),
        ("cat/9.tiff", 1, ""),
        ("cat/ü.pgm", 1, ""),
        ("dog/a.png", 2, ""),
        ("dog/b.JPG", 2, ""),
        ("dog/a/2.tif", 2, ""),
        ("dog/a-b/1.webp", 2, ""),
        ("dog/a/b/3.jpeg", 2, ""),
    ]


def test_equal_to_torchvision(plant: Plant) -> None:
    datasets = pytest.importorskip("torchvision.datasets", reason="train environment only")
    root = plant(NESTED)
    expected = datasets.ImageFolder(root)
    source = open_imagefolder(root)
    assert list(source.classes) == expected.classes
    assert rows(source) == [(os.path.relpath(p, root), label, "") for p, label in expected.samples]
    known = datasets.folder.IMG_EXTENSIONS
    assert (*known, ".gif") == EXTENSIONS


def test_equal_to_torchvision_on_images(real_images: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets", reason="train environment only")
    root = real_images / "trashnet"
    expected = datasets.ImageFolder(root)
    source = open_source(root)
    assert source.kind == "imagefolder"
    assert list(source.classes) == expected.classes
    assert rows(source) == [(os.path.relpath(p, root), label, "") for p, label in expected.samples]


def test_splits_share_the_numbering_of_classes(plant: Plant) -> None:
    source = open_imagefolder(
        plant(["test/c/3.jpg", "valid/b/2.jpg", "train/c/1.jpg", "train/a/1.jpg", "test/4.jpg"])
    )
    assert source.classes == ("a", "b", "c")
    assert rows(source) == [
        ("train/a/1.jpg", 0, "train"),
        ("train/c/1.jpg", 2, "train"),
        ("valid/b/2.jpg", 1, "val"),
        ("test/c/3.jpg", 2, "test"),
    ]


def test_folders_without_classes(plant: Plant) -> None:
    source = open_imagefolder(plant(["b.jpg", "a.png", "notes.txt"]))
    assert source.classes == ()
    assert rows(source) == [("a.png", -1, ""), ("b.jpg", -1, "")]


def test_split_without_classes(plant: Plant) -> None:
    source = open_imagefolder(plant(["train/a/1.jpg", "test/2.jpg"]))
    assert source.classes == ("a",)
    assert rows(source) == [("train/a/1.jpg", 0, "train"), ("test/2.jpg", -1, "test")]


def test_a_class_called_train(plant: Plant) -> None:
    source = open_imagefolder(plant(["bus/1.jpg", "train/2.jpg"]))
    assert source.classes == ("bus", "train")
    assert rows(source) == [("bus/1.jpg", 0, ""), ("train/2.jpg", 1, "")]


def test_what_looks_like_splits_is_named(plant: Plant) -> None:
    expected = (
        r": the folders testA, trainA look like splits, but may be classes\. Keep only train, "
    )
    with pytest.raises(SourceError, match=expected):
        open_imagefolder(plant(["trainA/1.jpg", "testA/2.jpg"]))


def test_splits_beside_other_folders_are_refused(plant: Plant) -> None:
    root = plant(["train/a/1.jpg", "val/a/2.jpg", "annotations/3.png"])
    with pytest.raises(SourceError, match="train, val look like splits, but beside them are annot"):
        open_imagefolder(root)


def test_one_split_under_two_names_is_refused(plant: Plant) -> None:
    with pytest.raises(SourceError, match="val and validation are both the split val"):
        open_imagefolder(plant(["train/a/1.jpg", "val/a/2.jpg", "validation/a/3.jpg"]))


def test_class_without_image_is_refused(plant: Plant) -> None:
    root = plant(["a/1.jpg", "b/1.txt", "c/deep/er/1.heic"])
    with pytest.raises(SourceError, match=r"no image in the class folders b, c \(2 in all\)"):
        open_imagefolder(root)


def test_nothing_there_is_refused(plant: Plant) -> None:
    with pytest.raises(SourceError, match="no images there"):
        open_imagefolder(plant(["readme.md"]))


def test_hidden_names_are_passed_over(plant: Plant) -> None:
    source = open_imagefolder(
        plant(["a/1.jpg", "a/._1.jpg", ".ipynb_checkpoints/2.jpg", "a/.x/3.jpg"])
    )
    assert source.classes == ("a",)
    assert rows(source) == [("a/1.jpg", 0, "")]


def test_folder_named_like_a_image(plant: Plant) -> None:
    assert rows(open_imagefolder(plant(["a/x.jpg/1.jpg", "a/2.gif"]))) == [
        ("a/2.gif", 0, ""),
        ("a/x.jpg/1.jpg", 0, ""),
    ]


def test_links_within_the_root_are_followed(plant: Plant) -> None:
    root = plant(["a/1.jpg", "a/deep/2.jpg"])
    (root / "b").symlink_to("a/deep")
    (root / "a" / "3.jpg").symlink_to("1.jpg")
    assert rows(open_imagefolder(root)) == [
        ("a/1.jpg", 0, ""),
        ("a/3.jpg", 0, ""),
        ("a/deep/2.jpg", 0, ""),
        ("b/2.jpg", 1, ""),
    ]


@pytest.mark.parametrize(
    ("link", "target"), [("b", "../outside"), ("a/2.jpg", "/etc/hostname"), ("a/2.jpg", "../../x")]
)
def test_links_out_of_the_root_are_refused(plant: Plant, link: str, target: str) -> None:
    root = plant(["a/1.jpg"])
    (root.parent / "outside").mkdir()
    (root / link).symlink_to(target)
    with pytest.raises(SourceError, match=f"the link '{link}' leads out of the source"):
        open_imagefolder(root)


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_links_in_a_circle_are_refused(plant: Plant, target: str) -> None:
    root = plant(["a/deep/1.jpg"])
    (root / "a" / "deep" / "again").symlink_to(target)
    with pytest.raises(SourceError, match="'a/deep/again' leads back to a folder above itself"):
        open_imagefolder(root)


def test_a_root_that_is_a_link(plant: Plant) -> None:
    root = plant(["a/1.jpg"])
    (root.parent / "elsewhere").symlink_to(root)
    source = open_imagefolder(root.parent / "elsewhere")
    assert source.folder == root.resolve()
    assert rows(source) == [("a/1.jpg", 0, "")]


def test_a_name_that_is_no_text_is_refused(plant: Plant) -> None:
    root = plant(["a/1.jpg"])
    with open(os.fsencode(root) + b"/a/\xff.jpg", "wb"):  # noqa: PTH123  (bytes are the point)
        pass
    with pytest.raises(SourceError, match=r"a/\\udcff.jpg' is not UTF-8"):
        open_imagefolder(root)


def test_no_look_at_each_file(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    # At 1.28 million images on a network file system, a look at each takes an hour.
    root = plant(
        f"{split}/{c}/{i}.jpg" for split in ("train", "val") for c in "ab" for i in range(50)
    )
    looks: list[object] = []
    for name in ("stat", "lstat", "open", "readlink"):
        original = getattr(os, name)

        def count(*args: object, original: object = original, **options: object) -> object:
            looks.append(args)
            assert callable(original)
            return original(*args, **options)

        monkeypatch.setattr(os, name, count)
    assert open_imagefolder(root).samples.num_rows == 200
    assert len(looks) < 50


@pytest.mark.parametrize(
    ("paths", "splits", "classes"),
    [
        (["Train/a/1.jpg", "Test/a/2.jpg", "Test/b/3.jpg"], "train test test", ("a", "b")),
        (["TRAIN/a/1.jpg", "TEST/a/2.jpg"], "train test", ("a",)),
        (["Training/a/1.jpg", "Testing/a/2.jpg"], "train test", ("a",)),
        (["archive/Training/a/1.jpg", "archive/Testing/a/2.jpg"], "train test", ("a",)),
        (["seg_train/seg_train/a/1.jpg", "seg_test/seg_test/a/2.jpg"], "train test", ("a",)),
        (["train_images/a/1.jpg", "test_images/2.jpg"], "train test", ("a",)),
        (["train2017/a/1.jpg", "val2017/a/2.jpg"], "train val", ("a",)),
        (["TrainSet/a/1.jpg", "ValidationSet/a/2.jpg", "notes/x.txt"], "train val", ("a",)),
        (["images/a/1.jpg", "images/b/2.jpg", "annotations/1.xml"], " ", ("a", "b")),
        (["data/images/a/1.jpg", "data/images/b/2.jpg"], " ", ("a", "b")),
        (["a/1.jpg", "a/deep/2.jpg"], " ", ("a",)),
        (["train_station/1.jpg", "harbour/2.jpg"], " ", ("harbour", "train_station")),
    ],
)
def test_folders_as_people_download_them(
    plant: Plant, paths: list[str], splits: str, classes: tuple[str, ...]
) -> None:
    source = open_source(plant(paths))
    assert source.classes == classes
    assert source.samples["split"].to_pylist() == splits.split(" ")


@pytest.mark.parametrize(
    "paths",
    [
        ["trainA/1.jpg", "trainB/2.jpg", "testA/3.jpg"],
        ["train/1.jpg", "bus/2.jpg", "test/3.jpg"],
        ["a/train/1.jpg", "a/test/2.jpg", "b/train/3.jpg"],
        ["train/a/1.jpg", "Train/a/2.jpg"],
    ],
)
def test_what_may_be_splits_is_asked_about(plant: Plant, paths: list[str]) -> None:
    root = plant(paths)
    with pytest.raises(SourceError, match="allow split-names"):
        open_source(root)
    source = open_source(root, allow=["split-names", "similar-classes"])
    assert source.classes == tuple(sorted({path.partition("/")[0] for path in paths}))
    assert set(source.samples["split"].to_pylist()) == {""}


NESTED_CLASSES: dict[str, tuple[list[str], str]] = {
    "kinds of images": (
        [f"{kind}/{name}/1.jpg" for kind in ("color", "gray", "seg") for name in ("a", "b", "c")],
        r"'color', 'gray', 'seg' hold .* \('a', 'b', 'c'\), .*: name the folder to .* \(.*/color\)",
    ),
    "some in common": (
        ["query/a/1.jpg", "query/b/1.jpg", "gallery/a/1.jpg", "gallery/b/x/1.jpg", "c/1.jpg"],
        r"'gallery', 'query' hold .* \('a', 'b'\)",
    ),
    "below a wrapper": (
        ["set/fold1/a/1.jpg", "set/fold1/b/1.jpg", "set/fold2/a/1.jpg", "set/fold2/b/1.jpg"],
        r"set: .*'fold1', 'fold2' hold .*/set/fold1\)",
    ),
    "in a split": (
        [f"train/{kind}/{name}/1.jpg" for kind in ("rgb", "depth") for name in ("a", "b")],
        r"train: .*'depth', 'rgb' hold .* clear: give a list",
    ),
    "classes and a copy of them": (
        ["no/1.jpg", "yes/1.jpg", "other/no/1.jpg", "other/yes/2.jpg", "other/loose.jpg"],
        r"'\.', 'other' hold .* \('no', 'yes'\), .*encode \(.*/other\)",
    ),
}


@pytest.mark.parametrize("name", NESTED_CLASSES)
def test_folders_above_the_classes_are_no_classes(plant: Plant, name: str) -> None:
    paths, expected = NESTED_CLASSES[name]
    root = plant(paths)
    with pytest.raises(SourceError, match=expected + ".* --allow nested-classes"):
        open_source(root)
    assert open_source(root, allow=["nested-classes"]).samples.num_rows == len(paths)


@pytest.mark.parametrize(
    "paths",
    [
        ["cat/left/1.jpg", "dog/left/1.jpg", "dog/right/1.jpg"],
        ["cat/1.jpg", "cat/a/1.jpg", "cat/b/1.jpg", "dog/a/1.jpg", "dog/b/1.jpg"],
        ["cat/a/1.jpg", "cat/b/1.jpg", "dog/a/1.jpg", "dog/b/notes.txt"],
        ["cat/cat/1.jpg", "cat/dog/1.jpg", "dog/2.jpg"],
        ["train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"],
    ],
)
def test_folders_within_classes_are_no_classes(plant: Plant, paths: list[str]) -> None:
    assert open_source(plant(paths)).classes == ("cat", "dog")


def test_splits_within_classes_are_allowed_by_their_names_alone(plant: Plant) -> None:
    root = plant([f"{name}/{split}/1.jpg" for name in "ab" for split in ("train", "test")])
    assert open_source(root, allow=["split-names"]).classes == ("a", "b")


def test_what_is_skipped_is_counted(plant: Plant) -> None:
    junk = ["__MACOSX/a/._1.jpg", "a/@eaDir/1.jpg/thumb.jpg", "a/.DS_Store", "a/Thumbs.db"]
    files = ["a/1.jpg", "a/2.jfif", "a/3.JFIF", "a/noending", "loose.png", *junk]
    source = open_source(plant(files))
    assert [path for path, _, _ in rows(source)] == ["a/1.jpg"]
    assert source.excluded == {
        ".jfif files": 2,
        ".db files": 1,
        "files without ending": 1,
        "folder @eaDir": 1,
        "folder __MACOSX": 1,
        "hidden names": 1,
        "images outside of class folders": 1,
    }
