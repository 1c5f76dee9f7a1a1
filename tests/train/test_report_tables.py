"""Tables 1 and 3, cell by cell, from runs written by hand."""

import csv
from pathlib import Path

import pytest

from latentset.datasets.errors import TrainingError
from latentset.datasets.store import open_store
from latentset.train.report.groups import group_runs
from latentset.train.report.runs import find_runs
from latentset.train.report.stores import Stores
from latentset.train.report.table1 import write_table1
from latentset.train.report.table3 import write_table3
from tests.train import made_stores
from tests.train.made_runs import write_run

NO_STORES = Stores((), ())


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_1_of_the_papers_networks(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_run(runs, "minc2500/anchor1", 0.75, rate_bpp=2.5)
    for seed, top1 in enumerate((0.70, 0.72, 0.77)):
        write_run(runs, "minc2500/cresnet-msssim-1", top1, seed=seed, rate_bpp=0.09)
    write_run(runs, "minc2500/fa-cresnet-msssim-1", 0.755, rate_bpp=0.09)
    write_run(runs, "minc2500/fa-cresnet-mse-1", 0.5)  # Figure 7's, not Table 1's
    write_run(runs, "trashnet/cresnet-slim", 0.5)  # of no table
    part = write_table1(group_runs(find_runs([runs])), NO_STORES, tmp_path)
    assert (part.files, part.remark) == (("table1.md", "table1.csv"), "")
    assert (tmp_path / "table1.md").read_text() == (
        "# Table 1: accuracy at each rate\n"
        "\n"
        "## MINC-2500\n"
        "\n"
        "MINC-2500. Top-1 in percent, on split test (430 samples); mean over seeds 0, 1, 2, "
        "± standard deviation (n - 1), number of seeds in parentheses.\n"
        "Anchor 1: resnet, ResNet-50, width 64, 224x224 pixels, 90 epochs.\n"
        "cResNet: cresnet, ResNet-50, width 64, 28x28 positions, 70 epochs.\n"
        "FA-cResNet: fa-cresnet, ResNet-50, width 64, 28x28 positions, 70 epochs.\n"
        "\n"
        "| codec | bpp | paper's | Anchor 1 | paper's | Anchor 2 | paper's | cResNet | paper's "
        "| FA-cResNet | paper's |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| originals | 2.500 | 2.604 | 75.0 (1) | 75.7 |  |  |  |  |  |  |\n"
        "| bmshj2018-hyperprior-msssim-1 | 0.0900 | 0.0888 |  |  | – | 71.8 "
        "| 73.0 ± 3.6 (3) | 70.3 | 75.5 (1) | 73.2 |\n"
        "\n"
        "FA-cResNet's top-1 less that of another, points:\n"
        "\n"
        "| codec | less | points | paper's |\n"
        "| --- | --- | ---: | ---: |\n"
        "| bmshj2018-hyperprior-msssim-1 | cResNet | +2.5 | +2.9 |\n"
    )
    rows = read_csv(tmp_path / "table1.csv")
    assert [row["setting"] for row in rows] == ["anchor1", "cresnet", "fa-cresnet"]
    cresnet = rows[1]
    assert float(cresnet["top1"]) == pytest.approx(73)
    assert float(cresnet["top1_spread"]) == pytest.approx(3.6056, abs=1e-4)  # sqrt(26 / 2)
    assert (cresnet["seeds"], cresnet["paper_top1"], cresnet["rate_of"]) == (
        "3",
        "70.3",
        "all samples",
    )


def test_slim_networks_are_never_taken_for_the_papers(tmp_path: Path) -> None:
    write_run(tmp_path / "slim", "trashnet/cresnet-msssim-4", 0.7)
    write_run(tmp_path / "full", "minc2500/cresnet-msssim-4", 0.7, settings=["model.width=32"])
    for name in ("slim", "full"):
        write_table1(group_runs(find_runs([tmp_path / name])), NO_STORES, tmp_path)
        text = (tmp_path / "table1.md").read_text()
        assert "**Slim networks, not the paper's**" in text
    assert "cResNet: cresnet, ResNet-50, width 32, 28x28 positions, 70 epochs." in text
    write_table1(group_runs(find_runs([tmp_path / "slim"])), NO_STORES, tmp_path)
    text = (tmp_path / "table1.md").read_text()
    assert "## TrashNet, slim networks\n" in text
    assert "blocks 2/2/2, width 16, 16x16 positions, 20 epochs" in text


def test_rate_is_of_the_split_that_is_measured(tmp_path: Path) -> None:
    path = made_stores.write_latents(tmp_path / "l", "demo-hyperprior-msssim-4", rate_bpp=0.125)
    store = open_store(path)
    write_run(tmp_path / "runs", "trashnet/cresnet-msssim-4", 0.7, store=store.fingerprint)
    stores = Stores.open([str(path)], [])
    write_table1(group_runs(find_runs([tmp_path / "runs"])), stores, tmp_path)
    (row,) = read_csv(tmp_path / "table1.csv")
    assert (row["rate_bpp"], row["rate_of"]) == ("0.125", "test")
    assert "| demo-hyperprior-msssim-4 | 0.1250 | 0.309 |" in (tmp_path / "table1.md").read_text()


def test_runs_that_differ_in_more_than_their_seed_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "minc2500/cresnet-msssim-4", 0.7)
    write_run(tmp_path, "minc2500/cresnet-msssim-4", 0.7, seed=1, settings=["model.width=32"])
    with pytest.raises(
        TrainingError, match=r"differ by their seed alone, got model\.width: 64 -> 32;"
    ):
        group_runs(find_runs([tmp_path]))
    (tmp_path / "minc2500/cresnet-msssim-4/seed-1").rename(tmp_path / "elsewhere")
    write_run(tmp_path, "minc2500/cresnet-msssim-4", 0.7, seed=1, store="e" * 64)
    with pytest.raises(TrainingError, match=r"got the store; report them apart"):
        group_runs(find_runs([tmp_path / "minc2500"]))


