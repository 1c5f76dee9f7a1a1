"""Choosing the layout that a collection of images has."""

from pathlib import Path
from typing import Literal

from latentset.datasets.errors import SourceError
from latentset.datasets.sources.imagefolder import open_imagefolder
from latentset.datasets.sources.imagenet import is_imagenet, open_imagenet
from latentset.datasets.sources.listing import LIST_ENDINGS, open_list
from latentset.datasets.sources.minc2500 import is_minc2500, open_minc2500
from latentset.datasets.sources.source import Source

Layout = Literal["imagefolder", "minc2500", "imagenet", "list"]
SourceKind = Literal["auto"] | Layout


def open_source(
    location: Path,
    kind: SourceKind = "auto",
    *,
    minc_split: int | None = None,
    devkit: Path | None = None,
    root: Path | None = None,
) -> Source:
    """List the images of a collection, without opening any of them.

    Args:
        location: Its folder, or a list's file.
        kind: Its layout; "auto" looks at what is there.
        minc_split: For "minc2500", the number of the split, 1 to 5; None is 1.
        devkit: For "imagenet" with a flat validation folder, the development kit (folder or
            ``.tar.gz``) or a ``.txt`` file with a WNID a line; None looks in the folder.
        root: For "list", the folder that its paths are relative to; None is the list's own folder.

    Raises:
        SourceError: The collection is not laid out so, or an option is not one of its layout's.
    """
    if kind == "auto":
        kind = find_kind(location)
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
    match kind:
        case "minc2500":
            return open_minc2500(location, 1 if minc_split is None else minc_split)
        case "imagenet":
            return open_imagenet(location, devkit)
        case "list":
            return open_list(location, root)
        case "imagefolder":
            return open_imagefolder(location)


def find_kind(location: Path) -> Layout:
    """Find a collection's layout by what its folder holds; SourceError if nothing is there."""
    if location.suffix.lower() in LIST_ENDINGS and not location.is_dir():
        return "list"
    if not location.exists():
        raise SourceError(f"{location}: no such file or folder")
    if is_minc2500(location):
        return "minc2500"
    if is_imagenet(location):
        return "imagenet"
    return "imagefolder"
