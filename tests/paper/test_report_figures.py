"""Figures: their numbers, the same bytes each time, and what is left out."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from latentset.cli.paper import report
from latentset.datasets.errors import StoreError, TrainingError
from latentset.datasets.store import open_store
from latentset.paper.report.figures_2_and_5 import busiest, write_figure5
from latentset.paper.report.figures_6_and_7 import draw_accuracies, draw_published
from latentset.paper.report.output import new_figure
from latentset.paper.report.page import write_report
from latentset.paper.report.stores import Stores
from tests.makers import stores as made_stores
from tests.makers.runs import read_csv, write_run

CODEC = "demo-hyperprior-msssim-4"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents, what they decode to, the originals, and a run of each."""
    folder = tmp_path_factory.mktemp("made")
    latents = made_stores.write_latents(folder / "latents", CODEC, rate_bpp=0.25)
    decoded = made_stores.write_pixels(folder / "decoded", latents, decoded=True)
    originals = made_stores.write_pixels(folder / "originals", latents, decoded=False)
    prints = {
        one: open_store(folder / one).fingerprint for one in ("latents", "decoded", "originals")
    }
    runs = folder / "runs"
    write_run(runs, "trashnet/anchor1", 0.8, store=prints["originals"], rate_bpp=9)
    write_run(runs, "trashnet/anchor2-msssim-4", 0.75, store=prints["decoded"], rate_bpp=9)
    for seed, top1 in enumerate((0.72, 0.74)):
        write_run(
            runs, "trashnet/cresnet-msssim-4", top1, seed=seed, store=prints["latents"], rate_bpp=9
        )
    assert all(path.exists() for path in (latents, decoded, originals))
    return folder


def test_whole_report(made: Path, tmp_path: Path) -> None:
    parts = [
        write_report(
            [made / "runs"],
            tmp_path / name,
            latents=[str(made / "latents")],
            pixels=[str(made / "decoded"), str(made / "originals")],
            timing=False,
        ).parts
        for name in ("a", "b")
    ]
    assert parts[0] == parts[1]
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(
        ["report.md", "results.csv", "results.md", "accuracy.png"]
        + [file for part in parts[0].values() for file in part.files]
    )
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert {name: part.remark for name, part in parts[0].items() if part.remark} == {
        "table2": "without inference times (--skip-timing) and times of the codecs "
        "(--codec-times FILE)",
        "differences": "no two networks with a common seed",
        "table3": "no runs of Table 3's recipes",
        "figure7": "without runs of HyperMSE codecs",
    }
    page = (tmp_path / "a/report.md").read_text()
    assert "- TrashNet: 4 runs of the paper's experiments, seeds 0, 1; **slim" in page
    assert (
        "## Table 3: what each part is worth\n\nLeft out: no runs of Table 3's recipes.\n" in page
    )
    assert "![Figure 7: accuracy against rate, PSNR, MS-SSIM](figure7-trashnet.svg)" in page
    for name in names:
        assert name in page or name in ("report.md", "accuracy.png")

    # Rates, PSNR and MS-SSIM are those of the split test alone (made_stores).
    figure6 = {row["setting"]: row for row in read_csv(tmp_path / "a/figure6.csv")}
    assert figure6["anchor1"]["rate_bpp"] == "3.0"
    assert figure6["anchor2"]["rate_bpp"] == figure6["cresnet"]["rate_bpp"] == "0.25"
    assert float(figure6["cresnet"]["top1"]) == pytest.approx(73)
    assert float(figure6["cresnet"]["top1_interval"]) == pytest.approx(12.7062, abs=1e-4)
    assert float(figure6["cresnet"]["top5"]) == pytest.approx(96)
    figure7 = {row["setting"]: row for row in read_csv(tmp_path / "a/figure7.csv")}
    for setting in ("anchor2", "cresnet"):
        assert (figure7[setting]["psnr_db"], figure7[setting]["ms_ssim"]) == ("30.0", "0.9")
    assert figure7["anchor1"]["psnr_db"] == ""
    assert read_csv(tmp_path / "a/figure5.csv") == [
        {
            "sample": "dark/06",  # the first of split test
            "codec": CODEC,
            "rate_bpp": "0.25",
            "ms_ssim": "0.9",
            "y_channels": "0 2 3",
            "sigma_channels": "0 1 2",
        }
    ]


