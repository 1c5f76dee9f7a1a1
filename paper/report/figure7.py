"""Figure 7: accuracy against bits per pixel, PSNR and MS-SSIM, for both losses of the codecs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentset.paper.experiments import TITLES
from latentset.paper.report.captions import (
    codec_order,
    data_set_title,
    describe_rates,
    join_captions,
    repeats_table1,
    setting_title,
)
from latentset.paper.report.figure6 import draw_paper
from latentset.paper.report.groups import NO_RUNS, Group, Key
from latentset.paper.report.pictures import COLOURS, MARKS, new_figure, save_svg, write_caption
from latentset.paper.report.stores import Stores
from latentset.paper.report.tables import Part, write_csv

AXES = {
    "rate_bpp": "bits per pixel (mean)",
    "psnr_db": "PSNR of the decoded images, dB (mean)",
    "ms_ssim": "MS-SSIM of the decoded images (mean)",
}
"""Columns of figure7.csv, and what their axes are called."""

LOSSES = {"msssim": ("-", "full", "HyperMS-SSIM"), "mse": ("--", "bottom", "HyperMSE")}
"""Line and filling of the marks of each loss, and its name in the paper."""


def write_figure7(
    data_sets: Mapping[str, Mapping[Key, Group]], stores: Stores, folder: Path
) -> Part:
    """Write figure7.csv, and figure7-DATA_SET.svg for each data set.

    Args:
        data_sets: Groups of runs by data set.
        stores: For bits per pixel, PSNR and MS-SSIM.
        folder: Where to.

    Returns:
        What was written.
    """
    rows = [
        _row(name, key, group, stores)
        for name, groups in data_sets.items()
        for key, group in groups.items()
        if key[0] in TITLES
    ]
    rows = [row for row in rows if row["codec"] and row["psnr_db"] is not None] + [
        row for row in rows if not row["codec"]
    ]
    if not any(row["codec"] for row in rows):
        why = (
            "no runs together with the decoded images of their codec (--pixels STORE), "
            "measured against the originals"
        )
        return Part(remark=why if data_sets else NO_RUNS)
    write_csv(folder / "figure7.csv", rows)
    names = list(dict.fromkeys(row["data_set"] for row in rows if row["codec"]))
    captions: dict[str, str] = {}
    for name in names:
        own = [row for row in rows if row["data_set"] == name]
        figure = new_figure(13, 4.2)
        panels = figure.subplots(1, 3, sharey=True)
        for axes, column in zip(panels, AXES, strict=True):
            draw_accuracies(axes, own, column)
        if repeats_table1(name):
            draw_paper(panels[0])
        panels[0].set_ylabel("top-1 accuracy, %")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize="small")
        figure.suptitle(data_set_title(name))
        shown = {key: data_sets[name][key] for key in data_sets[name] if key in _keys(own)}
        captions[name] = describe_rates(shown, stores)
        write_caption(figure, captions[name])
        save_svg(figure, folder / f"figure7-{name}.svg")
    losses = {row["codec"].partition("-")[0] for row in rows if row["codec"]}
    missing = [said for loss, (*_, said) in LOSSES.items() if loss not in losses]
    remark = f"without runs of {' and '.join(missing)} codecs" if missing else ""
    files = (*(f"figure7-{name}.svg" for name in names), "figure7.csv")
    return Part(files, remark, join_captions(captions))


def _keys(rows: list[dict[str, Any]]) -> set[Key]:
    return {(row["setting"], row["codec"]) for row in rows}


def _row(data_set: str, key: Key, group: Group, stores: Stores) -> dict[str, Any]:
    setting, codec = key
    psnr_db, ms_ssim = stores.quality(group)
    return {
        "data_set": data_set,
        "setting": setting,
        "codec": codec,
        "rate_bpp": stores.rate_bpp(group)[0],
        "psnr_db": psnr_db,
        "ms_ssim": ms_ssim,
        "seeds": len(group.runs),
        "top1": group.top1,
        "top1_spread": group.top1_spread,
    }


def draw_accuracies(axes: Any, rows: list[dict[str, Any]], column: str) -> None:
    """Draw accuracies against one column.

    Args:
        axes: Where to.
        rows: Rows of figure7.csv.
        column: One of :data:`AXES`.
    """
    for setting in TITLES:
        for loss, (line, filling, name) in LOSSES.items():
            own = [
                row
                for row in rows
                if row["setting"] == setting and row["codec"].partition("-")[0] == loss
            ]
            own.sort(key=lambda row: codec_order(row["codec"]))
            if own:
                axes.errorbar(
                    [row[column] for row in own],
                    [row["top1"] for row in own],
                    yerr=[row["top1_spread"] or 0 for row in own],
                    marker=MARKS[setting],
                    color=COLOURS[setting],
                    linestyle=line,
                    fillstyle=filling,
                    capsize=3,
                    label=f"{setting_title(setting)}, {name}",
                )
    for row in rows:
        if row["setting"] == "anchor1":
            axes.axhline(
                row["top1"], color=COLOURS["anchor1"], linewidth=1, label=setting_title("anchor1")
            )
    axes.set_xlabel(AXES[column])
    axes.grid(visible=True, alpha=0.3)
