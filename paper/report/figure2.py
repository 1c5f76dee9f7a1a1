"""Figure 2: in each channel of y_hat, the fraction of values that are not zero."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.store import Store
from latentset.paper.report.pictures import new_figure, save_svg
from latentset.paper.report.tables import Part, write_csv

BINS = 20
"""Bars of a histogram, over fractions from 0 to 1."""


def write_figure2(stores: Sequence[Store], folder: Path) -> Part:
    """Write figure2.csv and figure2.svg.

    Args:
        stores: Stores of latents.
        folder: Where to.

    Returns:
        What was written.
    """
    if not stores:
        return Part(remark="no stores of latents (--latents STORE)")
    fractions = [nonzero_fractions(store) for store in stores]
    names = [store.header.codec.name if store.header.codec else "" for store in stores]
    write_csv(
        folder / "figure2.csv",
        [
            {
                "source": store.header.source.name,
                "codec": name,
                "channel": channel,
                "nonzero": round(float(value), 6),
            }
            for store, name, values in zip(stores, names, fractions, strict=True)
            for channel, value in enumerate(values)
        ],
    )
    figure = new_figure(4 * len(stores), 3.2)
    panels = figure.subplots(1, len(stores), sharey=True, squeeze=False)[0]
    for axes, store, name, values in zip(panels, stores, names, fractions, strict=True):
        axes.hist(values, bins=np.linspace(0, 1, BINS + 1), color="#1f77b4", edgecolor="white")
        axes.set_title(f"{name}\n{store.header.source.name}, {len(values)} channels", fontsize=9)
        axes.set_xlabel("fraction of values that are not zero")
        axes.set_xlim(0, 1)
    panels[0].set_ylabel("channels")
    save_svg(figure, folder / "figure2.svg")
    return Part(("figure2.svg", "figure2.csv"))


def nonzero_fractions(store: Store) -> NDArray[np.float64]:
    """Count what is not zero in each channel of y_hat, over all samples.

    Args:
        store: A store of latents.

    Returns:
        (C,), fractions from 0 to 1.
    """
    array, shard_rows = store.array("y_hat"), store.header.layout.shard_rows
    nonzero = np.zeros(array.shape[1], np.int64)
    for first in range(0, array.shape[0], shard_rows):
        nonzero += np.count_nonzero(array[first : first + shard_rows], axis=0)
    # Rows between samples are zero: they add nothing above, and are not counted here. A sample that
    # failed has none.
    heights, widths = (store.samples[f"latent_{side}"].to_numpy() for side in ("height", "width"))
    return nonzero / max(1, int((heights.astype(np.int64) * widths).sum()))
