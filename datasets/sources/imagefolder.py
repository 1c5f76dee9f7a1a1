"""Folders named after classes, as torchvision's ``ImageFolder`` reads them.

::

    ROOT/CLASS/….jpg                    no splits
    ROOT/{train,val,test}/CLASS/….jpg   splits ("valid" and "validation" are "val")
    ROOT/….jpg                          no classes: every label is -1
    ROOT/{train,val,test}/….jpg         likewise, in a split of its own

Within a split, samples are in torchvision's order. Differences from torchvision: all splits have
one numbering of the classes; names that begin with a dot are skipped; ``.gif`` is listed too, so
that an animation is on record; a link that leaves the root is refused.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from latentset.datasets.errors import SourceError
from latentset.datasets.sources.source import (
    SPLIT_NAMES,
    Source,
    make_source,
    resolve_root,
    samples_table,
)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""``torchvision.datasets.folder.IMG_EXTENSIONS`` and ``.gif``; upper or lower case."""


def open_imagefolder(location: Path) -> Source:
    """List a collection laid out as class folders; ``location`` is ROOT in the module's drawing.

    Raises:
        SourceError: No images, a class folder without one, a link that leaves the root, or
            split folders beside others.
    """
    root = resolve_root(location)
    folders = list_folders(root, "")
    splits = find_split_folders(root, folders) or {"": ""}
    found = {name for folder in splits.values() for name in list_folders(root, folder)}
    classes = tuple(sorted(found))
    tables = [
        table
        for split, folder in splits.items()
        for table in list_split(root, folder, split, classes)
    ]
    return make_source("imagefolder", root, classes, pa.concat_tables(tables))


def find_split_folders(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """Which of the root's folders is each split, in the order train, val, test.

    They are splits if every folder has a split's name, else there are none: a folder "train" among
    other classes is a class, provided that it holds no folders itself.
    """
    named = [name for name in folders if name in SPLIT_NAMES]
    others = [name for name in folders if name not in SPLIT_NAMES]
    if others:
        if any(list_folders(root, name) for name in named):
            raise SourceError(
                f"{root}: the folders {', '.join(named)} look like splits, but beside them are"
                f" {', '.join(others[:5])}; keep only train, val and test there, or give a list"
                " (CSV or Parquet) of the images"
            )
        return {}
    splits: dict[str, str] = {}
    for name in sorted(named, key=lambda name: ("train", "val", "test").index(SPLIT_NAMES[name])):
        first = splits.setdefault(SPLIT_NAMES[name], name)
        if first != name:
            raise SourceError(
                f"{root}: the folders {first} and {name} are both the split {SPLIT_NAMES[name]}"
            )
    return splits


def list_split(root: Path, folder: str, split: str, classes: Sequence[str]) -> Iterator[pa.Table]:
    """List the images of the split in ``folder``, relative to the root; one table a class.

    Raises:
        SourceError: A class folder without an image, as torchvision refuses it.
    """
    present, loose = scan_folder(root, folder)
    prefix = f"{folder}/" if folder else ""
    if not present:
        yield samples_table([prefix + name for name in loose], -1, split)
    empty = []
    for name in present:
        paths = list_images(root, prefix + name)
        if paths:
            yield samples_table(paths, classes.index(name), split)
        else:
            empty.append(name)
    if empty:
        raise SourceError(
            f"{root / folder}: no image in the class folders {', '.join(empty[:5])}"
            f" ({len(empty)} in all); remove the folders or put the images there"
            f" (extensions {' '.join(EXTENSIONS)})"
        )


def list_images(root: Path, folder: str) -> list[str]:
    """List the images in and below a folder in torchvision's order, relative to the root."""
    found = {}
    pending = [folder]
    while pending:
        parent = pending.pop()
        folders, found[parent] = scan_folder(root, parent)
        pending += [f"{parent}/{name}" for name in folders]
    return [f"{parent}/{name}" for parent in sorted(found) for name in found[parent]]


def list_folders(root: Path, folder: str) -> list[str]:
    """The sorted names of the folders directly in a folder."""
    return scan_folder(root, folder)[0]


def scan_folder(root: Path, folder: str) -> tuple[list[str], list[str]]:
    """List the folders and the images directly in a folder, each sorted.

    The files are not opened: the directory itself tells what is a link. Names that begin with a dot
    are skipped.

    Raises:
        SourceError: A link leads out of the root, or back to a folder above itself.
    """
    folders, images = [], []
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                link = f"{folder}/{entry.name}".lstrip("/")
                target = Path(os.path.realpath(entry))
                if not target.is_relative_to(root):
                    raise SourceError(
                        f"{root}: the link {link!r} leads out of the source; put what it points to"
                        " in its location, or give a list (CSV or Parquet) with a root above both"
                    )
                if Path(os.path.realpath(root / folder)).is_relative_to(target):
                    raise SourceError(
                        f"{root}: the link {link!r} leads back to a folder above itself"
                    )
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(EXTENSIONS):
                images.append(entry.name)
    return sorted(folders), sorted(images)
