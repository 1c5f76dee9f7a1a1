"""All runs: one line a recipe and store, mean and spread over seeds."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from latentset.paper.report.groups import DISTILLED, check_runs
from latentset.paper.report.pictures import new_figure, save_png
from latentset.paper.report.runs import Run
from latentset.paper.report.tables import markdown, write_csv
from latentset.train.run.run_files import write_text


@dataclass(frozen=True)
class Line:
    """Runs of one recipe on one store."""

    recipe: str
    """Name of the recipe, and whether its runs were distilled."""
    model: str
    """Kind of the network."""
    codec: str
    """Codec of the store."""
    rate_bpp: float | None
    """Mean over the store's samples, bits per pixel; None where the store does not say."""
    store_bytes: int
    """All objects of the store."""
    trained_bytes: int
    """Of these, the arrays that training reads."""
    parameters: int
    """Of the network."""
    measured_on: str
    """Which samples the accuracies are of: ``test``, or ``val`` where the recipe names no test
    split, or ``train`` where it has neither."""
    samples: int | None
    """Number of test samples; None for other splits."""
    seeds: int
    """Number of runs."""
    top1: float
    """Mean over the runs of the share whose class came first."""
    top1_spread: float
    """Standard deviation over the runs (n - 1); 0 for one run."""
    top5: float | None
    """Mean over the runs of the share whose class was among the first five."""


def gather(runs: Sequence[Run]) -> list[Line]:
    """Average runs that differ by their seed alone.

    Args:
        runs: Finished runs.

    Returns:
        One line for each recipe and store, sorted by bits per pixel, then recipe.

    Raises:
        TrainingError: Two of the runs have the same recipe, store and seed, or differ by more.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((_name(run), run.result["store_fingerprint"]), []).append(run)
    for found in groups.values():
        check_runs(found)
    lines = [_line(found) for found in groups.values()]
    return sorted(lines, key=lambda line: (line.rate_bpp or 0, line.recipe))


def write_tables(lines: Sequence[Line], folder: Path) -> None:
    """Write results.csv and results.md.

    Args:
        lines: The lines.
        folder: Made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "results.csv", [asdict(line) for line in lines])
    table = markdown(TITLES, [_cells(line) for line in lines], left=LEFT)
    write_text(folder / "results.md", table)


def make_table(lines: Sequence[Line]) -> Table:
    """Make a table for the terminal: the columns that matter most, numbers whole, few lines.

    Settings of Table 3 are left out, as in the picture.

    Args:
        lines: The lines.

    Returns:
        The table.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in TERMINAL:
        if title in LEFT:
            table.add_column(title, overflow="fold")
        else:
            table.add_column(title, justify="right", no_wrap=True)
    for line in _without_table3(lines):
        cells = dict(zip(TITLES, _cells(line), strict=True))
        table.add_row(*(cells[title] for title in TERMINAL))
    return table


def draw(lines: Sequence[Line], path: Path) -> None:
    """Draw accuracy against bits per pixel, one curve for recipes that differ in the codec alone.

    Settings of Table 3 are left out: they are too many for one picture.

    Args:
        lines: The lines.
        path: The picture, PNG.
    """
    figure = new_figure(6, 4)
    axes = figure.subplots()
    curves: dict[str, list[Line]] = {}
    for line in sorted(_without_table3(lines), key=lambda line: line.recipe):
        if line.rate_bpp is not None:
            curves.setdefault(CODEC.sub(r"\2", line.recipe), []).append(line)
    for label, own in curves.items():
        own.sort(key=lambda line: line.rate_bpp or 0)
        axes.errorbar(
            [line.rate_bpp for line in own],
            [100 * line.top1 for line in own],
            yerr=[100 * line.top1_spread for line in own],
            marker="o",
            capsize=3,
            label=label,
        )
    measured = ", ".join(sorted({line.measured_on for line in lines}))
    axes.set_xlabel("bits per pixel (mean)")
    axes.set_ylabel(f"top-1 accuracy ({measured}), %")
    axes.grid(visible=True, alpha=0.3)
    if curves:
        axes.legend(fontsize="small" if len(curves) < 7 else "xx-small")
    save_png(figure, path)


TITLES = ("recipe", "codec", "bpp", "store MB", "trained MB", "parameters", "split", "seeds",
          "top-1 %", "top-5 %")  # fmt: skip
TERMINAL = ("recipe", "codec", "bpp", "store MB", "top-1 %", "top-5 %")
LEFT = ("recipe", "codec", "split")
CODEC = re.compile(rf"-(msssim|mse)-\d+({DISTILLED})?$")
"""The end of a recipe's name that names its codec."""


def _without_table3(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if "/table3/" not in line.recipe]


def _cells(line: Line) -> list[str]:
    spread = f" ± {100 * line.top1_spread:.1f}" if line.seeds > 1 else ""
    return [
        line.recipe,
        line.codec,
        "" if line.rate_bpp is None else f"{line.rate_bpp:.3f}",
        f"{line.store_bytes / 1e6:.2f}",
        f"{line.trained_bytes / 1e6:.2f}",
        f"{line.parameters:,}",
        line.measured_on + (f" ({line.samples:,})" if line.samples else ""),
        str(line.seeds),
        f"{100 * line.top1:.1f}{spread}",
        "" if line.top5 is None else f"{100 * line.top5:.1f}",
    ]


def _name(run: Run) -> str:
    return run.name + (DISTILLED if run.distilled else "")


def _line(runs: Sequence[Run]) -> Line:
    first = runs[0].result
    top1 = [run.top1 for run in runs]
    top5 = [run.top5 for run in runs if run.top5 is not None]
    return Line(
        recipe=_name(runs[0]),
        model=first["model"],
        codec=first["codec"],
        rate_bpp=first["rate_bpp"],
        store_bytes=first["store_bytes"],
        trained_bytes=first["trained_bytes"],
        parameters=first["parameters"],
        measured_on=runs[0].split,
        samples=runs[0].samples,
        seeds=len(runs),
        top1=statistics.mean(top1),
        top1_spread=statistics.stdev(top1) if len(top1) > 1 else 0.0,
        top5=statistics.mean(top5) if top5 else None,
    )
