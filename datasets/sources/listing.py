"""A list of images, as CSV or Parquet: columns ``path``, ``label`` and, if wanted, ``split``.

- ``path``: relative to the list's own folder, or to the root given, with ``/``. Order is kept.
- ``label``: class names, which are sorted and numbered from 0; or numbers from 0, which stay what
  they are and whose classes are called "0", "1", … Empty, or the number -1, is no class.
- ``split``: "train", "val" (also "valid", "validation"), "test" or empty.

Another column is refused: a misspelt "split" would otherwise pass for none. Whether the files exist
is seen when they are read: a missing one has the status "missing".
"""

import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from latentset.datasets.errors import SourceError
from latentset.datasets.limits import MAX_CLASSES
from latentset.datasets.sources.root import ImageRoot, is_there, resolve_inside, resolve_root
from latentset.datasets.sources.source import Source, make_source, refuse_repetition
from latentset.datasets.sources.splits import find_split

LIST_ENDINGS = (".csv", ".parquet")
OTHER_TABLES = (".tsv", ".txt", ".xlsx", ".xls", ".ods", ".json", ".jsonl")
"""Endings of tables that are not read."""

_TRIED = 100
"""Images of a list that are looked for before a job starts."""

_COLUMNS = ("path", "label", "split")
_WRONG_PATH = r"^$|^/|^[A-Za-z]:|\\|//|/$|(^|/)\.{1,2}(/|$)|[\x00-\x1f]"
_NUMBER = r"^(-1|0|[1-9][0-9]{0,8})$"
_WHOLE_FLOAT = r"^(-1|0|[1-9][0-9]{0,8})\.0+$"
"""A number that a blank cell in its column made a float when the table was written."""
_NO_LABEL = r"(?i)^(nan|n/a|none|null|<na>|#(n/a|ref!|name\?|value!|div/0!|null!|num!)|\?|-)$"


def open_list(location: Path, root: ImageRoot | None = None) -> Source:
    """List the images that a CSV or Parquet file names, relative to ``root`` or its own folder.

    Raises:
        SourceError: Not such a file, a column missing or not known, or a row whose path, label or
            split is not understood; rows are counted from 1, without the header.
    """
    if location.suffix.lower() in OTHER_TABLES:
        raise SourceError(f"{location}: a list is a {' or '.join(LIST_ENDINGS)} file: convert it")
    table = _read_table(location)
    base = location.parent if root is None else root
    base = resolve_root(base) if isinstance(base, Path) else base
    paths = pc.replace_substring_regex(pc.fill_null(table["path"], ""), r"^(\./)+", "")
    _refuse_rows(
        location,
        pc.match_substring_regex(paths, _WRONG_PATH),
        table["path"],
        'a path must be relative, below the root, with "/" and without ".."',
    )
    refuse_repetition(location, paths)
    if isinstance(base, Path):
        _check_links(location, base, paths)
    classes, labels = number_labels(location, table["label"])
    samples = pa.table({"path": paths, "label": labels, "split": _name_splits(location, table)})
    return make_source("list", base, classes, samples, location=location)


def check_root(source: Source) -> None:
    """Raise SourceError where none of a list's first images is there: its root is another."""
    if source.kind != "list":
        return
    first = source.samples["path"].slice(0, _TRIED).to_pylist()
    if not any(is_there(resolve_inside(source.root, path)) for path in first):
        raise SourceError(
            f"none of the first {len(first)} images of the list is there, as "
            f"{source.root}/{first[0]}: say which folder its paths are relative to (--root FOLDER)"
        )


def is_no_label(name: str) -> bool:
    """Whether a class is named as programs write a missing label."""
    return re.match(_NO_LABEL, name) is not None


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
            for k, column in enumerate(table.columns):
                if pa.types.is_boolean(column.type):  # as pandas writes them to CSV
                    text = pc.if_else(column, "True", "False")
                    table = table.set_column(k, table.column_names[k], text)
        table = table.cast(pa.schema([(name, pa.string()) for name in table.column_names]))
        table.validate(full=True)  # Parquet may call text what is not UTF-8
        return table
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{location}: cannot be read as a list, which is UTF-8 with commas, and whose columns"
            f" are text or numbers: {error}"
        ) from error


