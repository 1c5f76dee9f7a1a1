"""Table 1: Anchor 1, Anchor 2, cResNet and FA-cResNet at each codec."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentset.train import paper
from latentset.train.experiments import TITLES
from latentset.train.report.captions import (
    codec_order,
    data_set_title,
    describe_runs,
    setting_title,
)
from latentset.train.report.groups import NO_RUNS, Group, Key
from latentset.train.report.stores import Stores
from latentset.train.report.tables import NOTHING, Part, markdown, number, write_csv
from latentset.train.run_folder import write_text

SETTINGS = ("anchor2", "cresnet", "fa-cresnet")
"""Columns beside Anchor 1's."""


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
        text += ["\n", _table(groups, stores), *_differences(groups)]
    write_text(folder / "table1.md", "".join(text))
    return Part(("table1.md", "table1.csv"))


def _belongs(key: Key) -> bool:
    setting, codec = key
    return setting in TITLES and (not codec or codec.startswith("msssim"))


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
        "paper_rate_bpp": paper.BPP.get(codec) if codec else paper.ORIGINAL_BPP,
        "paper_top1": paper.top1(setting, codec),
    }


def _table(groups: Mapping[Key, Group], stores: Stores) -> str:
    titles = ["codec", "bpp", "paper's", "Anchor 1", "paper's"]
    for setting in SETTINGS:
        titles += [setting_title(setting), "paper's"]
    rows = []
    if ("anchor1", "") in groups:
        rate, _ = stores.rate_bpp(groups["anchor1", ""])
        cells = ["originals", number(rate, 3), str(paper.ORIGINAL_BPP)]
        rows.append([*cells, _cell(groups["anchor1", ""]), str(paper.ANCHOR1), *6 * [""]])
    for codec in sorted({codec for _, codec in groups if codec}, key=codec_order):
        of_codec = [groups[s, codec] for s in SETTINGS if (s, codec) in groups]
        rate, _ = stores.rate_bpp(of_codec[-1])
        papers = str(paper.BPP.get(codec, NOTHING))
        cells = [of_codec[-1].codec_name, number(rate, 4), papers, "", ""]
        for setting in SETTINGS:
            cells.append(_cell(groups[setting, codec]) if (setting, codec) in groups else NOTHING)
            cells.append(number(paper.top1(setting, codec), 1))
        rows.append(cells)
    return markdown(titles, rows, left=("codec",))


def _cell(group: Group) -> str:
    return f"{group.cell} ({len(group.runs)})"


def _differences(groups: Mapping[Key, Group]) -> list[str]:
    """How far FA-cResNet is above the others: the paper's claim."""
    lines = []
    for codec in sorted({codec for _, codec in groups if codec}, key=codec_order):
        if ("fa-cresnet", codec) not in groups:
            continue
        for other in ("cresnet", "anchor2"):
            if (other, codec) not in groups:
                continue
            ours = groups["fa-cresnet", codec].top1 - groups[other, codec].top1
            theirs = paper.top1("fa-cresnet", codec), paper.top1(other, codec)
            said = f"{theirs[0] - theirs[1]:+.1f}" if theirs[0] and theirs[1] else NOTHING
            name = groups["fa-cresnet", codec].codec_name
            lines.append([name, setting_title(other), f"{ours:+.1f}", said])
    if not lines:
        return []
    table = markdown(["codec", "less", "points", "paper's"], lines, left=("codec", "less"))
    return ["\nFA-cResNet's top-1 less that of another, points:\n\n", table]
