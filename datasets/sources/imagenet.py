"""ImageNet (ILSVRC 2012), with class folders or with the flat validation folder as distributed.

::

    ROOT/train/n01440764/n01440764_10026.JPEG
    ROOT/val/n01440764/ILSVRC2012_val_00000293.JPEG
    ROOT/val/ILSVRC2012_val_00000001.JPEG               flat: needs the ground truth
    ROOT/ILSVRC2012_devkit_t12[.tar.gz]                 has it, by class number and meta.mat

Either of train and val may be missing; the test images have no public labels and are not
listed. Labels are those of torchvision's ``ImageNet`` and of every published model: the index of
the WNID among the sorted WNIDs, not the devkit's class number.
"""

import os
import re
from pathlib import Path

import pyarrow as pa

from latentset.datasets.errors import SourceError
from latentset.datasets.sources.devkit import WNID, read_ground_truth
from latentset.datasets.sources.imagefolder import LOOSE, list_split
from latentset.datasets.sources.root import resolve_root
from latentset.datasets.sources.source import Source, make_source, samples_table
from latentset.datasets.sources.tree import EXTENSIONS, Tree

_FLAT_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.ASCII)
DEVKIT_NAMES = ("ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12.tar.gz")


def is_imagenet(location: Path) -> bool:
    """Whether a folder's train or val holds WNID folders, or val the distributed files."""
    if not location.is_dir():
        return False
    tree = Tree(location.resolve())
    for split in ("train", "val"):
        if (location / split).is_dir():
            if folders := tree.folders(split):
                return all(WNID.fullmatch(name) for name in folders)
            if images := tree.images(split):
                return split == "val" and _FLAT_NAME.fullmatch(images[0]) is not None
    return False


def open_imagenet(location: Path, devkit: Path | None = None) -> Source:
    """List ImageNet's training and validation images; ``location`` is ROOT in the module's drawing.

    ``devkit`` has a flat validation folder's ground truth (:func:`read_ground_truth`); None looks
    for it in ROOT.

    Raises:
        SourceError: Neither train nor val, a folder that is no WNID, a flat folder without ground
            truth, a class folder without an image.
    """
    root = resolve_root(location)
    splits = [split for split in ("train", "val") if (root / split).is_dir()]
    if not splits:
        raise SourceError(f"{root}: expected a folder train or val with ImageNet's images")
    tree = Tree(root)
    folders = {split: tree.folders(split) for split in splits}
    for split, names in folders.items():
        wrong = [name for name in names if not WNID.fullmatch(name)]
        if wrong:
            raise SourceError(
                f"{root / split}: expected folders named by WNID (n and 8 digits), found"
                f" {wrong[0]!r}"
            )
    if not folders.get("train", ["not there"]):
        raise SourceError(f"{root / 'train'}: no class folders; unpack the tar file of each class")

    wnids = {name for names in folders.values() for name in names}
    flat = "val" in folders and not folders["val"]
    if flat:
        truth, all_wnids = read_ground_truth(devkit or _find_devkit(root))
        wnids |= all_wnids
    elif devkit is not None:
        raise SourceError(f"{root}: a devkit was given, but val is not there as a flat folder")
    classes = tuple(sorted(wnids))

    tables = []
    for split in splits:
        if split == "val" and flat:
            tables.append(_list_flat(tree, truth, classes))
        else:
            tables += list_split(tree, split, split, classes)
    with os.scandir(root) as entries:  # what is only counted is neither followed nor refused
        beside = [entry for entry in entries if entry.name not in (*splits, *DEVKIT_NAMES)]
    for entry in beside:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            tree.excluded[f"folder {entry.name}"] += 1
        elif entry.name.lower().endswith(EXTENSIONS):
            tree.excluded[LOOSE] += 1
    return make_source("imagenet", root, classes, pa.concat_tables(tables), tree.excluded)


def _find_devkit(root: Path) -> Path:
    for name in DEVKIT_NAMES:
        if (root / name).exists():
            return root / name
    raise SourceError(
        f"{root}: val has no class folders, so that its ground truth is needed: put"
        f" {' or '.join(DEVKIT_NAMES)} beside it, or name the devkit"
    )


def _list_flat(tree: Tree, truth: list[str], classes: tuple[str, ...]) -> pa.Table:
    """List the flat folder; the number in a name finds the label, not its location among files."""
    index = {wnid: label for label, wnid in enumerate(classes)}
    names = tree.images("val")
    labels = []
    for name in names:
        match = _FLAT_NAME.fullmatch(name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(truth):
            raise SourceError(
                f"{tree.root / 'val'}: expected ILSVRC2012_val_00000001.JPEG to"
                f" ILSVRC2012_val_{len(truth):08d}.JPEG, for which there is a ground truth,"
                f" found {name!r}"
            )
        labels.append(index[truth[number - 1]])
    return samples_table([f"val/{name}" for name in names], labels, "val")
