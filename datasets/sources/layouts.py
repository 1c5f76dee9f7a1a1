"""Choosing the layout that a collection of images has."""

import json
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from latentset.datasets.errors import SourceError, StoreError
from latentset.datasets.sources.imagefolder import open_imagefolder
from latentset.datasets.sources.imagenet import is_imagenet, open_imagenet
from latentset.datasets.sources.listing import LIST_ENDINGS, OTHER_TABLES, open_list
from latentset.datasets.sources.minc2500 import is_minc2500, open_minc2500
from latentset.datasets.sources.root import ImageRoot, open_root
from latentset.datasets.sources.source import Source
from latentset.datasets.sources.tar_shards import (
    are_tar_shards,
    is_tar_shards,
    open_tar_shards,
    refuse_packed_splits,
)
from latentset.datasets.storage.location import Folder, read_if_there

Layout = Literal["imagefolder", "minc2500", "imagenet", "list", "tar"]
SourceKind = Literal["auto"] | Layout
ALLOWED = ("similar-classes", "split-names", "nested-classes", "disjoint-splits")
"""What is refused as a likely mistake unless it is allowed."""


def open_source(
    location: ImageRoot | str,
    kind: SourceKind = "auto",
    *,
    minc_split: int | None = None,
    devkit: Path | None = None,
    root: ImageRoot | str | None = None,
    allow: Collection[str] = (),
) -> Source:
    """List the images of a collection, without opening any of them.

    Args:
        location: Its folder, a list's file, or a prefix in object storage (``s3://…``, ``gs://…``).
        kind: Its layout; "auto" looks at what is there.
        minc_split: For "minc2500", the number of the split, 1 to 5; None is 1.
        devkit: For "imagenet" with a flat validation folder, the development kit (folder or
            ``.tar.gz``) or a ``.txt`` file with a WNID a line; None looks in the folder.
        root: For "list", the folder that its paths are relative to; None is the list's own folder.
        allow: What is refused as a likely mistake otherwise, of ``ALLOWED``.

    Raises:
        SourceError: The collection is not laid out so, an option is not one of its layout's, or
            what is there is likely a mistake.
    """
    if unknown := set(allow) - set(ALLOWED):
        raise SourceError(f"allow: expected {' or '.join(ALLOWED)}, got {min(unknown)!r}")
    location = open_root(location)
    if isinstance(location, Path) and _is_store(location):
        raise SourceError(
            f"{location} is a store, not a source of images. The images come first: "
            "latentset encode SOURCE STORE"
        )
    objects = [] if isinstance(location, Path) else list(location.sizes())
    if kind == "auto":
        kind = find_kind(location, objects)
    for layout, name, value in (
        ("minc2500", "minc_split", minc_split),
        ("imagenet", "devkit", devkit),
        ("list", "root", root),
    ):
        if value is not None and layout != kind:
            raise SourceError(
                f"{location}: the option {name} is for the layout {layout}, but this one"
                f" is {kind}; drop the option, or name the layout"
            )
    if kind == "imagefolder":
        refuse_packed_splits(location, objects)
        source = open_imagefolder(location, allow, objects)
    elif kind == "tar":
        source = open_tar_shards(location, allow, objects)
    elif not isinstance(location, Path):
        raise SourceError(
            f"{location}: the layout {kind} is read from a folder; in object storage only "
            "imagefolder and tar are (a list on this machine may have --root s3://…)"
        )
    elif kind == "minc2500":
        source = open_minc2500(location, 1 if minc_split is None else minc_split)
    elif kind == "imagenet":
        source = open_imagenet(location, devkit)
    else:
        source = open_list(location, None if root is None else open_root(root))
    if "similar-classes" not in allow:
        refuse_similar_classes(location, source.classes)
    if "disjoint-splits" not in allow and kind not in ("minc2500", "imagenet"):
        refuse_disjoint_splits(location, source)
    return source


def refuse_similar_classes(location: ImageRoot, classes: Sequence[str]) -> None:
    """Refuse names that look alike but for case: Unicode form, outer blanks, invisible letters."""
    seen: dict[str, str] = {}
    for name in classes:
        visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
        other = seen.setdefault(unicodedata.normalize("NFC", visible).strip().casefold(), name)
        if other != name:
            raise SourceError(
                f"{location}: the classes {other!r} and {name!r} differ in case, Unicode form, "
                "blanks or invisible characters only, and would be two labels: rename one, or say "
                "--allow similar-classes"
            )


def refuse_disjoint_splits(location: ImageRoot, source: Source) -> None:
    """Refuse a ``val`` or ``test`` whose images have labels, but none that ``train`` has."""

    def name_first(labels: set[int]) -> str:
        names = [source.classes[k] for k in sorted(labels)]
        return ", ".join(names if len(names) <= 3 else [*names[:3], "…"])

    pairs = source.samples.select(["split", "label"]).group_by(["split", "label"]).aggregate([])
    labels: dict[str, set[int]] = {}
    for row in pairs.to_pylist():
        if row["label"] >= 0:
            labels.setdefault(row["split"], set()).add(row["label"])
    known = labels.pop("train", None)
    for split, found in labels.items():
        if split and known and known.isdisjoint(found):
            raise SourceError(
                f"{location}: train ({len(known)} classes: {name_first(known)}) and {split} "
                f"({len(found)}: {name_first(found)}) have no class in common: give a class the "
                "same name in both, or say --allow disjoint-splits"
            )


def find_kind(location: ImageRoot, objects: Collection[str] = ()) -> Layout:
    """Find a collection's layout by what its folder, or object storage, holds.

    SourceError if nothing is there.
    """
    if not isinstance(location, Path):
        if location.url.lower().endswith(LIST_ENDINGS):
            return "list"
        return "tar" if are_tar_shards(location, objects) else "imagefolder"
    if location.suffix.lower() in LIST_ENDINGS + OTHER_TABLES and not location.is_dir():
        return "list"
    if not location.exists():
        raise SourceError(f"{location}: no such file or folder")
    if is_minc2500(location):
        return "minc2500"
    if is_imagenet(location):
        return "imagenet"
    if is_tar_shards(location):
        return "tar"
    return "imagefolder"


def _is_store(location: Path) -> bool:
    """Whether a location is a store that encoding made, or an HDF5 file."""
    if location.suffix.lower() in (".h5", ".hdf5"):
        return location.is_file()
    try:
        content = read_if_there(Folder(location), "zarr.json")  # regular files only, of a limit
        return "latentset" in json.loads(content or b"")["attributes"]
    except (StoreError, ValueError, RecursionError, LookupError, TypeError):
        return False
