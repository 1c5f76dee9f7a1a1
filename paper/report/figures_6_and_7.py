"""Figures 6 and 7: accuracy against bits per pixel, PSNR and MS-SSIM of the codecs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from latentset.paper import published
from latentset.paper.experiments import TITLES
from latentset.paper.report.captions import (
    PAPER,
    codec_order,
    data_set_title,
    repeats_table1,
    setting_title,
)
from latentset.paper.report.output import (
    BARS,
    COLOURS,
    MARKS,
    Part,
    error_bar,
    new_figure,
    save_picture,
    write_csv,
)
from latentset.paper.report.runs import NO_RUNS, Groups
from latentset.paper.report.stores import Stores

COLUMNS_6 = ("data_set", "setting", "codec", "rate_bpp", "seeds", "top1", "top1_interval", "top5")
COLUMNS_7 = ("data_set", "setting", "codec", "rate_bpp", "psnr_db", "ms_ssim", "seeds", "top1",
             "top1_interval")  # fmt: skip
"""Of figure6.csv and figure7.csv."""

AXES_7 = {
    "rate_bpp": "bits per pixel (mean)",
    "psnr_db": "PSNR of the decoded images, dB (mean)",
    "ms_ssim": "MS-SSIM of the decoded images (mean)",
}
"""Columns that Figure 7 is drawn against, and titles of their axes."""

LOSSES = {"msssim": ("-", "full", "HyperMS-SSIM"), "mse": ("--", "bottom", "HyperMSE")}
"""Line and filling of the marks of each loss of the codecs, and its name in the paper."""

Row = Mapping[str, Any]
"""As ``Stores.rows`` has them."""


def write_figure6(data_sets: Mapping[str, Groups], stores: Stores, folder: Path) -> Part:
    """Write figure6.csv, and figure6-DATA_SET.svg each: top-1 and top-5 against rate."""
    rows = [
        row
        for row in stores.rows(data_sets)
        if row["setting"] in TITLES
        and (not row["codec"] or row["codec"].startswith("msssim"))
        and row["rate_bpp"] is not None
    ]
    if not rows:
        return Part(remark="no runs of known rate" if data_sets else NO_RUNS)
    write_csv(folder / "figure6.csv", rows, COLUMNS_6)

    def draw(rows: Sequence[Row]) -> Any:
        figure = new_figure(11, 4)
        for axes, column in zip(figure.subplots(1, 2), ("top1", "top5"), strict=True):
            _draw_rates(axes, rows, column)
        return figure

    return _write_pictures(folder / "figure6", rows, draw, data_sets, stores)


def write_figure7(data_sets: Mapping[str, Groups], stores: Stores, folder: Path) -> Part:
    """Write figure7.csv, and figure7-DATA_SET.svg each: top-1 against rate, PSNR and MS-SSIM."""
    rows = [row for row in stores.rows(data_sets) if row["setting"] in TITLES]
    coded = [row for row in rows if row["codec"] and row["psnr_db"] is not None]
    if not coded:
        why = (
            "no runs together with the decoded images of their codec (--pixels STORE), "
            "measured against the originals"
        )
        return Part(remark=why if data_sets else NO_RUNS)
    originals = [row for row in rows if not row["codec"]]
    write_csv(folder / "figure7.csv", [*coded, *originals], COLUMNS_7)
    names = {row["data_set"] for row in coded}
    shown = [*coded, *(row for row in originals if row["data_set"] in names)]

    def draw(rows: Sequence[Row]) -> Any:
        figure = new_figure(13, 4.2)
        panels = figure.subplots(1, 3, sharey=True)
        for axes, column in zip(panels, AXES_7, strict=True):
            draw_accuracies(axes, rows, column)
        panels[0].set_ylabel("top-1 accuracy, %")
        return figure

    losses = {row["codec"].partition("-")[0] for row in coded}
    missing = [title for loss, (*_, title) in LOSSES.items() if loss not in losses]
    remark = f"without runs of {' and '.join(missing)} codecs" if missing else ""
    return _write_pictures(folder / "figure7", shown, draw, data_sets, stores, remark)


def _write_pictures(
    path: Path,
    rows: Sequence[Row],
    draw: Callable[[Sequence[Row]], Any],
    data_sets: Mapping[str, Groups],
    stores: Stores,
    remark: str = "",
) -> Part:
    """Write PATH-DATA_SET.svg each, of the data set's rows, with legend, title and caption."""
    files, captions = [], []
    for name in dict.fromkeys(row["data_set"] for row in rows):
        own, title = [row for row in rows if row["data_set"] == name], data_set_title(name)
        figure = draw(own)
        if repeats_table1(name):
            draw_published(figure.axes[0])
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize="small")
        figure.suptitle(title)
        shown = {(row["setting"], row["codec"]) for row in own}
        groups = {key: group for key, group in data_sets[name].items() if key in shown}
        if rates := stores.describe_rates(groups):
            captions.append(f"{title}: {rates}")
        files.append(f"{path.name}-{name}.svg")
        save_picture(figure, path.with_name(files[-1]), f"{BARS} {rates}".rstrip())
    return Part((*files, f"{path.name}.csv"), remark, " ".join(captions))


