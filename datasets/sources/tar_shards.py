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
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from latentset.datasets.errors import SourceError
from latentset.datasets.sources.imagefolder import list_tree
from latentset.datasets.sources.listing import number_labels
from latentset.datasets.sources.root import ImageRoot, resolve_inside, resolve_root
from latentset.datasets.sources.source import Source, make_source, refuse_repetition, samples_table
from latentset.datasets.sources.splits import SPLITS, find_split, splits_in
from latentset.datasets.sources.tar_member import ENDING, index_tar, is_tar
from latentset.datasets.sources.tree import EXTENSIONS, Tree

_LABEL_BYTES = 1 << 20
"""Largest ``.cls`` or ``.json`` that is read."""


class _Image(NamedTuple):
    path: str
    key: str
    split: str
    folders: tuple[str, ...]


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


def refuse_packed_splits(location: ImageRoot) -> None:
    """Refuse tar files in the folder of a split beside splits of images: they would not be read."""
    if isinstance(location, Path) and location.is_dir():
        for folder in sorted(location.iterdir()):
            if folder.is_dir() and find_split(folder.name) and any(map(is_tar, folder.iterdir())):
                raise SourceError(
                    f"{folder} holds tar files, but {location} is no set of tar files alone: pack "
                    "all splits or none"
                )


def open_tar_shards(location: Path, allow: Collection[str] = ()) -> Source:
    """List the images in tar files; ``location`` is ROOT in the module's drawing, or one file.

    Raises:
        SourceError: A file that is cut off or damaged, a sample with two images, a label that is
            not understood.
    """
    root = resolve_root(location.parent if is_tar(location) else location)
    names = [location.name] if is_tar(location) else sorted(_find_shards(root))
    excluded: Counter[str] = Counter()
    images: list[_Image] = []
    labels: dict[str, dict[str, str]] = {".cls": {}, ".json": {}}
    splits = {name: _split_of(name) for name in names}
    if len({bool(split) for split in splits.values()}) > 1:
        bare = next(name for name, split in splits.items() if not split)
        raise SourceError(f"{root}: some tar files are named as splits, but {bare} is not; rename")
    for name in names:
        images += _list_shard(root, name, splits[name], labels, excluded)
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
    split = samples.schema.field("split")
    splits_found = pa.array([images[k].split for k in order], split.type)
    samples = samples.set_column(samples.schema.get_field_index("split"), split, splits_found)
    return make_source("tar", root, classes, samples, excluded)


def _find_shards(root: Path) -> Iterator[str]:
    for path in root.iterdir():
        if is_tar(path):
            yield path.name
        elif path.is_dir() and find_split(path.name):
            yield from (f"{path.name}/{inner.name}" for inner in path.iterdir() if is_tar(inner))


def _split_of(shard: str) -> str:
    folder, _, name = shard.rpartition("/")
    if folder:
        return find_split(folder) or ""
    found = splits_in(name.removesuffix(ENDING))
    return found.pop() if len(found) == 1 else ""


def _list_shard(
    root: Path, shard: str, split: str, labels: dict[str, dict[str, str]], excluded: Counter[str]
) -> Iterator[_Image]:
    """List the images of one tar file; their labels, by key, are added to ``labels``."""
    tar = Path(str(resolve_inside(root, shard)))
    for name, (offset, size) in index_tar(tar).items():
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\x00" in name:
            raise SourceError(f"{tar}: member {name!r}: expected a path below the file; pack again")
        if offset < 0:
            excluded["links and devices in tar files"] += 1
            continue
        base, ending = parts[-1], PurePosixPath(name).suffix.lower()
        key = f"{shard}/{name.removesuffix(base)}{base.partition('.')[0]}"
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            excluded["hidden names"] += 1
        elif ending in EXTENSIONS:
            yield _Image(f"{shard}/{name}", key, split, parts[:-1])
        elif ending in labels and size <= _LABEL_BYTES:
            text = _read_label(tar, name, offset, size)
            if text is not None:
                labels[ending][key] = text
        else:
            excluded[f"{ending} files" if ending else "files without ending"] += 1


def _read_label(tar: Path, name: str, offset: int, size: int) -> str | None:
    """The text of a ``.cls``, or of ``label`` in a ``.json``; None where there is none."""
    is_json = name.lower().endswith(".json")
    try:
        with tar.open("rb") as file:
            file.seek(offset)
            text = file.read(size).decode()
        found: Any = json.loads(text) if is_json else text.strip()
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{tar}: {name}: no label can be read from it: {error}") from error
    if is_json:
        found = found.get("label") if isinstance(found, dict) else None
    if found is None or (isinstance(found, int | str) and not isinstance(found, bool)):
        return None if found is None else str(found)
    raise SourceError(f"{tar}: {name}: label: expected a number or a name, got {found!r:.100}")


def _refuse_two_images(root: Path, images: Sequence[_Image]) -> None:
    first: dict[str, str] = {}
    for image in images:
        other = first.setdefault(image.key, image.path)
        if other != image.path:
            raise SourceError(
                f"{root}: a sample has two images, {other} and {image.path}; pack the one to encode"
            )


def _label_by_folders(
    root: Path, images: Sequence[_Image], excluded: Counter[str], allow: Collection[str]
) -> tuple[list[_Image], tuple[str, ...], list[int]]:
    """Take splits and classes of the folders within the tar files, as those of an imagefolder.

    Returns the images that are samples, the classes, and the label of each image.
    """
    paths = ["/".join(filter(None, (i.split, *i.folders, Path(i.path).name))) for i in images]
    tree = Tree(root, paths)
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
