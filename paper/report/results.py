"""All runs: one line a recipe and store, mean and 95 % interval over seeds."""

import re
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from latentset.datasets.storage.atomic import write_atomically
from latentset.datasets.terminal import printable
from latentset.paper.report.output import (
    BARS,
    error_bar,
    markdown,
    new_figure,
    save_picture,
    write_csv,
)
from latentset.paper.report.runs import DISTILLED, Run, group_seeds, half_interval

TITLES = ("recipe", "codec", "bpp", "store MB", "trained MB", "parameters", "split", "seeds",
          "top-1 %", "top-5 %")  # fmt: skip
TERMINAL = ("recipe", "codec", "bpp", "store MB", "top-1 %", "top-5 %")
LEFT = ("recipe", "codec", "split")
CODEC = re.compile(rf"-(msssim|mse)-\d+({DISTILLED})?$")
"""The end of a recipe's name that names its codec."""


_WIDE = 110
"""Columns of a terminal that need not fold names."""

_NAME_WIDTH = 19

LEAST_SPAN = 20.0
"""Percentage points that the picture's axis spans at least: less makes noise look like a result."""


@dataclass(frozen=True)
class ResultLine:
    """Runs of one recipe on one store."""

    recipe: str
    """Name of the recipe, and whether its runs were distilled."""
    model: str
    codec: str
    rate_bpp: float | None
    """Mean over the store's samples, bits per pixel, where it is known."""
    store_bytes: int
    trained_bytes: int
    """Of the store, and of its arrays that training reads."""
    parameters: int
    measured_on: str
    """``Run.split``."""
    samples: int | None
    """Number of test samples; None for other splits."""
    seeds: int
    """Number of runs."""
    top1: float
    """Mean over the runs, as a fraction."""
    top1_interval: float | None
    """Half of the mean's 95 % interval, as a fraction; None for one run."""
    top5: float | None


def gather(runs: Sequence[Run]) -> list[ResultLine]:
    """Average runs of each recipe and store, sorted by bits per pixel, then recipe.

    Raises:
        TrainingError: Two of the runs have the same recipe, store and seed, or differ by more.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        name = run.name + run.distilled
        groups.setdefault((name, run.result["store_fingerprint"]), []).append(run)
    lines = []
    for (name, _), own in groups.items():
        first = group_seeds(own).first
        top1 = [run.top1 for run in own]
        top5 = [run.top5 for run in own if run.top5 is not None]
        columns = ("model", "codec", "rate_bpp", "store_bytes", "trained_bytes", "parameters")
        line = ResultLine(
            recipe=name,
            **{column: first.result[column] for column in columns},
            measured_on=first.split,
            samples=first.samples,
            seeds=len(own),
            top1=statistics.mean(top1),
            top1_interval=half_interval(top1),
            top5=statistics.mean(top5) if top5 else None,
        )
        lines.append(line)
    return sorted(lines, key=lambda line: (line.rate_bpp or 0, line.recipe))


def write_tables(lines: Sequence[ResultLine], folder: Path) -> None:
    """Write results.csv and results.md."""
    write_csv(folder / "results.csv", [asdict(line) for line in lines])
    table = markdown(TITLES, [_cells(line) for line in lines], left=LEFT)
    write_atomically(folder / "results.md", table)


def make_table(lines: Sequence[ResultLine], width: int) -> Table:
    """Make a table for the terminal: the columns that matter most, without settings of Table 3.

    Names are folded at their hyphens where ``width``, in columns, is small.
    """
    name_width = _NAME_WIDTH if width < _WIDE else width
    titles = list(TERMINAL)
    if len({line.measured_on for line in lines}) > 1:
        titles[titles.index("store MB")] = "split"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in titles:
        table.add_column(title, justify="left" if title in LEFT else "right", no_wrap=True)
    for line in _without_table3(lines):
        cells = dict(zip(TITLES, _cells(line), strict=True))
        folded = {title: textwrap.fill(printable(cells[title]), name_width) for title in LEFT}
        table.add_row(*(Text({**cells, **folded}[title]) for title in titles))
    return table


def draw(lines: Sequence[ResultLine], path: Path) -> None:
    """Draw accuracy against bits per pixel, one curve for recipes that differ in the codec alone.

    Settings of Table 3 are excluded: they are too many for one picture.
    """
    figure = new_figure(6, 4)
    axes = figure.subplots()
    curves: dict[str, list[ResultLine]] = {}
    for line in sorted(_without_table3(lines), key=lambda line: line.recipe):
        if line.rate_bpp is not None:
            curves.setdefault(CODEC.sub(r"\2", line.recipe), []).append(line)
    for label, own in curves.items():
        own.sort(key=lambda line: line.rate_bpp or 0)
        axes.errorbar(
            [line.rate_bpp for line in own],
            [100 * line.top1 for line in own],
            yerr=[_bar(line) for line in own],
            marker="o",
            capsize=3,
            label=label,
        )
    low, high = axes.get_ylim()
    if (missing := LEAST_SPAN - (high - low)) > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)
    measured = ", ".join(sorted({line.measured_on for line in lines}))
    axes.set_xlabel("bits per pixel (mean)")
    axes.set_ylabel(f"top-1 accuracy ({measured}), %")
    axes.grid(visible=True, alpha=0.3)
    if curves:
        axes.legend(fontsize="small" if len(curves) < 7 else "xx-small")
    save_picture(figure, path, BARS)


def _bar(line: ResultLine) -> float:
    interval = None if line.top1_interval is None else 100 * line.top1_interval
    return error_bar(100 * line.top1, interval, line.samples)


def _without_table3(lines: Sequence[ResultLine]) -> list[ResultLine]:
    return [line for line in lines if "/table3/" not in line.recipe]


def _cells(line: ResultLine) -> list[str]:
    half = line.top1_interval
    return [
        line.recipe,
        line.codec,
        "" if line.rate_bpp is None else f"{line.rate_bpp:.3f}",
        f"{line.store_bytes / 1e6:.2f}",
        f"{line.trained_bytes / 1e6:.2f}",
        f"{line.parameters:,}",
        line.measured_on + (f" ({line.samples:,})" if line.samples else ""),
        str(line.seeds),
        f"{100 * line.top1:.1f}" + ("" if half is None else f" ± {100 * half:.1f}"),
        "" if line.top5 is None else f"{100 * line.top5:.1f}",
    ]