def test_the_papers_points_are_drawn(made: Path, tmp_path: Path) -> None:
    axes = new_figure(4, 3).subplots()
    draw_published(axes)
    drawn = {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
    }
    rates = [0.0888, 0.309, 1.366]
    assert drawn == {
        "Anchor 1, paper (MINC-2500)": ([2.604], [75.7]),
        "Anchor 2, paper (MINC-2500)": (rates, [71.8, 75.3, 75.9]),
        "cResNet, paper (MINC-2500)": (rates, [70.3, 72.9, 74.4]),
        "FA-cResNet, paper (MINC-2500)": (rates, [73.2, 76.5, 77.9]),
    }
    # Beside data sets that Table 1 is repeated with, and no others.
    write_run(tmp_path / "runs", "imagenet/anchor1", 0.7, settings=["data.codec=none"])
    write_report([made / "runs"], tmp_path / "a", pixels=[str(made / "decoded")], timing=False)
    write_report([tmp_path / "runs"], tmp_path / "b", timing=False)
    for figure, beside in (("a/figure6-trashnet", True), ("a/figure7-trashnet", True),
                           ("b/figure6-imagenet", False)):  # fmt: skip
        text = (tmp_path / f"{figure}.svg").read_text()
        assert ("Anchor 1, paper (MINC-2500)" in text) == beside


def test_losses_of_figure_7_look_different() -> None:
    axes = new_figure(4, 3).subplots()
    row = {
        "setting": "cresnet",
        "rate_bpp": 0.5,
        "top1": 70.0,
        "top1_interval": None,
        "samples": 400,
    }
    draw_accuracies(axes, [row | {"codec": "msssim-4"}, row | {"codec": "mse-4"}], "rate_bpp")
    lines = [container.lines[0] for container in axes.containers]
    (upper, *_) = axes.containers[0].lines[2][0].get_segments()[0][::-1]
    assert upper[1] == pytest.approx(70 + 1.96 * 2.2913, abs=1e-3)  # sqrt(70 * 30 / 400)
    looks = [(line.get_linestyle(), line.get_fillstyle()) for line in lines]
    assert looks == [("-", "full"), ("--", "bottom")]


def test_busiest_channels() -> None:
    values = np.zeros((2, 2, 5), np.int16)
    values[0, 0, 4] = -9
    values[:, :, 1] = 1
    values[:, 0, 3] = 1
    values[0, 0, 2] = 3
    assert busiest(values) == (1, 3, 4)


def test_figure_5_without_pixels_says_so(made: Path, tmp_path: Path) -> None:
    stores = Stores.open([str(made / "latents")], [])
    part = write_figure5(stores, "bright/01", tmp_path)
    assert part.remark == f"without the original, what {CODEC} decodes (--pixels STORE)"
    with pytest.raises(StoreError, match=r"--sample no: expected the id .* such as dark/06"):
        write_figure5(stores, "no", tmp_path)


def test_figure_5_says_what_was_resized(tmp_path: Path) -> None:
    latents = made_stores.write_latents(tmp_path / "l", CODEC, resize="short:192")
    for name, decoded, resize in (("d", True, "exact:40"), ("o", False, "exact:44")):
        made_stores.write_pixels(tmp_path / name, latents, decoded=decoded, resize=resize)
    stores = Stores.open([str(latents)], [str(tmp_path / "d"), str(tmp_path / "o")])
    assert write_figure5(stores, None, tmp_path).caption == (
        "Pictures are shown as they are stored, resized by exact:40 or exact:44; MS-SSIM is of "
        "the decoded image before that. Bits per pixel are of images resized by "
        "short:192 first, the original's of its file at full size."
    )
    alone = Stores.open([str(latents)], [])
    assert write_figure5(alone, None, tmp_path).caption == (
        "Bits per pixel are of images resized by short:192 first."
    )


