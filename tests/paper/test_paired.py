"""Differences by seed: intervals, verdicts, and what predictions add."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentset.paper.report.paired import (
    bootstrap_interval,
    mcnemar,
    t_interval,
    verdict,
    write_differences,
)
from latentset.paper.report.runs import find_runs, group_runs
from tests.makers.runs import read_csv, write_run


def test_interval_of_students_t() -> None:
    # Mean 2, deviation 1, t(0.975, 2) = 4.3027: 2 -+ 4.3027 / sqrt(3)
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((-0.4841, 4.4841), abs=1e-4)
    assert t_interval([1.0]) == (None, None)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([1.4, 1.5, 1.6], "supported"),
        ([4.0, 5.0, 6.0], "supported"),
        ([1.3, 1.4, 1.5], "no 3 points (above 0)"),
        ([-2.0, -1.0, 0.0], "no 3 points"),
        ([-2.0, -1.9, -1.8], "no 3 points (below 0)"),
        ([1.0, 2.0, 3.0], "undecided"),
        ([2.0, 2.1], "–"),
        ([2.0], "–"),
    ],
)
def test_verdict(points: list[float], said: str) -> None:
    assert verdict(points) == said


def test_mcnemar_is_of_samples_that_one_alone_has_right() -> None:
    one = np.array([True] * 9 + [False] + [True] * 50)
    other = np.array([False] * 9 + [True] + [True] * 50)
    assert mcnemar(one, other) == pytest.approx(2 * 11 / 2**10)  # 0 or 1 of 10 coins, both sides
    assert mcnemar(other, one) == mcnemar(one, other)
    assert mcnemar(one, one) == 1


def test_bootstrap_is_over_seeds_and_samples() -> None:
    one, other = np.arange(400) < 300, np.arange(400) < 260
    low, high = bootstrap_interval([(one, other)] * 3)
    # 10 points; of one seed sqrt(0.1 * 0.9 / 400) = 1.5 points, of three less
    assert low == pytest.approx(10 - 1.96 * 1.5 / 3**0.5, abs=0.2)
    assert high == pytest.approx(10 + 1.96 * 1.5 / 3**0.5, abs=0.2)
    apart = bootstrap_interval([(one, other), (other, one)])
    assert apart[0] < -8
    assert apart[1] > 8


def test_differences_are_of_the_seeds_that_both_have(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for seed, top1 in enumerate((0.70, 0.72, 0.40)):
        write_run(runs, "minc2500/cresnet-msssim-1", top1, seed=seed)
    for seed, top1 in ((0, 0.75), (1, 0.71), (5, 0.99)):
        write_run(runs, "minc2500/fa-cresnet-msssim-1", top1, seed=seed)
    write_run(runs, "minc2500/anchor2-msssim-1", 0.7, seed=9)
    write_run(runs, "imagenette/fa-cresnet-scratch-msssim-4", 0.9)
    write_run(runs, "imagenette/cresnet-scratch-msssim-4", 0.8)
    write_differences(group_runs(find_runs([runs])), tmp_path)
    text = (tmp_path / "differences.md").read_text()
    assert sorted(line for line in text.splitlines() if " − " in line) == [
        # +5 and -1: mean 2, deviation sqrt(18), t(0.975, 1) = 12.706
        "| bmshj2018-hyperprior-msssim-1 | FA-cResNet − cResNet | +5.0, -1.0 | +2.0 "
        "| -36.1 to +40.1 | 2 | – | +2.9 | – | – | – |",
        "| demo-hyperprior-msssim-4 | FA-cResNet from scratch − cResNet from scratch | +10.0 "
        "| +10.0 | – | 1 | – | – | – | – | – |",
    ]


def test_the_central_crop_stands_beside_it(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name, top1 in (("fa-cresnet", (0.7, 0.7)), ("cresnet", (0.6, 0.5))):
        for seed, right in enumerate(top1):
            folder = write_run(runs, f"imagenette/{name}-msssim-4", 0.5, seed=seed)
            found = {"crop": "central", "splits": {"val": {"samples": 430, "top1": right}}}
            (folder / "central.json").write_text(json.dumps(found))
    groups = group_runs(find_runs([runs]))
    assert not write_differences(groups, tmp_path).remark
    # 10 and 20: mean 15, deviation sqrt(50), t(0.975, 1) = 12.706
    assert "| +15.0 (-48.5 to +78.5) |" in (tmp_path / "differences.md").read_text()
    changes: list[dict[str, Any]] = [{"crop": "whole"}, {"splits": {"test": {}}}, {"splits": []}]
    for change in changes:
        (folder / "central.json").write_text(json.dumps(found | change))
        remark = write_differences(groups, tmp_path).remark
        assert re.search("without the central crop: .*seed-1/central.json: expected what", remark)
        (row,) = read_csv(tmp_path / "differences.csv")
        assert (row["central_points"], row["points"]) == ("", "0.0")


def predict(folder: Path, split: str, right: int, *, first: int = 0) -> None:
    """Write a table of 8 predictions, as `latentset predict` does, so many of which are right."""
    lines = ["id,split,label,class,probability", "another,elsewhere,1,1,0.5"]
    for k in range(8):  # classes that look like numbers are texts
        lines.append(f"{first + k},{split},{k % 3},{k % 3 if k < right else 'other'},0.5")
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("data_set", "split", "recorded"),
    [
        ("trashnet", "test", {}),
        ("imagenette", "val", {}),
        ("imagenette", "val", {"test_split": "val"}),
    ],
)
def test_predictions_add_mcnemars_test_and_the_bootstrap(
    data_set: str, split: str, recorded: dict[str, Any], tmp_path: Path
) -> None:
    for name, right in (("fa-cresnet", 8), ("cresnet", 6)):
        test = {"top1": right / 8, "top5": 1.0, "samples": 8}
        folder = write_run(tmp_path, f"{data_set}/{name}-msssim-4", 0, test=test, **recorded)
        predict(folder, split, right)
    groups, table = group_runs(find_runs([tmp_path])), folder / "predictions.csv"
    assert not write_differences(groups, tmp_path).remark
    (row,) = read_csv(tmp_path / "differences.csv")
    assert row["mcnemar_p"] == "0.5"  # two coins
    assert float(row["bootstrap_low"]) >= 0

    content = "id,split,label,class,probability\n" + f"0,{split},1,1,0.5\n" * 8
    for change, said in (
        (lambda: predict(folder, split, 5), "75.00% of them right.* got 8, 5 of them right"),
        (lambda: predict(folder, "elsewhere", 6), "got 0, 0 of them right"),
        (lambda: predict(folder, split, 6, first=1), "have predictions of other samples"),
        (lambda: table.write_text("id,class,probability\n0,0,0.5\n"), "a table of .*split"),
        (lambda: table.write_text(content), "got 1, 1 of them right"),
        (lambda: table.write_bytes(b"id,split,label,class\n\xff,val,0,0\n"), "a table of"),
        (table.unlink, "^$"),
    ):
        change()
        assert re.search(said, write_differences(groups, tmp_path).remark)
        (row,) = read_csv(tmp_path / "differences.csv")
        assert row["mcnemar_p"] == ""
