"""Figures: made without a display, and the same bytes each time."""

import textwrap
from pathlib import Path
from typing import Any

MARKS = {"anchor1": "s", "anchor2": "D", "cresnet": "^", "fa-cresnet": "o"}
"""Mark of each setting."""

COLOURS = {
    "anchor1": "#777777",
    "anchor2": "#1f77b4",
    "cresnet": "#ff7f0e",
    "fa-cresnet": "#d62728",
}
"""Colour of each setting."""


def new_figure(width: float, height: float) -> Any:
    """Make an empty figure.

    Args:
        width: Inches.
        height: Inches.

    Returns:
        A matplotlib figure of 150 dots an inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_caption(figure: Any, caption: str) -> None:
    """Write what must be known to read a figure below it.

    Args:
        figure: The figure.
        caption: Text; nothing is written where it is empty.
    """
    if caption:
        width = int(figure.get_figwidth() * 20)
        figure.supxlabel(textwrap.fill(caption, width), fontsize=7)


def save_svg(figure: Any, path: Path) -> None:
    """Write a figure as SVG, without date and random names.

    Args:
        figure: The figure.
        path: The file.
    """
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "latentset"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def save_png(figure: Any, path: Path) -> None:
    """Write a figure as PNG.

    Args:
        figure: The figure.
        path: The file.
    """
    figure.savefig(path, format="png")
