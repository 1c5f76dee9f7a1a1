"""What the figures show: the points, bars and pictures that are drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentset.datasets.store import open_store
from latentset.paper.report import figures_2_and_5, figures_6_and_7, results
from latentset.paper.report.page import write_report
from latentset.paper.report.runs import find_runs
from tests.makers import stores as made_stores
from tests.makers.runs import write_run

RATES = {"1": 0.5, "4": 1.0, "8": 2.0}
"""Bits per pixel by quality."""

SETTINGS = {"anchor2": 0.6, "cresnet": 0.7, "fa-cresnet": 0.75}
"""Top-1 at quality 1; it is 0.01 and 0.02 more at the next ones."""

Drawn = dict[str, Any]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """The figures of a report, by the names of their files."""
    folder = tmp_path_factory.mktemp("made")
    latents, pixels = [], []
    for quality in ("8", "1", "4"):  # in no order
        codec = f"demo-hyperprior-msssim-{quality}"
        latents.append(
            made_stores.write_latents(folder / f"l{quality}", codec, rate_bpp=RATES[quality])
        )
        pixels.append(made_stores.write_pixels(folder / f"d{quality}", latents[-1], decoded=True))
        for setting, top1 in SETTINGS.items():
            store = open_store(pixels[-1] if setting == "anchor2" else latents[-1])
            for seed, more in enumerate((0.03, -0.03)):
                write_run(
                    folder / f"runs-{quality}",
                    f"trashnet/{setting}-msssim-{quality}",
                    top1 + 0.01 * list(RATES).index(quality) + more,
                    seed=seed,
                    store=store.fingerprint,
                    rate_bpp=RATES[quality],
                )
    originals = made_stores.write_pixels(folder / "o", latents[0], decoded=False)
    store = open_store(originals)
    write_run(folder / "runs-8", "trashnet/anchor1", 0.8, store=store.fingerprint, rate_bpp=3.0)
    figures: Drawn = {}

    def keep(figure: Any, path: Path, caption: str = "") -> None:
        figures[path.name] = figure

    with pytest.MonkeyPatch.context() as patch:
        for module in (figures_2_and_5, figures_6_and_7, results):
            patch.setattr(module, "save_picture", keep)
        write_report(
            [folder / f"runs-{quality}" for quality in ("8", "1", "4")],
            folder / "report",
            latents=[str(path) for path in latents],
            pixels=[str(path) for path in (*pixels, originals)],
            timing=False,
        )
    return figures


def points(axes: Any) -> dict[str, tuple[list[float], ...]]:
    """x and y of every curve of ours, by its label."""
    return {
        container.get_label(): tuple(
            [round(float(value), 6) for value in values] for values in container.lines[0].get_data()
        )
        for container in axes.containers
    }


def halves(axes: Any, label: str) -> list[float]:
    """Half the length of each error bar of a curve."""
    (container,) = (one for one in axes.containers if one.get_label() == label)
    (bars,) = container.lines[2]
    return [float(np.round((y1 - y0) / 2, 6)) for (_, y0), (_, y1) in bars.get_segments()]


HALF = round(100 * 0.03 * 12.7062047362, 6)
"""Half of the 95 % interval of two seeds, points: 3 * sqrt(2) / sqrt(2) * 12.7062."""


def test_figure_2_counts_channels(drawn: Drawn) -> None:
    panels = drawn["figure2.svg"].axes
    assert [axes.get_title().partition("\n")[0] for axes in panels] == [
        f"demo-hyperprior-msssim-{quality}" for quality in ("8", "1", "4")
    ]
    for axes in panels:
        bars = {round(bar.get_x(), 6): bar.get_height() for bar in axes.patches}
        assert len(bars) == 20
        assert {x: height for x, height in bars.items() if height} == {0: 1, 0.95: 3}


def test_figure_5_shows_each_codecs_own(drawn: Drawn) -> None:
    figure = drawn["figure5.svg"]
    pictures = [[axes.images[0].get_array() for axes in figure.axes if axes.images]]
    original, *coded = (np.asarray(picture) for picture in pictures[0])
    assert original[0, 0, 0] == 7
    assert len(coded) == 3 * 7
    for k, rate in enumerate(sorted(RATES.values())):
        decoded, *latents = coded[7 * k : 7 * k + 7]
        assert decoded[0, 0, 0] == 10 * rate
        # dark/06 has label 0: y_hat is 1 where it is not 0, scales are number 2.
        for y_hat in latents[:3]:
            np.testing.assert_array_equal(y_hat, np.ones((3, 3)))
        for sigma_hat in latents[3:]:
            np.testing.assert_allclose(sigma_hat, np.full((3, 3), 0.44), rtol=1e-6)
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles[:5] == [
        "original\n3.000 bpp",
        "demo-hyperprior-msssim-1\n0.5000 bpp, MS-SSIM 0.9000",
        *(f"ŷ, channel {k}" for k in (0, 2, 3)),
    ]


def test_figure_6_has_a_curve_a_setting(drawn: Drawn) -> None:
    top1, top5 = drawn["figure6-trashnet.svg"].axes
    rates = list(RATES.values())
    assert points(top1) == {
        "Anchor 1": ([3.0], [80.0]),
        "Anchor 2": (rates, [60.0, 61.0, 62.0]),
        "cResNet": (rates, [70.0, 71.0, 72.0]),
        "FA-cResNet": (rates, [75.0, 76.0, 77.0]),
    }
    assert halves(top1, "cResNet") == [HALF] * 3
    assert points(top5)["cResNet"] == (rates, [96.0] * 3)
    assert [axes.get_ylabel() for axes in (top1, top5)] == [
        "top-1 accuracy, %",
        "top-5 accuracy, %",
    ]


def test_figure_7_has_an_axis_a_measure(drawn: Drawn) -> None:
    panels = drawn["figure7-trashnet.svg"].axes
    expected = {
        "bits per pixel": list(RATES.values()),
        "PSNR": [30.0] * 3,
        "MS-SSIM": [0.9] * 3,
    }
    for axes, (named, x) in zip(panels, expected.items(), strict=True):
        assert axes.get_xlabel().startswith(named)
        found = points(axes)
        assert found["FA-cResNet, HyperMS-SSIM"] == (x, [75.0, 76.0, 77.0])
        assert found["Anchor 2, HyperMS-SSIM"] == (x, [60.0, 61.0, 62.0])
        assert halves(axes, "FA-cResNet, HyperMS-SSIM") == [HALF] * 3
        (line,) = (line for line in axes.lines if line.get_label() == "Anchor 1")
        assert set(line.get_ydata()) == {80.0}


def test_accuracies_are_joined_in_order_of_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(results, "save_picture", lambda figure, path, _: kept.append(figure))
    for quality, rate in (("1", 3.0), ("4", 1.0), ("8", 2.0)):
        name = f"trashnet/cresnet-msssim-{quality}"
        write_run(tmp_path, name, 0.7 + rate / 100, rate_bpp=rate)
    results.draw(results.gather(find_runs([tmp_path])), tmp_path / "accuracy.png")
    (axes,) = kept[0].axes
    assert points(axes) == {"trashnet/cresnet": ([1.0, 2.0, 3.0], [71.0, 72.0, 73.0])}
    # Single runs on 430 samples: 1.96 * sqrt(71 * 29 / 430)
    assert halves(axes, "trashnet/cresnet")[0] == pytest.approx(4.2889, abs=1e-4)
    low, high = axes.get_ylim()
    assert high - low == pytest.approx(results.LEAST_SPAN)


def test_accuracy_of_all_recipes(drawn: Drawn) -> None:
    (axes,) = drawn["accuracy.png"].axes
    rates = list(RATES.values())
    assert points(axes)["trashnet/fa-cresnet"] == (rates, [75.0, 76.0, 77.0])
    assert halves(axes, "trashnet/fa-cresnet") == [HALF] * 3
