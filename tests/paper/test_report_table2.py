"""Table 2: the paper's sizes come out, and times are written where they were measured."""

import json
from pathlib import Path

import pytest

from latentset.datasets.errors import TrainingError
from latentset.paper.network_cost import measure_size
from latentset.paper.recipes import load_recipe
from latentset.paper.report.runs import find_runs, group_runs
from latentset.paper.report.table2 import read_codec_times, write_table2
from tests.makers.runs import read_csv, write_run

PAPERS = """
HyperMS-SSIM-1 | Anchor 2 | 2.2 | 177.8 | 23.6 | 4.1
HyperMS-SSIM-1 | FA-cResNet | 1.8 | 107.8 | 38.9 | 4.5
HyperMS-SSIM-4 | Anchor 2 | 2.2 | 177.8 | 23.6 | 4.1
HyperMS-SSIM-4 | FA-cResNet | 1.8 | 110.6 | 42.0 | 4.9
HyperMS-SSIM-8 | Anchor 2 | 2.3 | 177.8 | 23.6 | 4.1
HyperMS-SSIM-8 | FA-cResNet | 2.4 | 110.6 | 42.1 | 4.9
"""
"""The paper's Table 2: inference ms, pass MB, parameters M, FLOPs G."""


def test_sizes_are_the_papers(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "trashnet/cresnet-msssim-4", 0.7)
    times = tmp_path / "times.json"
    times.write_text(json.dumps({
        "machine": "a machine",
        "codecs": {
            "demo-hyperprior-msssim-4": {
                "encode_ms": 41.26,
                "decode_ms": 50.0,
                "image": [362, 256],
            },
            "some-other": {"encode_ms": 1.0},
        },
    }))  # fmt: skip
    groups = group_runs(find_runs([tmp_path / "runs"]))
    part = write_table2(groups, read_codec_times(times), tmp_path, timing=False)
    assert part.files == ("table2.md", "table2.csv", "table2-codecs.csv")
    assert part.remark == "without inference times (--skip-timing)"
    lines = (tmp_path / "table2.md").read_text().splitlines()
    for row in PAPERS.strip().splitlines():
        codec, network, ms, *sizes = row.split(" | ")
        beside = " | ".join(f"{size} | {size}" for size in sizes)  # ours, and the paper's
        assert f"| {codec} | {network} | – | {ms} | {beside} |" in lines
    at = lines.index("## Networks of the runs: TrashNet")
    assert lines[at + 2] == (
        "| codec | network | inference, ms | pass, MB | parameters, M | mult-adds, G |"
    )
    assert lines[at + 4].startswith("| demo-hyperprior-msssim-4 | cResNet | – | ")
    assert "| demo-hyperprior-msssim-4 | 41.3 | 484 | 50.0 | 289 |" in lines
    assert "| some-other | 1.0 | – | – | – |" in lines
    assert "One image of 362x256 pixels, on a machine." in lines


def test_time_is_the_median(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def passes(networks: list[object]) -> list[list[float]]:
        return [[0.001, 0.002, 0.009]] + [[0.5] * 7] * (len(networks) - 1)

    monkeypatch.setattr("latentset.paper.report.table2.measure_times", passes)
    write_table2({}, None, tmp_path, timing=True)
    first, *others = read_csv(tmp_path / "table2.csv")
    assert float(first["inference_ms"]) == 2.0
    assert float(others[0]["inference_ms"]) == 500.0
    assert "Inference: median of 3 to 7 forward passes" in (tmp_path / "table2.md").read_text()


def test_networks_of_the_runs_are_measured_at_the_size_that_they_see(tmp_path: Path) -> None:
    for name in ("anchor2-msssim-4", "cresnet-msssim-4"):
        write_run(tmp_path / "runs", f"trashnet/{name}", 0.7)
    write_table2(group_runs(find_runs([tmp_path / "runs"])), None, tmp_path, timing=False)
    rows = [row for row in read_csv(tmp_path / "table2.csv") if "runs" in row["networks"]]
    assert [(row["setting"], row["input"]) for row in rows] == [
        ("anchor2", "128"),
        ("cresnet", "16"),
    ]
    network = load_recipe("trashnet/cresnet-msssim-4").model
    channels = {"channels": 72, "num_classes": 6}
    network = network.model_copy(update=channels)
    here, larger = (measure_size(network, side) for side in (16, 28))
    assert int(rows[1]["mult_adds"]) == here.mult_adds < larger.mult_adds


def test_file_of_times_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"codec": {}}')
    for name in ("x.json", "missing.json"):
        with pytest.raises(TrainingError, match=r"--codec-times .*json: expected what"):
            read_codec_times(tmp_path / name)


def test_the_papers_networks_need_no_runs(tmp_path: Path) -> None:
    part = write_table2({}, None, tmp_path, timing=False)
    assert part.files == ("table2.md", "table2.csv")
    text = (tmp_path / "table2.md").read_text()
    assert "| HyperMS-SSIM-8 | FA-cResNet | – | 2.4 | 110.6 | 110.6 | 42.1 | 42.1 |" in text
    assert "Networks of the runs" not in text
