"""Figures of a store's card, as PNG: its rates, its classes, how busy its channels are."""

import io
import warnings
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from latentset.datasets.store.samples import OK
from latentset.datasets.store.statistics import ChannelStatistics
from latentset.datasets.store.store import Store
from latentset.sharing.markdown import clean

RATE, CLASSES, CHANNELS = "figures/rate.png", "figures/classes.png", "figures/channels.png"

FIGURES = {
    RATE: "Bits per pixel of the samples",
    CLASSES: "Samples of each class and split",
    CHANNELS: "Share of values of each channel of y_hat that are not zero (the paper's Figure 2)",
}
"""What each figure shows."""

_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd")

_NAMED_CLASSES = 40
"""Up to so many classes are bars with names; more are a curve."""

_BINS = 40

_MAX_RATE_BPP = 1e6
"""Higher rates are not drawn: nobody's image has them."""

_CHANNEL_BINS = 20
"""As in the paper's Figure 2."""


def draw_figures(
    store: Store, counts: dict[str, NDArray[np.int64]], y_hat: ChannelStatistics | None
) -> dict[str, bytes]:
    """Draw the figures that a store has numbers for.

    Args:
        store: A complete store.
        counts: For each split, the samples of each class.
        y_hat: Of its channels; None of a store of pixels.

    Returns:
        PNG for each path in the card's folder, of FIGURES; the same bytes each time.
    """
    import matplotlib.style

    figures: dict[str, bytes] = {}
    with matplotlib.style.context("default"):  # whatever the user's matplotlibrc says
        rates = store.samples.filter(pc.equal(store.samples["status"], OK))["rate_bpp"]
        values = rates.drop_null().to_numpy()
        values = values[(values >= 0) & (values < _MAX_RATE_BPP)]
        if values.size:
            figures[RATE] = _draw_rates(values)
        if counts and next(iter(counts.values())).size:
            figures[CLASSES] = _draw_classes(store, counts)
        if y_hat is not None and y_hat.count:
            figures[CHANNELS] = _draw_channels(1 - y_hat.zeros)
    return figures


def _draw_rates(values: NDArray[np.float64]) -> bytes:
    figure, axes = _new(6, 3)
    low, high = values.min(), values.max()
    if high - low < 1e-6:  # one bar in the middle
        low, high = max(0, low - 0.5), high + 0.5
    axes.hist(
        values,
        bins=np.linspace(low, high, _BINS + 1),
        color=_COLOURS[0],
        edgecolor="white",
        linewidth=0.5,
    )
    axes.axvline(values.mean(), color="black", linewidth=1, linestyle="--")
    axes.set_title(f"mean {values.mean():.4f} (dashed)", fontsize=9)
    axes.set_xlabel("bits per pixel")
    _count_on(axes.yaxis, "samples")
    return _png(figure)


def _draw_classes(store: Store, counts: dict[str, NDArray[np.int64]]) -> bytes:
    names = store.header.source.classes
    if len(names) > _NAMED_CLASSES:
        return _draw_many_classes(counts)
    figure, axes = _new(6, 0.9 + 0.22 * len(names))
    left = np.zeros(len(names), np.int64)
    for colour, (split, values) in zip(_cycle(len(counts)), counts.items(), strict=True):
        axes.barh(
            range(len(names)), values, left=left, color=colour, label=_label(split) or "no split"
        )
        left = left + values
    axes.set_yticks(range(len(names)))
    axes.set_yticklabels([_label(name) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first class at the top
    _count_on(axes.xaxis, "samples")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return _png(figure)


def _draw_many_classes(counts: dict[str, NDArray[np.int64]]) -> bytes:
    figure, axes = _new(6, 3)
    for colour, (split, values) in zip(_cycle(len(counts)), counts.items(), strict=True):
        ordered = np.sort(values)[::-1]
        axes.plot(
            np.arange(1, len(ordered) + 1), ordered, color=colour, label=_label(split) or "no split"
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("classes, the largest of each split first")
    _count_on(axes.yaxis, "samples")
    axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def _draw_channels(nonzero: NDArray[np.float64]) -> bytes:
    figure, axes = _new(6, 3)
    bins = np.linspace(0, 1, _CHANNEL_BINS + 1)
    axes.hist(nonzero, bins=bins, color=_COLOURS[0], edgecolor="white", linewidth=0.5)
    axes.set_title(f"{len(nonzero)} channels of ŷ", fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_xlabel("fraction of values that are not zero")
    _count_on(axes.yaxis, "channels")
    return _png(figure)


def _label(name: str) -> str:
    """A name without formulas, which matplotlib sees between dollars."""
    return clean(name, 30).replace("$", r"\$")


def _cycle(count: int) -> list[str]:
    return [_COLOURS[k % len(_COLOURS)] for k in range(count)]


def _new(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _count_on(axis: Any, what: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_label_text(what)
    axis.set_major_locator(MaxNLocator(integer=True))


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        # A script that the font lacks becomes boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
