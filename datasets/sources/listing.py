"""A list of images, as CSV or Parquet: columns ``path``, ``label`` and, if wanted, ``split``.

- ``path``: relative to the list's own folder, or to the root given, with ``/``. Order is kept.
- ``label``: class names, which are sorted and numbered from 0; or numbers from 0, which stay what
  they are and whose classes are called "0", "1", … Empty, or the number -1, is no class.
- ``split``: "train", "val" (also "valid", "validation"), "test" or empty.

Another column is refused: a misspelt "split" would otherwise pass for none. Whether the files exist
is seen when they are read: a missing one has the status "missing".
"""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from latentset.datasets.errors import SourceError
from latentset.datasets.sources.source import (
    SPLIT_NAMES,
    Source,
    make_source,
    refuse_repetition,
    resolve_inside,
    resolve_root,
)

LIST_ENDINGS = (".csv", ".parquet")
MAX_CLASSES = 2**20
"""Labels that are numbers are below: one stray number must not make a billion classes."""

_COLUMNS = ("path", "label", "split")
_WRONG_PATH = r"^$|^/|^[A-Za-z]:|\\|//|/$|(^|/)\.{1,2}(/|$)|[\x00-\x1f]"
_NUMBER = r"^(-1|0|[1-9][0-9]{0,8})$"


def open_list(location: Path, root: Path | None = None) -> Source:
    """List the images that a CSV or Parquet file names, relative to ``root`` or its own folder.

    Raises:
        SourceError: Not such a file, a column missing or not known, or a row whose path, label or
            split is not understood; rows are counted from 1, without the header.
    """
    table = _read_table(location)
    base = resolve_root(location.parent if root is None else root)
    paths = pc.replace_substring_regex(pc.fill_null(table["path"], ""), r"^(\./)+", "")
    _refuse_rows(
        location,
        pc.match_substring_regex(paths, _WRONG_PATH),
        table["path"],
        'a path must be relative, below the root, with "/" and without ".."',
    )
    refuse_repetition(location, paths)
    _check_links(location, base, paths)
    classes, labels = _number_labels(location, table["label"])
    samples = pa.table({"path": paths, "label": labels, "split": _name_splits(location, table)})
    return make_source("list", base, classes, samples)


def _read_table(location: Path) -> pa.Table:
    """Read the columns as strings, so that nothing is guessed about a path or a class name."""
    try:
        if location.suffix.lower() == ".csv":
            table = pyarrow.csv.read_csv(
                location,
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(_COLUMNS, pa.string())
                ),
            )
            _check_columns(location, table.column_names)
        else:
            with pyarrow.parquet.ParquetFile(location) as file:
                _check_columns(location, file.schema_arrow.names)
                table = file.read()
        return table.cast(pa.schema([(name, pa.string()) for name in table.column_names]))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{location}: cannot be read as a list, whose columns are text or numbers: {error}"
        ) from error


def _check_columns(location: Path, names: list[str]) -> None:
    if len(set(names)) < len(names) or not {"path", "label"} <= set(names) <= set(_COLUMNS):
        raise SourceError(
            f"{location}: the columns are {', '.join(names)[:200]}; expected path, label and, if"
            " wanted, split, each once: remove the others (a label may be empty)"
        )


def _number_labels(
    location: Path, column: pa.ChunkedArray
) -> tuple[tuple[str, ...], pa.ChunkedArray]:
    column = pc.if_else(pc.equal(column, ""), None, column)
    numeric = pc.match_substring_regex(column, _NUMBER)
    if pc.all(numeric, min_count=0).as_py():
        labels = pc.fill_null(column.cast(pa.int32()), -1)
        too_high = pc.greater_equal(labels, MAX_CLASSES)
        _refuse_rows(location, too_high, column, f"numbers must be below {MAX_CLASSES}")
        highest = pc.max(labels).as_py() if len(labels) else -1
        return tuple(str(label) for label in range(highest + 1)), labels
    one_sort = "labels must be all names, or all numbers from 0 (-1 for none)"
    _refuse_rows(location, numeric, column, one_sort)
    names = sorted(pc.unique(column.drop_null()).to_pylist())
    return tuple(names), pc.fill_null(pc.index_in(column, pa.array(names, pa.string())), -1)


def _name_splits(location: Path, table: pa.Table) -> pa.ChunkedArray | pa.Array:
    if "split" not in table.column_names:
        return pa.repeat(pa.scalar("", pa.string()), table.num_rows)
    column = pc.fill_null(table["split"], "")
    known = {"": "", **SPLIT_NAMES}
    index = pc.index_in(column, pa.array(list(known), pa.string()))
    _refuse_rows(location, pc.is_null(index), column, "a split is train, val or test, or empty")
    return pc.take(pa.array(list(known.values()), pa.string()), index)


def _check_links(location: Path, root: Path, paths: pa.ChunkedArray) -> None:
    """Refuse links that leave the root, at the cost of one listing a folder, not a look a file."""
    leaving = f"a link leads out of the root {root}"
    linked: list[str] = []
    for folder in pc.unique(pc.replace_substring_regex(paths, r"[^/]*$", "")).to_pylist():
        target = Path(os.path.realpath(root / folder))
        if not target.is_relative_to(root):
            _refuse_rows(location, pc.starts_with(paths, folder), paths, leaving)
        try:
            with os.scandir(target) as entries:
                linked += [folder + entry.name for entry in entries if entry.is_symlink()]
        except OSError:
            continue  # its images get the status "missing" or "unreadable" when they are read
    for path in pc.filter(paths, pc.is_in(paths, pa.array(linked, pa.string()))).to_pylist():
        try:
            resolve_inside(root, path)
        except SourceError:
            _refuse_rows(location, pc.equal(paths, path), paths, leaving)


def _refuse_rows(
    location: Path, wrong: pa.ChunkedArray, column: pa.ChunkedArray, expected: str
) -> None:
    row = pc.index(wrong, True).as_py()
    if row >= 0:
        count = pc.sum(wrong).as_py()
        raise SourceError(
            f"{location}, row {row + 1}: found {column[row].as_py()!r}, but {expected}"
            f" ({count} such rows)"
        )
