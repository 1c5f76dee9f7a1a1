"""Table 3: what each part of FA-cResNet is worth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentset.paper import published as paper
from latentset.paper.experiments import TITLES, Experiment, data_sets, standard
from latentset.paper.report.captions import (
    codec_order,
    data_set_title,
    describe_runs,
)
from latentset.paper.report.groups import NO_RUNS, Group, Key
from latentset.paper.report.tables import NOTHING, Part, markdown, number, write_csv
from latentset.paper.table3_settings import SETTINGS, Setting
from latentset.train.run.run_files import write_text

DEFAULT = "fa-cresnet"
"""The setting whose runs stand for all defaults."""


def write_table3(data_sets: Mapping[str, Mapping[Key, Group]], folder: Path) -> Part:
    """Write table3.csv and table3.md.

    Args:
        data_sets: Groups of runs by data set.
        folder: Where to.

    Returns:
        What was written.
    """
    known = {setting.name for setting in SETTINGS}
    rows: list[dict[str, Any]] = []
    text = ["# Table 3: what each part is worth\n"]
    for name, groups in data_sets.items():
        own = {key: group for key, group in groups.items() if key[0] in known}
        codecs = sorted({codec for _, codec in own}, key=codec_order)
        if not own:
            continue
        beside = {
            (setting, codec): groups[setting, codec]
            for setting in ("anchor2", DEFAULT)
            for codec in codecs
            if (setting, codec) in groups
        }
        rows += [row for s in SETTINGS for c in codecs for row in _rows(name, s, c, own | beside)]
        text.append(f"\n## {data_set_title(name)}\n\n")
        text += [f"{line}\n" for line in describe_runs(name, [*beside.values(), *own.values()])]
        text.append("\\* the default: FA-cResNet as it is in Table 1.\n\n")
        text.append(_table(name, codecs, own | beside))
        left_out = [s for s in SETTINGS if not any(_find(name, s, c, own | beside) for c in codecs)]
        if left_out:
            said = ", ".join(f"{setting.group}: {setting.title}" for setting in left_out)
            text.append(f"\nLeft out, because no run was given: {said}.\n")
    if not rows:
        return Part(remark="no runs of Table 3's recipes" if data_sets else NO_RUNS)
    write_csv(folder / "table3.csv", rows)
    write_text(folder / "table3.md", "".join(text))
    return Part(("table3.md", "table3.csv"))


def _find(data_set: str, setting: Setting, codec: str, groups: Mapping[Key, Group]) -> Group | None:
    """The runs of a setting: its own, or the default's."""
    if _is_default(data_set, setting, codec):
        return groups.get((DEFAULT, codec))
    return groups.get((setting.name, codec))


def _is_default(data_set: str, setting: Setting, codec: str) -> bool:
    name = data_set if data_set in data_sets() else paper.DATA_SET
    return standard(Experiment(name, setting.name, codec)).setting == DEFAULT


def _paper(data_set: str, setting: Setting, codec: str) -> float | None:
    if codec not in paper.CODECS:
        return None
    row = (
        paper.TABLE3_DEFAULT
        if _is_default(data_set, setting, codec)
        else paper.TABLE3.get(setting.name)
    )
    return row[paper.CODECS.index(codec)] if row else None


def _rows(
    data_set: str, setting: Setting, codec: str, groups: Mapping[Key, Group]
) -> list[dict[str, Any]]:
    group = _find(data_set, setting, codec, groups)
    if group is None:
        return []
    return [
        {
            "data_set": data_set,
            "group": setting.group,
            "setting": setting.name,
            "title": setting.title,
            "default": _is_default(data_set, setting, codec),
            "codec": codec,
            "split": group.first.split,
            "samples": group.first.samples,
            "parameters": group.first.result["parameters"],
            "seeds": len(group.runs),
            "top1": group.top1,
            "top1_spread": group.top1_spread,
            "paper_top1": _paper(data_set, setting, codec),
        }
    ]


def _table(data_set: str, codecs: list[str], groups: Mapping[Key, Group]) -> str:
    titles = ["experiment", "setting"]
    for codec in codecs:
        titles += [next(g for key, g in groups.items() if key[1] == codec).codec_name, "paper's"]
    rows = [["", TITLES["anchor2"]]]
    for codec in codecs:
        anchor2 = groups.get(("anchor2", codec))
        rows[0] += [_cell(anchor2), number(paper.top1("anchor2", codec), 1)]
    last = ""
    for setting in SETTINGS:
        found = [_find(data_set, setting, codec, groups) for codec in codecs]
        if not any(found):
            continue
        default = {_is_default(data_set, setting, codec) for codec in codecs}
        star = " *" if default == {True} else ""
        cells = ["" if setting.group == last else setting.group, f"{setting.title}{star}"]
        for codec, group in zip(codecs, found, strict=True):
            mark = " *" if len(default) > 1 and _is_default(data_set, setting, codec) else ""
            cells += [_cell(group) + mark, number(_paper(data_set, setting, codec), 1)]
        rows.append(cells)
        last = setting.group
    return markdown(titles, rows, left=("experiment", "setting"))


def _cell(group: Group | None) -> str:
    return f"{group.cell} ({len(group.runs)})" if group else NOTHING
