"""Tables as CSV and as Markdown."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentset.train.run.run_files import write_text

NOTHING = "–"
"""Cell of what was not measured, or is not in the paper."""


@dataclass(frozen=True)
class Part:
    """A table or figure of the report, as it was written."""

    files: tuple[str, ...] = ()
    """Names of its files; none where it was left out."""
    remark: str = ""
    """What was left out of it, or why all of it was; empty where it is whole."""
    caption: str = ""
    """What must be known to read it, beside what its files say."""


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; numbers in full, nothing where there is None.

    Args:
        path: The file.
        rows: At least one; all have the keys of the first, which are the columns.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def markdown(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = ()
) -> str:
    """Write a table in Markdown.

    Args:
        titles: Of the columns.
        rows: Cells, one a column.
        left: Titles of the columns of words; all others are of numbers, and end on the right.

    Returns:
        Lines.
    """
    rule = ["---" if title in left else "---:" for title in titles]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (titles, rule, *rows))


def number(value: float | None, digits: int) -> str:
    """Write a number, or that there is none.

    Args:
        value: The number.
        digits: After the point.

    Returns:
        A cell.
    """
    return NOTHING if value is None else f"{value:,.{digits}f}"
