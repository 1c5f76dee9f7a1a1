"""Tar files of images, as WebDataset and img2dataset write them, or of class folders.

::

    ROOT/NAME-000000.tar  …             in each: KEY.jpg and KEY.cls, or KEY.json with "label"
    ROOT/{train,val,test}/….tar         or the split's name in that of the file: set-train-0001.tar
    ROOT/NAME.tar                       in it: CLASS/….jpg, {train,val,test}/CLASS/….jpg

A sample's path is ``SHARD.tar/MEMBER``; samples are in the order of the files' names and, within
one, of its members. ``KEY.cls`` and ``label`` are numbers from 0 or names, as in a list.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from latentset.datasets.errors import ImageError, SourceError
from latentset.datasets.sources.imagefolder import list_tree
from latentset.datasets.sources.listing import number_labels
from latentset.datasets.sources.root import ImageRoot, resolve_inside, resolve_root
from latentset.datasets.sources.source import (
    PART,
    SOURCE_SCHEMA,
    Source,
    make_source,
    refuse_repetition,
    samples_table,
)
from latentset.datasets.sources.splits import SPLITS, find_split, splits_in
from latentset.datasets.sources.tar_member import (
    ENDING,
    Listing,
    TarMember,
    TarPart,
    is_tar,
    list_tar,
)
from latentset.datasets.sources.tree import EXTENSIONS, Tree
from latentset.datasets.storage.location import Bucket
from latentset.datasets.storage.threads import stoppable_threads

_LABEL_BYTES = 1 << 20
"""Largest ``.cls`` or ``.json`` that is read."""

_THREADS = 8
"""Tar files in object storage that are read at once."""


class _Image(NamedTuple):
    path: str
    key: str
    split: str
    folders: tuple[str, ...]
    part: TarPart | None


def is_tar_shards(location: Path) -> bool:
    """Whether a location is a tar file, or a folder of nothing but tar files and such folders."""
    if not location.is_dir():
        return is_tar(location)
    try:
        here = [path for path in location.iterdir() if path.name[0] != "."]
        folders = [path for path in here if path.is_dir()]
        if any(find_split(path.name) is None for path in folders):
            return False
        return any(map(is_tar, here)) or (
            bool(folders) and all(any(map(is_tar, folder.iterdir())) for folder in folders)
        )
    except OSError:
        return False  # what reads it says why


def refuse_packed_splits(location: ImageRoot, objects: Collection[str] = ()) -> None:
    """Refuse tar files in the folder of a split beside splits of images: they would not be read."""
    packed = [path.partition("/")[0] for path in _shards_among(objects) if "/" in path]
    if isinstance(location, Path) and location.is_dir():
        folders = [path for path in location.iterdir() if path.is_dir() and find_split(path.name)]
        packed = [folder.name for folder in folders if any(map(is_tar, folder.iterdir()))]
    if packed:
        raise SourceError(
            f"{location / min(packed)} holds tar files, but {location} is no set of tar files "
            "alone: pack all splits or none"
        )


def are_tar_shards(location: Bucket, objects: Collection[str]) -> bool:
    """The same of a URL, and of the objects below it."""
    folders = {path.partition("/")[0] for path in objects if "/" in path}
    folders = {name for name in folders if not name.startswith(".")}
    shards = _shards_among(objects)
    here, filled = ({"/" in path for path in shards}, {path.partition("/")[0] for path in shards})
    return _is_tar_url(location) or (
        bool(shards)
        and all(find_split(name) for name in folders)
        and (False in here or folders <= filled)
    )


def open_tar_shards(
    location: ImageRoot, allow: Collection[str] = (), objects: Collection[str] = ()
) -> Source:
    """List the images in tar files; ``location`` is ROOT in the module's drawing, or one file.

    ``objects`` are the paths of all in object storage.

    Raises:
        SourceError: A file that is cut off or damaged, a sample with two images, a label that is
            not understood.
    """
    root, names = _find_shards(location, objects)
    splits = {name: _split_of(name) for name in names}
    if len({bool(split) for split in splits.values()}) > 1:
        bare = next(name for name, split in splits.items() if not split)
        raise SourceError(f"{root}: some tar files are named as splits, but {bare} is not; rename")
    excluded: Counter[str] = Counter()
    images: list[_Image] = []
    labels: dict[str, dict[str, str]] = {".cls": {}, ".json": {}}
    # A thread waits for a service most of the time.
    count = 1 if isinstance(root, Path) else _THREADS
    with stoppable_threads(count, "list", defer_ctrl_c=True) as threads:
        for name, listed in zip(names, threads.map(partial(_list, root), names), strict=True):
            images += _list_shard(root, name, splits[name], listed, labels, excluded)
    by_key = labels[".cls"] or labels[".json"]
    if by_key:
        _refuse_two_images(root, images)
        given = pa.chunked_array([[by_key.get(image.key) for image in images]], pa.string())
        classes, labels_found = number_labels(location, given)
        numbers = labels_found.to_pylist()
    elif images:
        images, classes, numbers = _label_by_folders(root, images, excluded, allow)
    else:
        classes, numbers = (), []
    order = sorted(range(len(images)), key=lambda k: (*SPLITS, "").index(images[k].split))
    samples = samples_table([images[k].path for k in order], [numbers[k] for k in order], "")
    refuse_repetition(location, samples["path"])
    splits_found = [images[k].split for k in order]
    field = SOURCE_SCHEMA.field("split")
    column = samples.schema.get_field_index("split")
    samples = samples.set_column(column, field, pa.array(splits_found, field.type))
    samples = samples.append_column(PART, pa.array([images[k].part for k in order], PART.type))
    return make_source("tar", root, classes, samples, excluded)


def _find_shards(location: ImageRoot, objects: Collection[str]) -> tuple[ImageRoot, list[str]]:
    """The root, and the tar files below it by their paths, sorted."""
    if isinstance(location, Bucket):
        if _is_tar_url(location):
            return Bucket(location.url.rpartition("/")[0]), [location.name]
        return location, sorted(_shards_among(objects))
    if is_tar(location):
        return resolve_root(location.parent), [location.name]
    root = resolve_root(location)
    names = [path.name for path in root.iterdir() if is_tar(path)]
    for folder in root.iterdir():
        if folder.is_dir() and find_split(folder.name):
            names += [f"{folder.name}/{path.name}" for path in folder.iterdir() if is_tar(path)]
    return root, sorted(names)


def _is_tar_url(location: Bucket) -> bool:
    return location.name.endswith(ENDING) and location.url.count("/") > 2


def _shards_among(objects: Collection[str]) -> list[str]:
    """Those of the paths that are tar files at the root, or in the folder of a split."""
    return [
        path
        for path in objects
        if path.endswith(ENDING)
        and not path.rpartition("/")[2].startswith(".")
        and ("/" not in path or find_split(path.rpartition("/")[0]))
    ]


def _split_of(shard: str) -> str:
    folder, _, name = shard.rpartition("/")
    if folder:
        return find_split(folder) or ""
    found = splits_in(name.removesuffix(ENDING))
    return found.pop() if len(found) == 1 else ""


def _list(root: ImageRoot, shard: str) -> Listing:
    """Index one tar file, and read the labels in it."""

    def is_label(name: str, size: int) -> bool:
        return name.lower().endswith((".cls", ".json")) and size <= _LABEL_BYTES

    tar = resolve_inside(root, shard)
    if isinstance(tar, TarMember):
        raise SourceError(f"{root}/{shard}: a tar file in another; unpack that one")
    try:
        return list_tar(tar, is_label)
    except ImageError as error:
        raise SourceError(f"{tar}: {error}") from error


def _list_shard(
    root: ImageRoot,
    shard: str,
    split: str,
    listed: Listing,
    labels: dict[str, dict[str, str]],
    excluded: Counter[str],
) -> Iterator[_Image]:
    """List the images of one tar file; their labels, by key, are added to ``labels``."""
    tar = f"{root}/{shard}"
    for name, part in listed.parts.items():
        folders = PurePosixPath(name).parts
        if not folders or name.startswith("/") or ".." in folders or "\x00" in name:
            raise SourceError(f"{tar}: member {name!r}: expected a path below the file; pack again")
        if part is None:
            excluded["links and devices in tar files"] += 1
            continue
        base, ending = folders[-1], PurePosixPath(name).suffix.lower()
        key = f"{shard}/{name.removesuffix(base)}{base.partition('.')[0]}"
        if any(folder.startswith(".") or folder == "__MACOSX" for folder in folders):
            excluded["hidden names"] += 1
        elif ending in EXTENSIONS:
            # A hard link lies under its target's name: it is searched.
            known = None if name in listed.linked else part
            yield _Image(f"{shard}/{name}", key, split, folders[:-1], known)
        elif name in listed.contents:
            text = _read_label(tar, name, listed.contents[name])
            if text is not None:
                labels[ending][key] = text
        else:
            excluded[f"{ending} files" if ending else "files without ending"] += 1


def _read_label(tar: str, name: str, content: bytes) -> str | None:
    """The text of a ``.cls``, or of ``label`` in a ``.json``; None where there is none."""
    is_json = name.lower().endswith(".json")
    try:
        text = content.decode()
        found: Any = json.loads(text) if is_json else text.strip()
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{tar}: {name}: no label can be read from it: {error}") from error
    if is_json:
        found = found.get("label") if isinstance(found, dict) else None
    if found is None or (isinstance(found, int | str) and not isinstance(found, bool)):
        return None if found is None else str(found)
    raise SourceError(f"{tar}: {name}: label: expected a number or a name, got {found!r:.100}")


def _refuse_two_images(root: ImageRoot, images: Sequence[_Image]) -> None:
    first: dict[str, str] = {}
    for image in images:
        other = first.setdefault(image.key, image.path)
        if other != image.path:
            raise SourceError(
                f"{root}: a sample has two images, {other} and {image.path}; pack the one to encode"
            )


def _label_by_folders(
    root: ImageRoot, images: Sequence[_Image], excluded: Counter[str], allow: Collection[str]
) -> tuple[list[_Image], tuple[str, ...], list[int]]:
    """Take splits and classes of the folders within the tar files, as those of an imagefolder.

    Returns the images that are samples, the classes, and the label of each image.
    """
    paths = ["/".join(filter(None, (i.split, *i.folders, Path(i.path).name))) for i in images]
    tree = Tree(root, paths, is_packed=True)
    classes, samples = list_tree(tree, allow)
    excluded.update(tree.excluded)
    columns = (samples[name].to_pylist() for name in ("path", "label", "split"))
    found = {path: (label, split) for path, label, split in zip(*columns, strict=True)}
    kept = [
        (image._replace(split=found[path][1]), found[path][0])
        for image, path in zip(images, paths, strict=True)
        if path in found
    ]
    return [image for image, _ in kept], classes, [label for _, label in kept]
