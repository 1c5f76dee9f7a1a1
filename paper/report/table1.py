"""Table 1: Anchor 1, Anchor 2, cResNet and FA-cResNet at each codec."""

import statistics
from collections.abc import Mapping
from pathlib import Path

from latentset.datasets.storage.atomic import write_atomically
from latentset.paper.experiments import TITLES
from latentset.paper.report.captions import (
    data_set_title,
    describe_runs,
    papers_bpp,
    papers_top1,
    setting_title,
    sort_codecs,
)
from latentset.paper.report.output import NOTHING, Part, markdown, number, write_csv
from latentset.paper.report.runs import DISTILLED, NO_RUNS, Group, Groups, cell
from latentset.paper.report.stores import Stores

SETTINGS = ("anchor2", "cresnet", "fa-cresnet")
"""Columns beside Anchor 1's."""

FURTHER = tuple(f"{setting}{DISTILLED}" for setting in SETTINGS)
"""Columns after the paper's, where there are such runs."""


def write_table1(data_sets: Mapping[str, Groups], stores: Stores, folder: Path) -> Part:
    """Write table1.csv and table1.md; bits per pixel are of the split that accuracies are of."""
    chosen: dict[str, Groups] = {}
    for name, groups in data_sets.items():
        own = {
            (setting, codec): group
            for (setting, codec), group in groups.items()
            if setting in (*TITLES, *FURTHER) and (not codec or codec.startswith("msssim"))
        }
        if own:
            chosen[name] = own
    if not chosen:
        return Part(remark="no runs of Table 1's recipes" if data_sets else NO_RUNS)
    rows = list(stores.rows(chosen))
    columns = [name for name in rows[0] if name not in ("psnr_db", "ms_ssim")]
    write_csv(folder / "table1.csv", rows, columns)
    text = "# Table 1: accuracy at each rate\n"
    for name, groups in chosen.items():
        lines = describe_runs(name, groups.values())
        if rates := stores.describe_rates(groups):
            lines.append(f"bpp: {rates}")
        text += f"\n## {data_set_title(name)}\n\n" + "".join(f"{line}\n" for line in lines)
        text += "\n" + _table(name, groups, stores) + _differences(name, groups)
    write_atomically(folder / "table1.md", text)
    return Part(("table1.md", "table1.csv"))


def _table(name: str, groups: Groups, stores: Stores) -> str:
    titles = ["codec", "bpp", "paper's", "Anchor 1", "paper's"]
    for setting in SETTINGS:
        titles += [setting_title(setting), "paper's"]
    further = [setting for setting in FURTHER if any(setting == own for own, _ in groups)]
    titles += [setting_title(setting) for setting in further]
    rows = []
    if anchor1 := groups.get(("anchor1", "")):
        rate, _ = stores.rate_bpp(anchor1)
        cells = ["originals", number(rate, 3), number(papers_bpp(name, ""), 3)]
        cells += [cell(anchor1), number(papers_top1(name, "anchor1", ""), 1)]
        rows.append(cells + [""] * (len(titles) - len(cells)))
    for codec in sort_codecs(codec for _, codec in groups):
        of_codec = [groups[s, codec] for s in (*further, *SETTINGS) if (s, codec) in groups]
        rate, _ = stores.rate_bpp(of_codec[-1])
        papers = str(papers_bpp(name, codec) or NOTHING)
        cells = [of_codec[-1].codec_name, number(rate, 4), papers, "", ""]
        for setting in SETTINGS:
            cells.append(cell(groups.get((setting, codec))))
            cells.append(number(papers_top1(name, setting, codec), 1))
        cells += [cell(groups.get((setting, codec))) for setting in further]
        rows.append(cells)
    return markdown(titles, rows, left=("codec",))


def _differences(name: str, groups: Groups) -> str:
    """How far FA-cResNet is above the others: the paper's claim."""
    rows = []
    for codec in sort_codecs(codec for _, codec in groups):
        fa_cresnet = groups.get(("fa-cresnet", codec))
        for setting in ("cresnet", "anchor2"):
            other = groups.get((setting, codec))
            if fa_cresnet is None or other is None:
                continue
            papers = papers_top1(name, "fa-cresnet", codec), papers_top1(name, setting, codec)
            papers_cell = f"{papers[0] - papers[1]:+.1f}" if papers[0] and papers[1] else NOTHING
            ours = _paired(fa_cresnet, other)
            rows.append([fa_cresnet.codec_name, setting_title(setting), ours, papers_cell])
    if not rows:
        return ""
    return (
        "\nFA-cResNet's top-1 less that of another, points; mean over the seeds that both have, "
        "± standard deviation of the differences (n - 1), number of those seeds in parentheses:\n"
        "\n"
    ) + markdown(["codec", "less", "points", "paper's"], rows, left=("codec", "less"))


def _paired(one: Group, other: Group) -> str:
    """The difference seed by seed: seeds that only one has say nothing of it."""
    ours, theirs = ({run.seed: 100 * run.top1 for run in group.runs} for group in (one, other))
    found = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not found:
        return f"{NOTHING} (no common seed)"
    spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):+.1f}{spread} ({len(found)})"
