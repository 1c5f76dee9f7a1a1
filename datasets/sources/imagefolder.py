"""Folders named after classes, as torchvision's ``ImageFolder`` reads them.

::

    ROOT/CLASS/….jpg                    no splits
    ROOT/{train,val,test}/CLASS/….jpg   splits, also Training, seg_test, valid_images, … (splits.py)
    ROOT/….jpg                          no classes: every label is -1
    ROOT/{train,val,test}/….jpg         likewise, in a split of its own

A folder that only wraps one of these, at the root or in a split, is looked through:
``archive/Training/CLASS``, ``images/CLASS`` beside ``annotations/``, ``train/train/CLASS``.

Within a split, samples are in torchvision's order. Differences from torchvision: all splits have
one numbering of the classes; names that begin with a dot are skipped; ``.gif`` is listed too, so
that an animation is on record; a link that leaves the root is refused.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import pyarrow as pa

from latentset.datasets.errors import SourceError
from latentset.datasets.sources.root import ImageRoot, resolve_root
from latentset.datasets.sources.source import Source, make_source, samples_table
from latentset.datasets.sources.splits import SPLITS, find_split, splits_in
from latentset.datasets.sources.tree import EXTENSIONS, Tree, join

LOOSE = "images outside of class folders"


def open_imagefolder(
    location: ImageRoot, allow: Collection[str] = (), objects: Collection[str] = ()
) -> Source:
    """List a collection laid out as class folders; ``location`` is ROOT in the module's drawing.

    ``objects`` are the paths of all in object storage.

    Raises:
        SourceError: No images, a class folder without one, a link that leaves the root, or
            folders that may or may not be splits, or classes.
    """
    root = resolve_root(location) if isinstance(location, Path) else location
    tree = Tree(root, None if isinstance(root, Path) else objects)
    classes, samples = list_tree(tree, allow)
    return make_source("imagefolder", tree.root, classes, samples, tree.excluded)


def list_tree(tree: Tree, allow: Collection[str]) -> tuple[tuple[str, ...], pa.Table]:
    """Classes, and path, label and split of each image; raises as ``open_imagefolder``."""
    base = unwrap(tree, "")
    splits = {} if "split-names" in allow else find_split_folders(tree, base)
    if splits:
        tree.excluded[LOOSE] += len(tree.images(base))
    splits = {split: unwrap(tree, folder, in_split=True) for split, folder in splits.items()}
    splits = splits or {"": base}
    classes = tuple(sorted({name for folder in splits.values() for name in tree.folders(folder)}))
    if "split-names" not in allow:
        _refuse_splits_in_classes(tree, splits.values())
    if "nested-classes" not in allow:
        _refuse_nested_classes(tree, splits)
    tables = [
        table
        for split, folder in splits.items()
        for table in list_split(tree, folder, split, classes)
    ]
    return classes, pa.concat_tables(tables)


def unwrap(tree: Tree, folder: str, *, in_split: bool = False) -> str:
    """Go down while a folder holds images only below one of its folders, which has only folders."""
    while not tree.images(folder):
        filled = [name for name in tree.folders(folder) if tree.has_images(join(folder, name))]
        if len(filled) != 1 or (find_split(filled[0]) and not in_split):
            break
        inner = join(folder, filled[0])
        if tree.images(inner):
            break  # a class
        tree.excluded["folders without images"] += len(tree.folders(folder)) - 1
        folder = inner
    return folder


def find_split_folders(tree: Tree, base: str) -> dict[str, str]:
    """Which folder is each split, in the order train, val, test; none where they are classes.

    Raises:
        SourceError: They may be either: the names look like splits, but not all can be understood.
    """
    where = tree.root / base
    folders = tree.folders(base)
    named = {name: split for name in folders if (split := find_split(name))}
    others = [name for name in folders if name not in named]
    filled = [name for name in others if tree.has_images(join(base, name))]
    advice = (
        "Keep only train, val and test there, give a list (CSV or Parquet) of the images, or say "
        "--allow split-names if they are classes"
    )
    if filled:
        if any(tree.folders(join(base, name)) for name in named):
            raise SourceError(
                f"{where}: the folders {', '.join(named)} look like splits, but beside them are"
                f" {', '.join(filled[:5])}. {advice}"
            )
        if len({split for name in folders for split in splits_in(name)}) > 1:
            alike = [name for name in folders if splits_in(name)]
            raise SourceError(
                f"{where}: the folders {', '.join(alike[:5])} look like splits, but may be"
                f" classes. {advice}"
            )
        return {}
    if named:
        tree.excluded["folders without images"] += len(others)
    splits: dict[str, str] = {}
    for name in sorted(named, key=lambda name: SPLITS.index(named[name])):
        first = splits.setdefault(named[name], join(base, name))
        if first != join(base, name):
            raise SourceError(
                f"{where}: the folders {Path(first).name} and {name} are both the split"
                f" {named[name]}. {advice}"
            )
    return splits


def _refuse_splits_in_classes(tree: Tree, folders: Iterable[str]) -> None:
    """Refuse ``CLASS/{train,test}/….jpg``, whose splits would be lost without a word."""
    for folder in folders:
        for name in tree.folders(folder):
            inner = tree.folders(join(folder, name))
            if len({find_split(each) for each in inner} - {None}) > 1:
                raise SourceError(
                    f"{tree.root}: the class folder {join(folder, name)} holds folders that look"
                    f" like splits ({', '.join(inner[:5])}); give a list (CSV or Parquet) with the"
                    " split of each image, or say --allow split-names to do without splits"
                )


def _refuse_nested_classes(tree: Tree, splits: Mapping[str, str]) -> None:
    """Refuse ``{colour,grey}/CLASS`` and ``yes, no, other/{yes,no}``, read as the wrong classes."""
    for split, folder in splits.items():
        here = tree.folders(folder)
        inner = {".": set(here)}  # what each folder holds that may be a class
        for name in here:
            path = join(folder, name)
            inner[name] = {
                each
                for each in tree.folders(path)
                if (each in inner["."] if tree.images(path) else not find_split(each))
                and each != name
                and tree.has_images(join(path, each))
            }
        counts = Counter(each for names in inner.values() for each in names)
        repeated = {name: {k for k in names if counts[k] > 1} for name, names in inner.items()}
        repeated = {name: names for name, names in repeated.items() if len(names) > 1}
        for one, other in combinations(repeated, 2):
            both = repeated[one] & repeated[other]
            if len(both) < 2:
                continue
            holders = [name for name, names in repeated.items() if len(names & both) > 1]
            shown = [", ".join(map(repr, names[:5])) for names in (holders, sorted(both))]
            example = tree.root / join(folder, other if one == "." else one)
            alone = "" if split or tree.is_packed else f"name the folder to encode ({example}), "
            raise SourceError(
                f"{tree.root / folder}: the folders {shown[0]} hold folders of the same names "
                f"({shown[1]}), so that the classes are not clear: {alone}give a list (CSV or "
                "Parquet) of the images, or say --allow nested-classes"
            )


def list_split(tree: Tree, folder: str, split: str, classes: Sequence[str]) -> Iterator[pa.Table]:
    """List the images of the split in ``folder``; one table a class.

    Raises:
        SourceError: A class folder without an image, as torchvision refuses it.
    """
    present, loose = tree.folders(folder), tree.images(folder)
    if not present:
        yield samples_table([join(folder, name) for name in loose], -1, split)
    else:
        tree.excluded[LOOSE] += len(loose)
    empty, numbers = [], {name: k for k, name in enumerate(classes)}
    for name in present:
        paths = tree.images_below(join(folder, name))
        if paths:
            yield samples_table(paths, numbers[name], split)
        else:
            empty.append(name)
    if empty:
        raise SourceError(
            f"{tree.root / folder}: no image in the class folders {', '.join(empty[:5])}"
            f" ({len(empty)} in all); remove the folders or put the images there"
            f" (extensions {' '.join(EXTENSIONS)})"
        )
