"""A source of images: one row a sample, paths that stay below one root."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from latentset.datasets.errors import SourceError
from latentset.datasets.limits import (
    CONTROL,
    MAX_CLASSES,
    MAX_SAMPLE_TEXT_BYTES,
    check_text,
)
from latentset.datasets.sources.root import PACKED, ImageRoot

SOURCE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""Columns of :attr:`Source.samples`."""

PART = pa.field("part", pa.list_(pa.int64(), 3))
"""One more for members of tar files."""


@dataclass(frozen=True)
class Source:
    """A collection of images in a fixed order; the files themselves have not been read."""

    kind: str
    """"imagefolder", "minc2500", "imagenet", "list" or "tar"."""
    root: ImageRoot
    """What every path is relative to: a folder, absolute and free of links, or a prefix."""
    classes: tuple[str, ...]
    samples: pa.Table
    """One row a sample, schema ``SOURCE_SCHEMA``: "id", unique and the same wherever the collection
    is (the relative path); "path", relative to the root, with "/"; "label", -1 for none; "split",
    "train", "val", "test" or "". Of tar files also ``PART``: where the image lies in its file
    (``tar_member.TarPart``), null if it is to be searched.
    """
    excluded: Mapping[str, int] = field(default_factory=dict)
    """How many files and folders were skipped, by reason."""

    @property
    def folder(self) -> Path:
        """The root, which must be a folder."""
        if not isinstance(self.root, Path):
            raise SourceError(f"{self.root}: expected a folder of this machine")
        return self.root


def make_source(
    kind: str,
    root: ImageRoot,
    classes: tuple[str, ...],
    samples: pa.Table,
    excluded: Mapping[str, int] | None = None,
    *,
    location: Path | None = None,
) -> Source:
    """Make a source of samples in order: "path", "label", "split" of ``SOURCE_SCHEMA``, ``PART``.

    The path becomes the id: each must be unique, as in a folder's listing; see
    :func:`refuse_repetition`. SourceError if there are no samples, or a name that no store may have
    (docs/store-spec.md, 9); it names ``location``, a list's file, in place of the root.
    """
    where = root if location is None else location
    counted = {reason: count for reason, count in (excluded or {}).items() if count}
    if samples.num_rows == 0:
        skipped = ", ".join(f"{reason} ({count:,})" for reason, count in sorted(counted.items()))
        packed = any(reason.removesuffix(" files") in PACKED for reason in counted)
        raise SourceError(
            f"{where}: no images there ({kind} layout)"
            + (f"; skipped: {skipped}" if skipped else "")
            + (". Unpack archives first; plain .tar files are read as they are" if packed else "")
        )
    samples = samples.combine_chunks()
    _check_names(where, root.name, classes, samples["path"])
    table = pa.table(
        {name: samples["path" if name == "id" else name] for name in SOURCE_SCHEMA.names},
        schema=SOURCE_SCHEMA,
    )
    if PART.name in samples.column_names:
        table = table.append_column(PART, samples[PART.name])
    return Source(kind, root, classes, table, counted)


def _check_names(
    where: ImageRoot, folder: str, classes: tuple[str, ...], paths: pa.ChunkedArray
) -> None:
    if len(classes) > MAX_CLASSES:
        raise SourceError(
            f"{where}: expected at most {MAX_CLASSES:,} classes, got {len(classes):,}"
        )
    for what, name in (("the folder", folder), *(("class", name) for name in classes)):
        try:
            check_text(name)
        except ValueError as error:
            raise SourceError(f"{str(where)!r:.200}: name of {what}: {error}: rename it") from error
    wrong = pc.or_(
        pc.match_substring_regex(paths, CONTROL.pattern),
        pc.greater(pc.binary_length(paths), MAX_SAMPLE_TEXT_BYTES),
    )
    if pc.any(wrong).as_py():
        raise SourceError(
            f"{where}: file name {paths[pc.index(wrong, True).as_py()].as_py()!r:.200}: expected "
            f"no control characters, and at most {MAX_SAMPLE_TEXT_BYTES} bytes: rename it"
        )


def refuse_repetition(location: ImageRoot, paths: pa.ChunkedArray) -> None:
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
