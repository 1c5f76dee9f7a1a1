import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from latentset.cli.paper import report
from latentset.cli.train import evaluate, predict, train
from latentset.datasets.store import Store
from tests.makers.synthetic import write_synthetic_store

Run = Callable[..., str]

RECIPE = """
name = "tests/cli"
[model]
kind = "cresnet"
depths = [1, 1, 1]
width = 2
[data]
test_split = "test"
batch_size = 8
size = 8
[schedule]
epochs = 9
learning_rate = 0.05
[device]
accelerator = "cpu"
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as a pipe does: no terminal. Errors come out as they are."""
    monkeypatch.setenv("COLUMNS", "80")
    app = typer.Typer()
    for command in (train, evaluate, predict, report):
        app.command()(command)

    def call(*words: str) -> str:
        result = CliRunner().invoke(app, words)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return call


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return str(tmp_path / "recipe.toml")


def test_train_evaluate_report(run: Run, recipe: str, mixed_store: Store, tmp_path: Path) -> None:
    store, out = str(mixed_store.location), str(tmp_path / "run")
    text = run("train", recipe, "--store", store, "--set", "schedule.epochs=1", "--out", out)
    lines = text.splitlines()
    assert lines[0].startswith("tests/cli, seed 0: cresnet, ")
    assert "(synthetic; train 47, val 24)" in lines[1]
    assert lines[3].startswith("epoch 1/1  loss ")  # one line, however long
    assert lines[3].endswith(" samples/s")
    assert lines[4].startswith("best epoch 1: val top-1 ")
    assert lines[6].startswith("test, best.safetensors: top-1 ")
    assert len(lines) == 7
    assert "finished: nothing to do" in run(
        "train", recipe, "--store", store, "--set", "schedule.epochs=1", "--out", out
    )

    figures = str(tmp_path / "figures.json")
    text = run("evaluate", out, store, "--split", "test", "--json", figures)
    found = json.loads(Path(figures).read_text())
    assert found["splits"]["test"] == json.loads((tmp_path / "run/result.json").read_text())["test"]
    row = next(line for line in text.splitlines() if line.startswith("│ test"))
    assert f"{100 * found['splits']['test']['top1']:.2f}" in row
    assert json.loads(run("evaluate", out, store, "--split", "test", "--json", "-")) == found

    text = run("evaluate", out, store, "--split", "test", "--per-class")
    for cls, share in found["splits"]["test"]["per_class"].items():
        row = next(line for line in text.splitlines() if f" {cls} " in line)
        assert f" {100 * share:.2f} " in row

    table = str(tmp_path / "predictions.csv")
    lines = run("predict", out, store, "-o", table, "--top", "2").splitlines()
    assert lines == [
        f"{table}: 95 samples",
        "note: samples without latents, which are not in it: 1",
    ]
    assert Path(table).read_text().splitlines()[0].count(",") == 6

    text = run("report", out, "-o", str(tmp_path / "report"))
    assert "results.md" in text
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "accuracy.png",
        "report.md",
        "results.csv",
        "results.md",
    ]


def test_default_folder_names_recipe_codec_and_seed(
    run: Run, recipe: str, mixed_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = str(mixed_store.location)
    run("train", recipe, "--store", store, "--set", "schedule.epochs=1", "--set", "seed=7")
    assert (tmp_path / "runs/tests/cli/synthetic/seed-7/result.json").exists()


def test_accelerator_is_checked(run: Run, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(evaluate)
    found = CliRunner().invoke(app, [str(tmp_path), str(tmp_path), "--accelerator", "tpu"])
    assert found.exit_code == 2
    assert all(word in found.output for word in ("'tpu'", "'auto'", "'cpu'", "'cuda'"))


def test_names_are_no_markup(run: Run, recipe: str, tmp_path: Path) -> None:
    splits, classes = ("train", "train", "val", "test"), ("[/x]", "[bold]y")
    store = write_synthetic_store(
        tmp_path / "[bold]" / "[slash].zarr", samples=32, splits=splits, classes=classes
    )
    out = str(tmp_path / "run")
    text = run("train", recipe, "--store", str(store), "--set", "schedule.epochs=1", "--out", out)
    assert f"from {store} (synthetic" in text
    text = run("evaluate", out, str(store), "--split", "test", "--per-class")
    assert "[/x]" in text
    assert "[bold]y" in text
