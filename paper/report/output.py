"""Files of the report: CSV, Markdown, pictures made without a display; the same bytes each time."""

import csv
import io
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from pathlib import Path
from typing import Any

from latentset.datasets.storage.atomic import atomic_file, write_atomically
from latentset.datasets.terminal import printable

NOTHING = "–"
"""Cell of what was not measured, or is not in the paper."""

MARKS = {"anchor1": "s", "anchor2": "D", "cresnet": "^", "fa-cresnet": "o"}
COLOURS = {
    "anchor1": "#777777",
    "anchor2": "#1f77b4",
    "cresnet": "#ff7f0e",
    "fa-cresnet": "#d62728",
}
"""Mark and colour of each setting."""

BARS = (
    "Bars: 95 % interval of the mean over seeds (Student's t); of a single run, 1.96 standard "
    "errors of an accuracy on so many samples."
)
"""Caption of pictures with :func:`error_bar`."""


@dataclass(frozen=True)
class Part:
    """A table or figure of the report, as it was written."""

    files: tuple[str, ...] = ()
    """Names of its files; none where it was left out."""
    remark: str = ""
    """What was left out of it, or why all of it was; empty where it is whole."""
    caption: str = ""
    """What must be known to read it, beside its files."""


def write_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Collection[str] | None = None
) -> None:
    """Write rows as CSV, all columns or these; numbers in full, nothing where there is None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or rows[0], lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        cells = {key: printable(v) if isinstance(v, str) else v for key, v in row.items()}
        writer.writerow(cells)
    write_atomically(path, text.getvalue())


def markdown(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = ()
) -> str:
    """Write a table in Markdown, all columns but those titled ``left`` aligned right."""
    rule = ["---" if title in left else "---:" for title in titles]
    shown = [[printable(cell).replace("|", "\\|") for cell in cells] for cells in (titles, *rows)]
    shown.insert(1, rule)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in shown)


def number(value: float | None, digits: int) -> str:
    """A cell of a number with so many digits after the point, or of none."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def new_figure(width: float, height: float) -> Any:
    """Make an empty matplotlib figure, inches, of 150 dots an inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def error_bar(top1: float, interval: float | None, samples: int | None) -> float:
    """Half of the bar at an accuracy, all in percent; not a number where it is not known."""
    if interval is None:
        return 1.96 * sqrt(top1 * (100 - top1) / samples) if samples else nan
    return interval


def save_picture(figure: Any, path: Path, caption: str = "") -> None:
    """Write a figure as SVG, without date and random names, or as PNG, a caption below it."""
    import matplotlib as mpl
    from matplotlib.text import Text

    if caption:
        width = int(figure.get_figwidth() * 20)
        figure.supxlabel(textwrap.fill(caption, width), fontsize=7)
    for text in figure.findobj(Text):  # names are no formulas
        text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
        text.set_parse_math(False)
    kind = path.suffix.removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {}
    with mpl.rc_context({"svg.hashsalt": "latentset"}), atomic_file(path) as partial:
        figure.savefig(partial, format=kind, metadata=metadata)
