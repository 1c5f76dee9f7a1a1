"""ImageNet's two layouts; the devkit is made by the tests, in the form of the distributed one."""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from latentset.datasets.errors import MissingEnvironmentError, SourceError
from latentset.datasets.sources import Source, open_source
from latentset.datasets.sources.imagenet import open_imagenet
from tests.makers.plant import Plant

CLASS_FOLDERS = [
    "train/n01443537/n01443537_2.JPEG",
    "train/n01440764/n01440764_10026.JPEG",
    "train/n01440764/n01440764_18.JPEG",
    "val/n01443537/ILSVRC2012_val_00000236.JPEG",
    "val/n02119789/ILSVRC2012_val_00000001.JPEG",
]
FLAT = [f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in (3, 1, 2)]
# The devkit numbers its classes in an order of its own: 1 is n02119789, the last of these WNIDs.
WNIDS = ["n02119789", "n01443537", "n01440764"]
TRUTH = "2\n1\n3\n2\n"


def rows(source: Source) -> list[tuple[str, int, str]]:
    return [(row["path"], row["label"], row["split"]) for row in source.samples.to_pylist()]


def meta_mat() -> bytes:
    """Write meta.mat: the classes, then a synset that has children and so is no class."""
    io_module = pytest.importorskip("scipy.io", reason="scipy comes with the encode environment")
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children"]
    synsets = np.empty((4, 1), dtype=[(name, object) for name in fields])
    for row, wnid in enumerate([*WNIDS, "n00001740"]):
        children = np.array([[1, 2]]) if row == 3 else np.zeros((0, 0))
        values = (row + 1, wnid, "kit fox, Vulpes macrotis", "a fox", children.size, children)
        synsets[row, 0] = values
    buffer = io.BytesIO()
    io_module.savemat(buffer, {"synsets": synsets})
    return buffer.getvalue()


def write_devkit(folder: Path, truth: str = TRUTH, meta: bytes | None = None) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    (folder / "data" / "meta.mat").write_bytes(meta_mat() if meta is None else meta)
    return folder


def test_class_folders(plant: Plant) -> None:
    source = open_imagenet(plant(CLASS_FOLDERS))
    assert source.kind == "imagenet"
    assert source.classes == ("n01440764", "n01443537", "n02119789")
    assert rows(source) == [
        ("train/n01440764/n01440764_10026.JPEG", 0, "train"),
        ("train/n01440764/n01440764_18.JPEG", 0, "train"),
        ("train/n01443537/n01443537_2.JPEG", 1, "train"),
        ("val/n01443537/ILSVRC2012_val_00000236.JPEG", 1, "val"),
        ("val/n02119789/ILSVRC2012_val_00000001.JPEG", 2, "val"),
    ]


def test_what_is_beside_the_splits_is_counted(plant: Plant) -> None:
    beside = ["loose.JPEG", "test/ILSVRC2012_test_00000001.JPEG", "notes.txt"]
    root = plant([*CLASS_FOLDERS, *beside])
    (root / "labels").symlink_to("/tmp")
    (root / "test/up").symlink_to("..")
    source = open_imagenet(root)
    assert len(source.samples) == len(CLASS_FOLDERS)
    assert source.excluded == {
        "images outside of class folders": 1,
        "folder test": 1,
    }


def test_real_images(real_images: Path) -> None:
    source = open_source(real_images / "imagenet-sample")
    assert source.kind == "imagenet"
    assert len(source.classes) == 120
    assert list(source.classes) == sorted(source.classes)
    assert source.samples["label"].to_pylist() == list(range(120))  # one image a class
    assert set(source.samples["split"].to_pylist()) == {"val"}


FLAT_ROWS = [
    ("val/ILSVRC2012_val_00000001.JPEG", 1, "val"),
    ("val/ILSVRC2012_val_00000002.JPEG", 2, "val"),
    ("val/ILSVRC2012_val_00000003.JPEG", 0, "val"),
]


def test_flat_folder_with_devkit(plant: Plant) -> None:
    root = plant([*FLAT, "test/ILSVRC2012_test_00000001.JPEG"])
    write_devkit(root / "ILSVRC2012_devkit_t12")
    source = open_source(root)
    assert source.kind == "imagenet"
    assert source.classes == ("n01440764", "n01443537", "n02119789")
    assert rows(source) == FLAT_ROWS


def test_flat_folder_with_packed_devkit(plant: Plant) -> None:
    root = plant(FLAT)
    write_devkit(root.parent / "kit")
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(root.parent / "kit", "ILSVRC2012_devkit_t12")
    assert rows(open_imagenet(root)) == FLAT_ROWS


def test_flat_folder_with_a_text_of_wnids(plant: Plant) -> None:
    root = plant(FLAT)
    truth = root.parent / "truth.txt"
    truth.write_text("n01443537\nn02119789\nn01440764\nn01443537\n")
    assert rows(open_imagenet(root, truth)) == FLAT_ROWS


