"""Finished runs, gathered: one line a recipe and codec, mean and spread over seeds."""

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from latentset.datasets.errors import TrainingError
from latentset.train.run_folder import RESULT, read_result, write_text


@dataclass(frozen=True)
class Line:
    """Runs of one recipe on one store."""

    recipe: str
    """Name of the recipe."""
    model: str
    """Kind of the network."""
    codec: str
    """Codec of the store."""
    rate_bpp: float
    """Mean over the store's samples, bits per pixel."""
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


def find_results(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Read all finished runs in some folders.

    Args:
        folders: Folders of runs, or folders above them.

    Returns:
        The results, in the order of their paths.

    Raises:
        TrainingError: A folder holds no finished run.
    """
    results = []
    for folder in folders:
        found = sorted(folder.rglob(RESULT)) if folder.is_dir() else []
        if not found:
            raise TrainingError(
                f"{folder}: expected finished runs ({RESULT}) in it, found none; "
                "latentset train writes that file when it ends"
            )
        results += [read_result(path.parent) for path in found]
    return results


def gather(results: Sequence[dict[str, Any]]) -> list[Line]:
    """Average runs that differ by their seed alone.

    Args:
        results: Contents of result.json.

    Returns:
        One line for each recipe and store, sorted by bits per pixel, then recipe.

    Raises:
        TrainingError: Two of the runs have the same recipe, store and seed.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["recipe"], result["store_fingerprint"]), []).append(result)
    lines = []
    for (recipe, _), runs in groups.items():
        seeds = [run["seed"] for run in runs]
        if len(set(seeds)) < len(seeds):
            raise TrainingError(
                f"{recipe}: expected runs of different seeds, got seeds {sorted(seeds)}; "
                "name the folders of the runs that are meant"
            )
        lines.append(_line(runs))
    return sorted(lines, key=lambda line: (line.rate_bpp, line.recipe))


def write_tables(lines: Sequence[Line], folder: Path) -> None:
    """Write results.csv and results.md.

    Args:
        lines: The lines.
        folder: Made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Line)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in lines)
    write_text(folder / "results.csv", text.getvalue())
    rows = [_cells(line) for line in lines]
    rule = ["---" if title in LEFT else "---:" for title in TITLES]
    table = [f"| {' | '.join(cells)} |" for cells in (list(TITLES), rule, *rows)]
    write_text(folder / "results.md", "\n".join(table) + "\n")


def make_table(lines: Sequence[Line]) -> Table:
    """Make a table for the terminal: the columns that matter most, numbers whole.

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
    for line in lines:
        cells = dict(zip(TITLES, _cells(line), strict=True))
        table.add_row(*(cells[title] for title in TERMINAL))
    return table


def draw(lines: Sequence[Line], path: Path) -> None:
    """Draw accuracy against bits per pixel, one curve a recipe.

    Args:
        lines: The lines.
        path: The picture, PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for recipe in dict.fromkeys(sorted(line.recipe for line in lines)):
        own = [line for line in lines if line.recipe == recipe]
        axes.errorbar(
            [line.rate_bpp for line in own],
            [100 * line.top1 for line in own],
            yerr=[100 * line.top1_spread for line in own],
            marker="o",
            capsize=3,
            label=recipe,
        )
    measured = ", ".join(sorted({line.measured_on for line in lines}))
    axes.set_xlabel("bits per pixel (mean)")
    axes.set_ylabel(f"top-1 accuracy ({measured}), %")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path)


TITLES = ("recipe", "codec", "bpp", "store MB", "trained MB", "parameters", "split", "seeds",
          "top-1 %", "top-5 %")  # fmt: skip
TERMINAL = ("recipe", "codec", "bpp", "store MB", "top-1 %", "top-5 %")
LEFT = ("recipe", "codec", "split")


def _cells(line: Line) -> list[str]:
    spread = f" ± {100 * line.top1_spread:.1f}" if line.seeds > 1 else ""
    return [
        line.recipe,
        line.codec,
        f"{line.rate_bpp:.3f}",
        f"{line.store_bytes / 1e6:.2f}",
        f"{line.trained_bytes / 1e6:.2f}",
        f"{line.parameters:,}",
        line.measured_on + (f" ({line.samples:,})" if line.samples else ""),
        str(line.seeds),
        f"{100 * line.top1:.1f}{spread}",
        "" if line.top5 is None else f"{100 * line.top5:.1f}",
    ]


def _line(runs: Sequence[dict[str, Any]]) -> Line:
    first = runs[0]
    if first["test"]:
        split, samples = "test", first["test"]["samples"]
        figures = [(run["test"]["top1"], run["test"]["top5"]) for run in runs]
    elif first["best"]:
        split, samples = "val", None
        figures = [(run["best"]["val_top1"], run["best"]["val_top5"]) for run in runs]
    else:
        split, samples = "train", None
        figures = [(run["last"]["train_top1"], None) for run in runs]
    top1 = [one for one, _ in figures]
    top5 = [five for _, five in figures if five is not None]
    return Line(
        recipe=first["recipe"],
        model=first["model"],
        codec=first["codec"],
        rate_bpp=first["rate_bpp"],
        store_bytes=first["store_bytes"],
        trained_bytes=first["trained_bytes"],
        parameters=first["parameters"],
        measured_on=split,
        samples=samples,
        seeds=len(runs),
        top1=statistics.mean(top1),
        top1_spread=statistics.stdev(top1) if len(top1) > 1 else 0.0,
        top5=statistics.mean(top5) if top5 else None,
    )
