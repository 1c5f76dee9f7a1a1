"""A source of images: one row a sample, paths that stay below one root."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from latentset.datasets.errors import SourceError

SOURCE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""Columns of :attr:`Source.samples`."""

SPLIT_NAMES: Mapping[str, str] = MappingProxyType(
    {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
)
"""How folders and lists name a split, and what it is called here."""


@dataclass(frozen=True)
class Source:
    """A collection of images in a fixed order; the files themselves have not been read."""

    kind: str
    """"imagefolder", "minc2500", "imagenet" or "list"."""
    root: Path
    """The folder that every path is relative to, absolute and free of links."""
    classes: tuple[str, ...]
    samples: pa.Table
    """One row a sample, schema ``SOURCE_SCHEMA``: "id", unique and the same wherever the collection
    is (the relative path); "path", relative to the root, with "/"; "label", -1 for none; "split",
    "train", "val", "test" or "".
    """


def make_source(kind: str, root: Path, classes: tuple[str, ...], samples: pa.Table) -> Source:
    """Make a source of samples in order: columns "path", "label" and "split" of ``SOURCE_SCHEMA``.

    The path becomes the id: each must be unique, as in a folder's listing; see
    :func:`refuse_repetition`. SourceError if there are no samples.
    """
    if samples.num_rows == 0:
        raise SourceError(f"{root}: no images there ({kind} layout)")
    samples = samples.combine_chunks()
    table = pa.table(
        {name: samples["path" if name == "id" else name] for name in SOURCE_SCHEMA.names},
        schema=SOURCE_SCHEMA,
    )
    return Source(kind=kind, root=root, classes=classes, samples=table)


def refuse_repetition(location: Path, paths: pa.ChunkedArray) -> None:
    """Refuse samples of which two have the same path, and so the same id."""
    if pc.count_distinct(paths).as_py() != len(paths):
        counts = pc.value_counts(paths.combine_chunks())
        repeated = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
        raise SourceError(
            f"{location}: {len(repeated)} paths occur more than once, the first is"
            f" {repeated[0].as_py()!r}; each sample needs a path of its own"
        )


def samples_table(paths: Sequence[str], label: int | Sequence[int], split: str) -> pa.Table:
    """Make the rows of images of one split, and of one class unless each has its own label.

    Raises:
        SourceError: A name that is not UTF-8, which a samples table could not hold.
    """
    try:
        column = pa.array(paths, pa.string())
    except UnicodeEncodeError as error:
        raise SourceError(f"file name {error.object!r} is not UTF-8: rename it") from error
    return pa.table(
        {
            "path": column,
            "label": pa.repeat(pa.scalar(label, pa.int32()), len(paths))
            if isinstance(label, int)
            else pa.array(label, pa.int32()),
            "split": pa.repeat(pa.scalar(split, pa.string()), len(paths)),
        }
    )


def resolve_root(location: Path) -> Path:
    """Return a folder absolute and free of links; SourceError if it is none."""
    if not location.is_dir():
        found = "a file" if location.exists() else "nothing"
        raise SourceError(f"{location}: expected a folder of images, found {found}")
    return location.resolve()


def resolve_inside(root: Path, path: str) -> Path:
    """The absolute path of a sample's file, which need not exist.

    Links are followed, so call this when the file is about to be opened: what was inside the root
    when the samples were listed need not be inside now.

    Raises:
        SourceError: The path is absolute, has "..", or its links end outside the root.
    """
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or "\x00" in path:
        raise SourceError(f"path {path!r} is not below the source's root {root}")
    base = Path(os.path.realpath(root))
    target = Path(os.path.realpath(base / relative))
    if not target.is_relative_to(base):
        raise SourceError(f"path {path!r} leads by a link out of the source's root {root}")
    return target
