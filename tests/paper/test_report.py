import io
from pathlib import Path

import pytest
import typer
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from latentset.cli.paper import report
from latentset.datasets.errors import TrainingError
from latentset.paper.report.results import draw, gather, make_table, write_tables
from latentset.paper.report.runs import find_runs, find_unfinished
from tests.makers.runs import write_result, write_run


def test_seeds_are_averaged(tmp_path: Path) -> None:
    for seed, top1 in enumerate((0.70, 0.72, 0.77)):
        write_result(
            tmp_path / f"runs/seed-{seed}",
            seed=seed,
            test={"top1": top1, "top5": 0.9, "samples": 430},
        )
    write_result(
        tmp_path / "other",
        recipe="trashnet/fa-cresnet-slim",
        store_fingerprint="b" * 64,
        rate_bpp=0.1,
    )
    lines = gather(find_runs([tmp_path / "runs", tmp_path / "other"]))
    assert [(line.recipe, line.seeds) for line in lines] == [
        ("trashnet/fa-cresnet-slim", 1),
        ("trashnet/cresnet-slim", 3),
    ]
    assert lines[1].top1 == pytest.approx(0.73)
    # sqrt(0.0026 / 2) / sqrt(3) * 4.30265
    assert lines[1].top1_interval == pytest.approx(0.089567, abs=1e-6)
    assert lines[0].top1_interval is None
    assert (lines[1].measured_on, lines[1].samples) == ("test", 430)


def test_tables_are_these_bytes(tmp_path: Path) -> None:
    write_result(tmp_path / "run")
    write_tables(gather(find_runs([tmp_path / "run"])), tmp_path / "out")
    assert (tmp_path / "out" / "results.md").read_text() == (
        "| recipe | codec | bpp | store MB | trained MB | parameters | split | seeds "
        "| top-1 % | top-5 % |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: |\n"
        "| trashnet/cresnet-slim | demo-4 | 0.400 | 9.00 | 8.00 | 1,234,567 | test (430) | 1 "
        "| 70.0 | 90.0 |\n"
    )
    assert (tmp_path / "out" / "results.csv").read_text() == (
        "recipe,model,codec,rate_bpp,store_bytes,trained_bytes,parameters,measured_on,samples,"
        "seeds,top1,top1_interval,top5\n"
        "trashnet/cresnet-slim,cresnet,demo-4,0.4,9000000,8000000,1234567,test,430,1,0.7,,0.9\n"
    )


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminals_table_breaks_names_at_hyphens_only(width: int, tmp_path: Path) -> None:
    codec, recipe = "bmshj2018-hyperprior-msssim-8", "minc2500/fa-cresnet-msssim-8"
    for seed in (0, 1):
        write_result(tmp_path / f"{seed}", seed=seed, recipe=recipe, codec=codec)
    text = io.StringIO()
    lines = gather(find_runs([tmp_path]))
    Console(file=text, width=width).print(make_table(lines, width))
    parts = ["bmshj2018-", "hyperprior-msssim-8"] if width == 80 else [codec]
    for part in parts:
        assert f" {part} " in text.getvalue()
    assert all(len(line) <= width for line in text.getvalue().splitlines())
    assert "9.00" in text.getvalue()


def test_split_is_the_best_there_is(tmp_path: Path) -> None:
    write_result(tmp_path / "val", test=None)
    write_result(tmp_path / "train", test=None, best=None)
    (val,) = gather(find_runs([tmp_path / "val"]))
    (train,) = gather(find_runs([tmp_path / "train"]))
    assert (val.measured_on, val.top1, val.top5) == ("val", 0.75, 0.95)
    assert (train.measured_on, train.top1, train.top5) == ("train", 0.99, None)


def test_run_without_any_accuracy_is_refused(tmp_path: Path) -> None:
    write_result(tmp_path / "run", test=None, best=None, last=None)
    with pytest.raises(TrainingError, match="no accuracy to report: the run has no epoch"):
        find_runs([tmp_path])


def test_same_run_twice_is_refused(tmp_path: Path) -> None:
    write_result(tmp_path / "a")
    write_result(tmp_path / "b")
    with pytest.raises(
        TrainingError, match=r"expected runs of different seeds, got seeds \[0, 0\]"
    ):
        gather(find_runs([tmp_path]))


def test_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="expected finished runs"):
        find_runs([tmp_path])


def test_runs_that_are_not_finished(tmp_path: Path) -> None:
    write_run(tmp_path, "trashnet/anchor1", 0.5)
    begun = write_run(tmp_path, "trashnet/anchor1", 0.5, seed=3)
    (begun / "result.json").unlink()
    assert len(find_runs([tmp_path])) == 1
    assert find_unfinished([tmp_path]) == [begun]
    damaged = write_run(tmp_path, "trashnet/anchor1", 0.5, seed=4)
    (damaged / "result.json").write_text("{")
    out, app = tmp_path / "report", typer.Typer()
    app.command()(report)
    printed = CliRunner().invoke(app, ["-o", str(out), "--skip-timing", str(tmp_path)])
    assert printed.exit_code == 0
    assert f"left out: {begun} is not finished\n" in printed.output
    assert f"left out: {damaged}/result.json" in printed.output
    text = (out / "report.md").read_text()
    assert "\n- left out, because not finished or not readable: 2 runs\n\n" in text


def test_rate_that_no_store_says(tmp_path: Path) -> None:
    write_result(tmp_path / "run", rate_bpp=None)
    lines = gather(find_runs([tmp_path / "run"]))
    write_tables(lines, tmp_path)
    assert "| demo-4 |  | 9.00 |" in (tmp_path / "results.md").read_text()
    draw(lines, tmp_path / "accuracy.png")


def test_picture(tmp_path: Path) -> None:
    write_result(tmp_path / "run")
    draw(gather(find_runs([tmp_path / "run"])), tmp_path / "accuracy.png")
    with Image.open(tmp_path / "accuracy.png") as image:
        assert image.size == (900, 600)