def test_flat_folder_beside_training(plant: Plant) -> None:
    # The training folder lacks a class: the numbering is that of all classes, nevertheless.
    root = plant([*FLAT, "train/n02119789/a.JPEG"])
    truth = root.parent / "truth.txt"
    truth.write_text("n01443537\nn02119789\nn01440764\n")
    source = open_imagenet(root, truth)
    assert source.classes == ("n01440764", "n01443537", "n02119789")
    assert rows(source) == [("train/n02119789/a.JPEG", 2, "train"), *FLAT_ROWS]


def test_equal_to_torchvision(plant: Plant) -> None:
    """With WNIDs as the ground truth, since torchvision's own reader of the devkit needs scipy."""
    datasets = pytest.importorskip("torchvision.datasets", reason="train environment only")
    root = plant(FLAT)
    wnids = ["n01443537", "n02119789", "n01440764"]
    (root.parent / "truth.txt").write_text("\n".join(wnids))
    ours = {
        Path(path).name: label
        for path, label, _ in rows(open_imagenet(root, root.parent / "truth.txt"))
    }

    images = sorted((root / "val").iterdir())
    for wnid, image in zip(wnids, images, strict=True):  # the loop of parse_val_archive
        (root / "val" / wnid).mkdir()
        image.rename(root / "val" / wnid / image.name)
    expected = datasets.ImageFolder(root / "val")
    assert ours == {Path(path).name: label for path, label in expected.samples}


def test_flat_folder_without_ground_truth(plant: Plant) -> None:
    with pytest.raises(SourceError, match=r"put ILSVRC2012_devkit_t12 or .* beside it"):
        open_source(plant(FLAT))


def test_devkit_without_scipy(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(FLAT)
    write_devkit(root / "ILSVRC2012_devkit_t12", meta=b"anything")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(
        MissingEnvironmentError, match=r"install the extra 'encode' .* or give a .txt"
    ):
        open_imagenet(root)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("2\n1\n4\n", "has an entry that is no class: 4"),  # 4 has children
        ("2\n1\nx\n", "has an entry that is no class"),
        ("2\n1\n", "expected ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00000002.JPEG"),
    ],
)
def test_ground_truth_that_does_not_fit(plant: Plant, truth: str, message: str) -> None:
    root = plant(FLAT)
    write_devkit(root / "ILSVRC2012_devkit_t12", truth)
    with pytest.raises(SourceError, match=message):
        open_imagenet(root)


def test_broken_devkits(plant: Plant) -> None:
    pytest.importorskip("scipy.io", reason="scipy comes with the encode environment")
    root = plant(FLAT)
    kit = write_devkit(root.parent / "broken", meta=b"MATLAB 5.0 MAT-file, not")
    with pytest.raises(SourceError, match=r"data/meta.mat is not the devkit's"):
        open_imagenet(root, kit)
    (kit / "data" / "meta.mat").unlink()
    with pytest.raises(SourceError, match=r"meta.mat: No such file or directory"):
        open_imagenet(root, kit)


def test_broken_packed_devkits(plant: Plant) -> None:
    root = plant(FLAT)
    packed = root.parent / "kit.tar.gz"
    packed.write_bytes(b"\x1f\x8b no")
    with pytest.raises(SourceError, match=r"not the devkit's .tar.gz"):
        open_imagenet(root, packed)
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(root / "val", "ILSVRC2012_devkit_t12/data")
    with pytest.raises(SourceError, match=r"ILSVRC2012_validation_ground_truth.txt is not in it"):
        open_imagenet(root, packed)


def test_text_of_numbers_is_refused(plant: Plant) -> None:
    root = plant(FLAT)
    (root.parent / "truth.txt").write_text("n01443537\n490\n")
    with pytest.raises(
        SourceError, match=r"entry 2: expected a WNID .* found '490'; class numbers"
    ):
        open_imagenet(root, root.parent / "truth.txt")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["images/1.JPEG"], "expected a folder train or val"),
        (["train/goldfish/1.JPEG"], "expected folders named by WNID .* found 'goldfish'"),
        (["train/n01443537_2.JPEG"], "no class folders; unpack the tar file of each class"),
        (["train/n01443537/1.txt"], "no image in the class folders n01443537"),
        (["val/other_00000001.JPEG", *FLAT], "for which there is a ground truth, found 'other_"),
        (["val/ILSVRC2012_val_00000000.JPEG"], "found 'ILSVRC2012_val_00000000.JPEG'"),
    ],
)
def test_other_layouts_are_refused(plant: Plant, paths: list[str], message: str) -> None:
    root = plant(paths)
    truth = root.parent / "truth.txt"
    truth.write_text("n01443537\nn02119789\nn01440764\n")
    flat = any(path.startswith("val/") for path in paths)
    with pytest.raises(SourceError, match=message):
        open_imagenet(root, truth if flat else None)


def test_devkit_without_need_is_refused(plant: Plant) -> None:
    root = plant(CLASS_FOLDERS)
    with pytest.raises(SourceError, match="a devkit was given, but val is not there as a flat"):
        open_imagenet(root, root)