def _draw_rates(axes: Any, rows: Sequence[Row], column: str) -> None:
    """Draw ``top1`` or ``top5`` against bits per pixel."""
    measured = [row for row in rows if row[column] is not None]
    for setting in TITLES:
        own = [row for row in measured if row["setting"] == setting]
        line = "none" if setting == "anchor1" else "-"
        label = setting_title(setting)
        _draw_curve(axes, own, "rate_bpp", column, linestyle=line, label=label)
    axes.set_xlabel("bits per pixel (mean)")
    axes.set_ylabel(f"top-{column[3:]} accuracy, %")
    axes.grid(visible=True, alpha=0.3)


def draw_accuracies(axes: Any, rows: Sequence[Row], column: str) -> None:
    """Draw top-1 against one column of :data:`AXES_7`, a curve a setting and loss."""
    for setting in TITLES:
        for loss, (line, filling, title) in LOSSES.items():
            own = [
                r for r in rows if (r["setting"], r["codec"].partition("-")[0]) == (setting, loss)
            ]
            label = f"{setting_title(setting)}, {title}"
            _draw_curve(axes, own, column, "top1", linestyle=line, fillstyle=filling, label=label)
    for row in rows:
        if row["setting"] == "anchor1":
            axes.axhline(
                row["top1"], color=COLOURS["anchor1"], linewidth=1, label=setting_title("anchor1")
            )
    axes.set_xlabel(AXES_7[column])
    axes.grid(visible=True, alpha=0.3)


def _draw_curve(axes: Any, rows: Sequence[Row], x: str, y: str, **style: Any) -> None:
    """Draw the rows of one setting, if any, with error bars of top-1."""
    if not rows:
        return
    rows = sorted(rows, key=lambda row: codec_order(row["codec"]))
    axes.errorbar(
        [row[x] for row in rows],
        [row[y] for row in rows],
        yerr=(
            [error_bar(row["top1"], row["top1_interval"], row["samples"]) for row in rows]
            if y == "top1"
            else None
        ),
        marker=MARKS[rows[0]["setting"]],
        color=COLOURS[rows[0]["setting"]],
        capsize=3,
        **style,
    )


def draw_published(axes: Any) -> None:
    """Draw the points of the paper's Table 1, top-1 against bits per pixel, hollow and dotted."""
    rates = list(published.BPP.values())
    points: dict[str, tuple[list[float], tuple[float, ...]]] = {
        "anchor1": ([published.ORIGINAL_BPP], (published.ANCHOR1,))
    }
    points |= {setting: (rates, row) for setting, row in published.TABLE1.items()}
    for setting, (x, top1) in points.items():
        axes.plot(
            x,
            top1,
            marker=MARKS[setting],
            color=COLOURS[setting],
            linestyle=":",
            fillstyle="none",
            label=f"{setting_title(setting)}, paper ({PAPER})",
        )