def test_captions_are_drawn_and_stand_on_the_page(tmp_path: Path) -> None:
    folders = {}
    for rule in ("none", "short:192"):
        folders[rule] = tmp_path / rule
        latents = made_stores.write_latents(tmp_path / f"latents-{rule}", CODEC, resize=rule)
        store = open_store(latents).fingerprint
        write_run(tmp_path / f"runs-{rule}", "trashnet/cresnet-msssim-4", 0.7, store=store)
        write_report(
            [tmp_path / f"runs-{rule}"], folders[rule], latents=[str(latents)], timing=False
        )
    for figure in ("figure5", "figure6-trashnet"):
        plain, said = ((folder / f"{figure}.svg").read_text() for folder in folders.values())
        assert said.count("<!-- ") > plain.count("<!-- ")  # matplotlib names each text so
    assert "resized by" not in (folders["none"] / "report.md").read_text()
    page = (folders["short:192"] / "report.md").read_text()
    assert page.count("images resized by short:192 first") == 1  # Figure 5
    assert page.count("images were resized by short:192 first") == 1  # Figure 6


def test_report_of_stores_alone(made: Path, tmp_path: Path) -> None:
    report = write_report(
        [],
        tmp_path,
        latents=[str(made / "latents")],
        pixels=[str(made / "decoded"), str(made / "originals")],
        timing=False,
    )
    there = {name for name, part in report.parts.items() if part.files}
    assert there == {"table2", "figure2", "figure5"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("figure2.csv", "figure2.svg", "figure5.csv", "figure5.svg", "report.md"),
        *("table2.csv", "table2.md"),
    ]
    page = (tmp_path / "report.md").read_text()
    assert "results.md" not in page
    assert page.startswith("# Report\n\n## Table 2: what one image costs\n\n[table2.md]")


def test_report_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nothing to report on: expected folders of runs .*"):
        write_report([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_stores_of_the_wrong_kind(made: Path) -> None:
    with pytest.raises(
        StoreError, match=r"--latents .*decoded: it holds pixels: give it with --pix"
    ):
        Stores.open([str(made / "decoded")], [])
    with pytest.raises(StoreError, match=r"--pixels .*latents: it holds latents; use --latents"):
        Stores.open([], [str(made / "latents")])


def test_command(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    app = typer.Typer()
    app.command()(report)
    times = tmp_path / "times.json"
    times.write_text(json.dumps({"machine": "m", "codecs": {CODEC: {"encode_ms": 1}}}))
    words = [str(made / "runs"), "-o", str(tmp_path / "out"), "--skip-timing"]
    result = CliRunner().invoke(app, [*words, "--codec-times", str(times)])
    assert result.exception is None
    lines = result.stdout.splitlines()
    assert "table2: without inference times (--skip-timing)" in lines
    assert "no figure2, figure5: no stores of latents (--latents STORE)" in lines
    assert lines[-1].startswith(f"written: {tmp_path}/out/report.md, results.csv, results.md, ")
    assert lines[-1].endswith("figure6-trashnet.svg, figure6.csv")


def test_command_without_runs(made: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(report)
    words = ["-o", str(tmp_path / "out"), "--skip-timing", "--latents", str(made / "latents")]
    result = CliRunner().invoke(app, words)
    assert result.exception is None
    lines = result.stdout.splitlines()
    assert lines[0].startswith("table2: without inference times (--skip-timing)")
    assert lines[-1] == (
        f"written: {tmp_path}/out/report.md, table2.md, table2.csv, figure2.svg, figure2.csv, "
        "figure5.svg, figure5.csv"
    )
    result = CliRunner().invoke(app, ["-o", str(tmp_path / "none")])
    assert isinstance(result.exception, TrainingError)
