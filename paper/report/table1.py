"""Table 1: Anchor 1, Anchor 2, cResNet and FA-cResNet at each codec."""

from collections.abc import Mapping
from pathlib import Path

from latentset.datasets.storage.atomic import write_atomically
from latentset.paper.experiments import SCRATCH_TITLES, TITLES
from latentset.paper.report.captions import (
    data_set_title,
    describe_runs,
    papers_bpp,
    papers_top1,
    setting_title,
    sort_codecs,
)
from latentset.paper.report.output import NOTHING, Part, markdown, number, write_csv
from latentset.paper.report.runs import DISTILLED, NO_RUNS, Groups, cell
from latentset.paper.report.stores import Stores

SETTINGS = ("anchor2", "cresnet", "fa-cresnet")
"""Columns beside Anchor 1's."""

FURTHER = (*SCRATCH_TITLES, *(f"{setting}{DISTILLED}" for setting in SETTINGS))
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
        text += "\n" + _table(name, groups, stores)
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
