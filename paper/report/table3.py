"""Table 3: what each part of FA-cResNet is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentset.datasets.storage.atomic import write_atomically
from latentset.paper import published
from latentset.paper.experiments import TITLES, Experiment, data_sets, standard
from latentset.paper.report.captions import data_set_title, describe_runs, sort_codecs
from latentset.paper.report.output import Part, markdown, number, write_csv
from latentset.paper.report.runs import NO_RUNS, Group, Groups, cell
from latentset.paper.table3_settings import SETTINGS, Setting

DEFAULT = "fa-cresnet"
"""The setting whose runs stand for all defaults."""

COLUMNS = ("data_set", "group", "setting", "title", "default", "codec", "split", "samples",
           "parameters", "seeds", "top1", "top1_spread", "paper_top1")  # fmt: skip
"""Of table3.csv."""


@dataclass(frozen=True)
class Ablation:
    """A cell of Table 3: a setting at a codec."""

    default: bool
    """Whether it is FA-cResNet as it is."""
    group: Group | None
    """Its runs, or the default's, where there are some."""
    papers: float | None
    """The paper's top-1, percent."""


def write_table3(groups_of: Mapping[str, Groups], folder: Path) -> Part:
    """Write table3.csv and table3.md, from groups by data set."""
    names = {setting.name for setting in SETTINGS}
    rows: list[dict[str, Any]] = []
    text = "# Table 3: what each part is worth\n"
    for data_set, groups in groups_of.items():
        own = {key: group for key, group in groups.items() if key[0] in names}
        codecs = sort_codecs(codec for _, codec in own)
        if not own:
            continue
        beside = {
            (setting, codec): groups[setting, codec]
            for setting in ("anchor2", DEFAULT)
            for codec in codecs
            if (setting, codec) in groups
        }
        found = own | beside
        ablations = {s: [_find(data_set, s, codec, found) for codec in codecs] for s in SETTINGS}
        rows += _rows(data_set, codecs, ablations)
        text += f"\n## {data_set_title(data_set)}\n\n"
        lines = describe_runs(data_set, [*beside.values(), *own.values()])
        text += "".join(f"{line}\n" for line in lines)
        text += "\\* the default: FA-cResNet as it is in Table 1.\n\n"
        text += _table(codecs, found, ablations)
        missing = [s for s, cells in ablations.items() if not any(c.group for c in cells)]
        if missing:
            titles = ", ".join(f"{setting.group}: {setting.title}" for setting in missing)
            text += f"\nLeft out, because no run was given: {titles}.\n"
    if not rows:
        return Part(remark="no runs of Table 3's recipes" if groups_of else NO_RUNS)
    write_csv(folder / "table3.csv", COLUMNS, rows)
    write_atomically(folder / "table3.md", text)
    return Part(("table3.md", "table3.csv"))


def _find(data_set: str, setting: Setting, codec: str, groups: Groups) -> Ablation:
    name = data_set if data_set in data_sets() else published.DATA_SET
    default = standard(Experiment(name, setting.name, codec)).setting == DEFAULT
    group = groups.get((DEFAULT if default else setting.name, codec))
    papers = published.TABLE3_DEFAULT if default else published.TABLE3.get(setting.name)
    if papers is None or codec not in published.CODECS:
        return Ablation(default, group, None)
    return Ablation(default, group, papers[published.CODECS.index(codec)])


Ablations = Mapping[Setting, Sequence[Ablation]]
"""Of every setting, in the paper's order: a cell a codec."""


def _rows(data_set: str, codecs: Sequence[str], ablations: Ablations) -> list[dict[str, Any]]:
    return [
        {
            "data_set": data_set,
            "group": setting.group,
            "setting": setting.name,
            "title": setting.title,
            "default": one.default,
            "codec": codec,
            "split": one.group.first.split,
            "samples": one.group.first.samples,
            "parameters": one.group.first.result["parameters"],
            "seeds": len(one.group.runs),
            "top1": one.group.top1,
            "top1_spread": one.group.top1_spread,
            "paper_top1": one.papers,
        }
        for setting, cells in ablations.items()
        for codec, one in zip(codecs, cells, strict=True)
        if one.group
    ]


def _table(codecs: Sequence[str], groups: Groups, ablations: Ablations) -> str:
    titles = ["experiment", "setting"]
    rows = [["", TITLES["anchor2"]]]
    for codec in codecs:
        titles += [next(g for key, g in groups.items() if key[1] == codec).codec_name, "paper's"]
        anchor2 = groups.get(("anchor2", codec))
        rows[0] += [cell(anchor2), number(published.top1("anchor2", codec), 1)]
    last = ""
    for setting, cells in ablations.items():
        if not any(one.group for one in cells):
            continue
        default = all(one.default for one in cells)
        row = ["" if setting.group == last else setting.group, setting.title + " *" * default]
        for one in cells:
            mark = " *" if one.default and not default else ""
            row += [cell(one.group) + mark, number(one.papers, 1)]
        rows.append(row)
        last = setting.group
    return markdown(titles, rows, left=("experiment", "setting"))
