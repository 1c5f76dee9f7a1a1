"""The whole report: every table and figure there is something for, and report.md, their index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentset.datasets.errors import TrainingError
from latentset.datasets.storage.atomic import write_atomically
from latentset.datasets.store.target_checks import check_output
from latentset.paper.report.captions import data_set_title, name_networks
from latentset.paper.report.figures_2_and_5 import write_figure2, write_figure5
from latentset.paper.report.figures_6_and_7 import write_figure6, write_figure7
from latentset.paper.report.output import Part
from latentset.paper.report.paired import write_differences
from latentset.paper.report.results import ResultLine, draw, gather, write_tables
from latentset.paper.report.runs import NO_RUNS, Groups, find_runs, find_unfinished, group_runs
from latentset.paper.report.stores import Stores
from latentset.paper.report.table1 import write_table1
from latentset.paper.report.table2 import read_codec_times, write_table2
from latentset.paper.report.table3 import write_table3

PAGE = "report.md"
"""The index."""

ITEMS = {
    "table1": "Table 1: accuracy at each rate",
    "differences": "Differences between networks, paired by seed",
    "table2": "Table 2: what one image costs",
    "table3": "Table 3: what each part is worth",
    "figure2": "Figure 2: how many values of each channel of ŷ are not zero",
    "figure5": "Figure 5: one image through every codec",
    "figure6": "Figure 6: accuracy against rate",
    "figure7": "Figure 7: accuracy against rate, PSNR, MS-SSIM",
}
"""Headings of the tables and figures, in the paper's order."""


@dataclass(frozen=True)
class WrittenReport:
    """What was written."""

    lines: list[ResultLine]
    """Every recipe and store."""
    parts: dict[str, Part]
    """By the keys of :data:`ITEMS`."""
    left_out: list[str]
    """Runs that have no result, or cannot be read, and why."""


def write_report(
    runs: Sequence[Path],
    folder: Path,
    *,
    latents: Sequence[str] = (),
    pixels: Sequence[str] = (),
    codec_times: Path | None = None,
    sample: str | None = None,
    timing: bool = True,
) -> WrittenReport:
    """Write all that can be made of folders of runs, or above them, and locations of stores.

    Without runs: Table 2's networks of the paper, and Figures 2 and 5. ``codec_times`` is a file of
    `latentset codec time --json`, ``sample`` the id of the image of Figure 5; ``timing`` measures
    how long networks take.

    Raises:
        TrainingError: There is nothing to report on, a folder has no finished run, runs cannot be
            averaged, or a file of times cannot be read.
        StoreError: A store cannot be used.
    """
    if not runs and not latents and codec_times is None:
        raise TrainingError(
            "nothing to report on: expected folders of runs (RUNS…), or a store of latents "
            "(--latents STORE: Figures 2 and 5, Table 2), or times of the codecs (--codec-times "
            "FILE: Table 2), got none of them"
        )
    check_output(folder / PAGE)
    left_out = [f"{run} is not finished" for run in find_unfinished(runs)]
    found = find_runs(runs, left_out)
    stores = Stores.open(latents, pixels)
    times = read_codec_times(codec_times) if codec_times else None
    lines, data_sets = gather(found), group_runs(found)
    folder.mkdir(parents=True, exist_ok=True)
    if lines:
        write_tables(lines, folder)
        draw(lines, folder / "accuracy.png")
    # With runs of other recipes alone nobody asked for the paper's networks, which take minutes.
    costs = Part(remark=NO_RUNS)
    if data_sets or times or not found:
        costs = write_table2(data_sets, times, folder, timing=timing)
    parts = {
        "table1": write_table1(data_sets, stores, folder),
        "differences": write_differences(data_sets, folder),
        "table2": costs,
        "table3": write_table3(data_sets, folder),
        "figure2": write_figure2(stores, folder),
        "figure5": write_figure5(stores, sample, folder),
        "figure6": write_figure6(data_sets, stores, folder),
        "figure7": write_figure7(data_sets, stores, folder),
    }
    write_atomically(folder / PAGE, _page(data_sets, parts, len(left_out), bool(lines)))
    return WrittenReport(lines, parts, left_out)


def _page(
    data_sets: Mapping[str, Groups],
    parts: Mapping[str, Part],
    left_out: int,
    with_runs: bool,
) -> str:
    lines = ["# Report", ""]
    for name, groups in data_sets.items():
        runs = [run for group in groups.values() for run in group.runs]
        seeds = sorted({run.seed for run in runs})
        what = name_networks([run.recipe for run in runs if run.recipe is not None])
        lines.append(
            f"- {data_set_title(name)}: {len(runs)} runs of the paper's experiments, seeds "
            f"{', '.join(map(str, seeds))}" + (f"; **{what[0].lower()}{what[1:]}**" if what else "")
        )
    if with_runs:
        lines.append("- all runs: [results.md](results.md), [results.csv](results.csv)")
    if left_out:
        lines.append(f"- left out, because not finished or not readable: {left_out} runs")
    lines += [""] if lines[-1] else []
    for name, title in ITEMS.items():
        part = parts[name]
        if part == Part(remark=NO_RUNS):
            continue
        lines += [f"## {title}", ""]
        if part.files:
            lines += [", ".join(f"[{file}]({file})" for file in part.files), ""]
        if part.remark:
            lines += [("" if part.files else "Left out: ") + part.remark + ".", ""]
        lines += [part.caption, ""] if part.caption else []
        lines += [f"![{title}]({file})\n" for file in part.files if file.endswith(".svg")]
    return "\n".join(lines).rstrip() + "\n"