def _check_columns(location: Path, names: list[str]) -> None:
    if len(set(names)) < len(names) or not {"path", "label"} <= set(names) <= set(_COLUMNS):
        meant = {name: name.strip().lower() for name in names}
        advice = [
            f"rename {name!r} to {column!r}"
            for name, column in meant.items()
            if column in _COLUMNS and column not in names
        ]
        if missing := [name for name in ("path", "label") if name not in meant.values()]:
            advice.append(
                f"add {' and '.join(missing)}, or rename columns so; a label may be empty"
            )
        if len(names) == 1 and {";", "\t"} & set(names[0]):
            advice = ["separate them by commas"]
        raise SourceError(
            f"{location}: the columns are {', '.join(map(repr, names))[:200]}; expected path, label"
            f" and, if wanted, split, each once: {', '.join(advice) or 'remove the others'}"
        )


def number_labels(
    location: ImageRoot, column: pa.ChunkedArray
) -> tuple[tuple[str, ...], pa.ChunkedArray]:
    """The classes of labels, names or numbers as in the module's text, and each label's number."""
    column = pc.if_else(pc.equal(column, ""), None, column)
    if not pc.all(pc.match_substring_regex(column, _NUMBER), min_count=0).as_py():
        column = _drop_fractions(column)
    no_label = pc.fill_null(pc.match_substring_regex(column, _NO_LABEL), False)
    _refuse_rows(location, no_label, column, "an image without a label has an empty one")
    numeric = pc.match_substring_regex(column, _NUMBER)
    if pc.all(numeric, min_count=0).as_py():
        labels = pc.fill_null(column.cast(pa.int32()), -1)
        # One stray number must not make a billion classes.
        too_high = pc.greater_equal(labels, MAX_CLASSES)
        _refuse_rows(location, too_high, column, f"numbers must be below {MAX_CLASSES}")
        highest = pc.max(labels).as_py() if len(labels) else -1
        return tuple(str(label) for label in range(highest + 1)), labels
    one_sort = "labels must be all names, or all numbers from 0 (-1 for none)"
    if pc.any(numeric).as_py():
        fewer = numeric if pc.mean(numeric).as_py() <= 0.5 else pc.invert(numeric)
        _refuse_rows(location, fewer, column, one_sort)
    names = sorted(pc.unique(column.drop_null()).to_pylist())
    return tuple(names), pc.fill_null(pc.index_in(column, pa.array(names, pa.string())), -1)


def _drop_fractions(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make 2.0 a 2 where all labels are whole numbers; NaN is then no label."""
    nan = pc.match_substring_regex(column, "(?i)^nan$")
    numbers = pc.if_else(nan, None, column)
    whole = pc.or_(
        pc.match_substring_regex(numbers, _NUMBER), pc.match_substring_regex(numbers, _WHOLE_FLOAT)
    )
    if not pc.all(whole, min_count=0).as_py():
        return column
    return pc.replace_substring_regex(numbers, r"\.0+$", "")


def _name_splits(location: Path, table: pa.Table) -> pa.ChunkedArray | pa.Array:
    if "split" not in table.column_names:
        return pa.repeat(pa.scalar("", pa.string()), table.num_rows)
    column = pc.fill_null(table["split"], "")
    known = {name: find_split(name) if name else "" for name in pc.unique(column).to_pylist()}
    index = pc.index_in(column, pa.array(list(known), pa.string()))
    splits = pc.take(pa.array(list(known.values()), pa.string()), index)
    _refuse_rows(location, pc.is_null(splits), column, "a split is train, val or test, or empty")
    return splits


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
    location: ImageRoot, wrong: pa.ChunkedArray, column: pa.ChunkedArray, expected: str
) -> None:
    row = pc.index(wrong, True).as_py()
    if row >= 0:
        count = pc.sum(wrong).as_py()
        raise SourceError(
            f"{location}, row {row + 1}: found {column[row].as_py()!r}, but {expected}"
            f" ({count} such rows)"
        )
