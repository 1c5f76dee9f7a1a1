"""Table 3: what each part of FA-cResNet is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentset.datasets.storage.atomic import write_atomically
from latentset.paper import published
from latentset.paper.experiments import TABLE3, TITLES, Experiment, data_sets, standard
from latentset.paper.report.captions import (
    data_set_title,
    describe_runs,
    papers_top1,
    repeats_table1,
    sort_codecs,
)
from latentset.paper.report.output import Part, markdown, number, write_csv
from latentset.paper.report.runs import NO_RUNS, Group, Groups, cell
from latentset.paper.table3_settings import SETTINGS, Setting

DEFAULT = "fa-cresnet"
"""The setting whose runs stand for all defaults."""


def write_table3(groups_of: Mapping[str, Groups], folder: Path) -> Part:
    """Write table3.csv and table3.md, from groups by data set."""
    rows: list[dict[str, Any]] = []
    text = "# Table 3: what each part is worth\n"
    for data_set, groups in groups_of.items():
        own = {key: group for key, group in groups.items() if key[0] in TABLE3}
        if not own:
            continue
        codecs = sort_codecs(codec for _, codec in own)
        beside = {
            (setting, codec): groups[setting, codec]
            for setting in ("anchor2", DEFAULT)
            for codec in codecs
            if (setting, codec) in groups
        }
        text += f"\n## {data_set_title(data_set)}\n\n"
        lines = describe_runs(data_set, [*beside.values(), *own.values()])
        text += "".join(f"{line}\n" for line in lines)
        text += "\\* the default: FA-cResNet as it is in Table 1.\n\n"
        text += _table(data_set, codecs, own | beside, rows)
    if not rows:
        return Part(remark="no runs of Table 3's recipes" if groups_of else NO_RUNS)
    write_csv(folder / "table3.csv", rows)
    write_atomically(folder / "table3.md", text)
    return Part(("table3.md", "table3.csv"))


def _table(data_set: str, codecs: Sequence[str], groups: Groups, rows: list[dict[str, Any]]) -> str:
    """The table of a data set; its cells that have runs are added to ``rows``."""
    titles = ["experiment", "setting"]
    lines = [["", TITLES["anchor2"]]]
    for codec in codecs:
        titles += [next(g for key, g in groups.items() if key[1] == codec).codec_name, "paper's"]
        anchor2 = groups.get(("anchor2", codec))
        lines[0] += [cell(anchor2), number(papers_top1(data_set, "anchor2", codec), 1)]
    last, missing = "", []
    known = data_set if data_set in data_sets() else published.DATA_SET
    found: dict[Setting, list[tuple[bool, Group | None]]] = {}
    for setting in SETTINGS:
        names = [standard(Experiment(known, setting.name, codec)).setting for codec in codecs]
        found[setting] = [
            (name == DEFAULT, _with(setting, groups.get((name, codec))))
            for name, codec in zip(names, codecs, strict=True)
        ]
        if not any(group for _, group in found[setting]):
            missing.append(f"{setting.group}: {setting.title}")
    # The default alone in its group says nothing.
    compared = {s.group for s, cells in found.items() if any(g and not d for d, g in cells)}
    for setting, cells in found.items():
        if setting.group not in compared or not any(group for _, group in cells):
            continue
        always = all(default for default, _ in cells)
        line = ["" if setting.group == last else setting.group, setting.title + " *" * always]
        for codec, (default, group) in zip(codecs, cells, strict=True):
            papers = None
            if repeats_table1(data_set):
                papers = published.table3_top1(setting.name, codec, default=default)
            line += [cell(group) + (" *" if default and not always else ""), number(papers, 1)]
            if group:
                rows.append(
                    {
                        "data_set": data_set,
                        "group": setting.group,
                        "setting": setting.name,
                        "title": setting.title,
                        "default": default,
                        "codec": codec,
                        **group.columns(),
                        "paper_top1": papers,
                    }
                )
        lines.append(line)
        last = setting.group
    left_out = f"\nLeft out, because no run was given: {', '.join(missing)}.\n" if missing else ""
    return markdown(titles, lines, left=("experiment", "setting")) + left_out


def _with(setting: Setting, group: Group | None) -> Group | None:
    """The group if its networks have the setting; a recipe may change what is a default here."""
    recipe = group.first.recipe if group else None
    own = dict(recipe.model) if recipe else {}
    return (
        group if all(own.get(key, value) == value for key, value in setting.model.items()) else None
    )