def test_table_3_stands_in_the_papers_order(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_run(runs, "minc2500/anchor2-msssim-1", 0.72)
    write_run(runs, "minc2500/fa-cresnet-msssim-1", 0.73)
    write_run(runs, "minc2500/fa-cresnet-msssim-4", 0.76)
    write_run(runs, "minc2500/table3/feu-depth-3-4-5-msssim-1", 0.715)
    write_run(runs, "minc2500/table3/feu-depth-2-3-4-msssim-4", 0.75)
    write_run(runs, "minc2500/table3/cau-position-skip-msssim-4", 0.77)
    part = write_table3(group_runs(find_runs([runs])), tmp_path)
    assert part.files == ("table3.md", "table3.csv")
    text = (tmp_path / "table3.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    one, four = (f"bmshj2018-hyperprior-msssim-{q}" for q in (1, 4))
    assert lines[0] == f"| experiment | setting | {one} | paper's | {four} | paper's |"
    assert lines[2] == "|  | Anchor 2 | 72.0 (1) | 71.8 | – | 75.3 |"
    assert "| CAU Position | pre * | 73.0 (1) | 73.1 | 76.0 (1) | 76.5 |" in lines
    assert "|  | skip | – | 73.6 | 77.0 (1) | 76.0 |" in lines
    assert lines[-2:] == [
        "| FEU Architecture | 2/3/4 | 73.0 (1) * | 73.1 | 75.0 (1) | 75.6 |",
        "|  | 3/4/5 | 71.5 (1) | 72.6 | 76.0 (1) * | 76.5 |",
    ]
    assert (
        "Left out, because no run was given: Input: ŷ, FA Effect: FA-ResNet, FA Module: CAU, "
        in text
    )
    assert "FEU Architecture: 4/5/6.\n" in text
    rows = read_csv(tmp_path / "table3.csv")
    skip = [row for row in rows if row["setting"] == "cau-position-skip"]
    assert [(row["codec"], row["top1"], row["paper_top1"]) for row in skip] == [
        ("msssim-4", "77.0", "76.0")
    ]
    defaults = [row for row in rows if row["codec"] == "msssim-1" and row["default"] == "True"]
    assert len(defaults) == 9
    assert {row["paper_top1"] for row in defaults} == {"73.1"}  # Table 1 has 73.2


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "trashnet/cresnet-slim", 0.5)
    groups = group_runs(find_runs([tmp_path / "runs"]))
    assert groups == {}
    none = "no runs of the paper's recipes (latentset recipes lists them)"
    assert write_table1(groups, NO_STORES, tmp_path).remark == none
    assert write_table3(groups, tmp_path).remark == none
    write_run(tmp_path / "runs", "trashnet/table3/cau-pooling-avg-msssim-4", 0.5)
    groups = group_runs(find_runs([tmp_path / "runs"]))
    assert write_table1(groups, NO_STORES, tmp_path).remark == "no runs of Table 1's recipes"
    write_run(tmp_path / "more", "trashnet/cresnet-msssim-4", 0.5)
    groups = group_runs(find_runs([tmp_path / "more"]))
    assert write_table3(groups, tmp_path).remark == "no runs of Table 3's recipes"
    assert not list(tmp_path.glob("table*"))
