"""Figure 6: accuracy against bits per pixel, top-1 and top-5."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentset.paper import published as paper
from latentset.paper.experiments import TITLES
from latentset.paper.report.captions import (
    PAPER,
    codec_order,
    data_set_title,
    describe_rates,
    join_captions,
    repeats_table1,
    setting_title,
)
from latentset.paper.report.groups import NO_RUNS, Group, Key
from latentset.paper.report.pictures import COLOURS, MARKS, new_figure, save_svg, write_caption
from latentset.paper.report.stores import Stores
from latentset.paper.report.tables import Part, write_csv


def write_figure6(
    data_sets: Mapping[str, Mapping[Key, Group]], stores: Stores, folder: Path
) -> Part:
    """Write figure6.csv, and figure6-DATA_SET.svg for each data set.

    Args:
        data_sets: Groups of runs by data set.
        stores: For bits per pixel.
        folder: Where to.

    Returns:
        What was written.
    """
    rows = [
        row
        for name, groups in data_sets.items()
        for key, group in groups.items()
        if key[0] in TITLES and (not key[1] or key[1].startswith("msssim"))
        for row in [_row(name, key, group, stores)]
        if row["rate_bpp"] is not None
    ]
    if not rows:
        return Part(remark="no runs of known rate" if data_sets else NO_RUNS)
    write_csv(folder / "figure6.csv", rows)
    names = list(dict.fromkeys(row["data_set"] for row in rows))
    captions: dict[str, str] = {}
    for name in names:
        own = [row for row in rows if row["data_set"] == name]
        figure = new_figure(11, 4)
        panels = figure.subplots(1, 2)
        for axes, column in zip(panels, ("top1", "top5"), strict=True):
            _draw(axes, name, own, column)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize="small")
        figure.suptitle(data_set_title(name))
        shown = {key: data_sets[name][key] for key in data_sets[name] if key in _keys(own)}
        captions[name] = describe_rates(shown, stores)
        write_caption(figure, captions[name])
        save_svg(figure, folder / f"figure6-{name}.svg")
    files = (*(f"figure6-{name}.svg" for name in names), "figure6.csv")
    return Part(files, caption=join_captions(captions))


def _keys(rows: list[dict[str, Any]]) -> set[Key]:
    return {(row["setting"], row["codec"]) for row in rows}


def _row(data_set: str, key: Key, group: Group, stores: Stores) -> dict[str, Any]:
    setting, codec = key
    return {
        "data_set": data_set,
        "setting": setting,
        "codec": codec,
        "rate_bpp": stores.rate_bpp(group)[0],
        "seeds": len(group.runs),
        "top1": group.top1,
        "top1_spread": group.top1_spread,
        "top5": group.top5,
    }


def _draw(axes: Any, data_set: str, rows: list[dict[str, Any]], column: str) -> None:
    for setting in TITLES:
        own = [r for r in rows if r["setting"] == setting and r[column] is not None]
        own.sort(key=lambda row: codec_order(row["codec"]))
        if own:
            axes.errorbar(
                [row["rate_bpp"] for row in own],
                [row[column] for row in own],
                yerr=[row["top1_spread"] or 0 for row in own] if column == "top1" else None,
                marker=MARKS[setting],
                color=COLOURS[setting],
                capsize=3,
                linestyle="-" if setting != "anchor1" else "none",
                label=setting_title(setting),
            )
    if column == "top1" and repeats_table1(data_set):
        draw_paper(axes)
    axes.set_xlabel("bits per pixel (mean)")
    axes.set_ylabel(f"top-{column[3:]} accuracy, %")
    axes.grid(visible=True, alpha=0.3)


def draw_paper(axes: Any) -> None:
    """Draw the points of the paper's Table 1, hollow and dotted.

    Args:
        axes: Of a picture of top-1 against bits per pixel.
    """
    rates = list(paper.BPP.values())
    points: dict[str, tuple[list[float], tuple[float, ...]]] = {
        "anchor1": ([paper.ORIGINAL_BPP], (paper.ANCHOR1,))
    }
    points |= {setting: (rates, row) for setting, row in paper.TABLE1.items()}
    for setting, (at, top1) in points.items():
        axes.plot(
            at,
            top1,
            marker=MARKS[setting],
            color=COLOURS[setting],
            linestyle=":",
            fillstyle="none",
            label=f"{setting_title(setting)}, paper ({PAPER})",
        )
