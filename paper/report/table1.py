"""Table 1: Anchor 1, Anchor 2, cResNet and FA-cResNet at each codec."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentset.paper.experiments import TITLES
from latentset.paper.report.captions import (
    codec_order,
    data_set_title,
    describe_rates,
    describe_runs,
    papers_bpp,
    papers_top1,
    setting_title,
)
from latentset.paper.report.groups import DISTILLED, NO_RUNS, Group, Key
from latentset.paper.report.stores import Stores
from latentset.paper.report.tables import NOTHING, Part, markdown, number, write_csv
from latentset.train.run.run_files import write_text

SETTINGS = ("anchor2", "cresnet", "fa-cresnet")
"""Columns beside Anchor 1's."""

FURTHER = tuple(f"{setting}{DISTILLED}" for setting in SETTINGS)
"""Columns after the paper's, where there are such runs."""


def write_table1(
    data_sets: Mapping[str, Mapping[Key, Group]], stores: Stores, folder: Path
) -> Part:
    """Write table1.csv and table1.md.

    Args:
        data_sets: Groups of runs by data set.
        stores: For bits per pixel of the split that accuracies are of.
        folder: Where to.

    Returns:
        What was written.
    """
    chosen = {
        name: {key: group for key, group in groups.items() if _belongs(key)}
        for name, groups in data_sets.items()
    }
    chosen = {name: groups for name, groups in chosen.items() if groups}
    if not chosen:
        return Part(remark="no runs of Table 1's recipes" if data_sets else NO_RUNS)
    rows = [_row(n, key, g, stores) for n, groups in chosen.items() for key, g in groups.items()]
    write_csv(folder / "table1.csv", rows)
    text = ["# Table 1: accuracy at each rate\n"]
    for name, groups in chosen.items():
        text.append(f"\n## {data_set_title(name)}\n\n")
        text += [f"{line}\n" for line in describe_runs(name, groups.values())]
        text += [f"bpp: {line}\n" for line in [describe_rates(groups, stores)] if line]
        text += ["\n", _table(name, groups, stores), *_differences(name, groups)]
    write_text(folder / "table1.md", "".join(text))
    return Part(("table1.md", "table1.csv"))


def _belongs(key: Key) -> bool:
    setting, codec = key
    return setting in (*TITLES, *FURTHER) and (not codec or codec.startswith("msssim"))


def _row(data_set: str, key: Key, group: Group, stores: Stores) -> dict[str, Any]:
    setting, codec = key
    rate, of = stores.rate_bpp(group)
    return {
        "data_set": data_set,
        "setting": setting,
        "codec": codec,
        "codec_name": group.codec_name,
        "rate_bpp": rate,
        "rate_of": of,
        "split": group.first.split,
        "samples": group.first.samples,
        "parameters": group.first.result["parameters"],
        "seeds": len(group.runs),
        "top1": group.top1,
        "top1_spread": group.top1_spread,
        "top5": group.top5,
        "paper_rate_bpp": papers_bpp(data_set, codec),
        "paper_top1": papers_top1(data_set, setting, codec),
    }


def _table(name: str, groups: Mapping[Key, Group], stores: Stores) -> str:
    titles = ["codec", "bpp", "paper's", "Anchor 1", "paper's"]
    for setting in SETTINGS:
        titles += [setting_title(setting), "paper's"]
    further = [setting for setting in FURTHER if any(setting == own for own, _ in groups)]
    titles += [setting_title(setting) for setting in further]
    rows = []
    if ("anchor1", "") in groups:
        rate, _ = stores.rate_bpp(groups["anchor1", ""])
        cells = ["originals", number(rate, 3), number(papers_bpp(name, ""), 3)]
        cells += [_cell(groups["anchor1", ""]), number(papers_top1(name, "anchor1", ""), 1)]
        rows.append([*cells, *6 * [""], *["" for _ in further]])
    for codec in sorted({codec for _, codec in groups if codec}, key=codec_order):
        of_codec = [groups[s, codec] for s in (*further, *SETTINGS) if (s, codec) in groups]
        rate, _ = stores.rate_bpp(of_codec[-1])
        papers = papers_bpp(name, codec)
        said = NOTHING if papers is None else str(papers)
        cells = [of_codec[-1].codec_name, number(rate, 4), said, "", ""]
        for setting in SETTINGS:
            cells.append(_cell(groups.get((setting, codec))))
            cells.append(number(papers_top1(name, setting, codec), 1))
        cells += [_cell(groups.get((setting, codec))) for setting in further]
        rows.append(cells)
    return markdown(titles, rows, left=("codec",))


def _cell(group: Group | None) -> str:
    return f"{group.cell} ({len(group.runs)})" if group else NOTHING


def _differences(name: str, groups: Mapping[Key, Group]) -> list[str]:
    """How far FA-cResNet is above the others: the paper's claim."""
    lines = []
    for codec in sorted({codec for _, codec in groups if codec}, key=codec_order):
        if ("fa-cresnet", codec) not in groups:
            continue
        for other in ("cresnet", "anchor2"):
            if (other, codec) not in groups:
                continue
            ours = _paired(groups["fa-cresnet", codec], groups[other, codec])
            theirs = papers_top1(name, "fa-cresnet", codec), papers_top1(name, other, codec)
            said = f"{theirs[0] - theirs[1]:+.1f}" if theirs[0] and theirs[1] else NOTHING
            codec_name = groups["fa-cresnet", codec].codec_name
            lines.append([codec_name, setting_title(other), ours, said])
    if not lines:
        return []
    table = markdown(["codec", "less", "points", "paper's"], lines, left=("codec", "less"))
    return [
        "\nFA-cResNet's top-1 less that of another, points; mean over the seeds that both have, "
        "± standard deviation of the differences (n - 1), number of those seeds in parentheses:\n"
        "\n",
        table,
    ]


def _paired(one: Group, other: Group) -> str:
    """The difference seed by seed: seeds that only one has say nothing of it."""
    ours, theirs = ({run.seed: 100 * run.top1 for run in group.runs} for group in (one, other))
    found = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not found:
        return f"{NOTHING} (no common seed)"
    spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):+.1f}{spread} ({len(found)})"
