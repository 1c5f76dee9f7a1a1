"""Names in a store that would command a terminal, markup or a formula: shown as text."""

from contextlib import suppress
from pathlib import Path

import pytest

from latentset.cli import main as module
from tests.makers.runs import write_run
from tests.makers.synthetic import write_synthetic_store

NAMES = ("[/x]", "[bold]b", ":smile:", "$\\frac{$", "%s {0}")
RECIPE = """
name = "tests/cli"
[model]
kind = "cresnet"
depths = [1, 1, 1]
width = 2
[data]
test_split = "val"
batch_size = 8
size = 4
[schedule]
epochs = 1
learning_rate = 0.05
[device]
accelerator = "cpu"
"""


def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr("sys.argv", ["latentset", *words])
    monkeypatch.setenv("COLUMNS", "200")
    with suppress(SystemExit):
        module.main()
    printed = capsys.readouterr()
    assert "error:" not in printed.err, printed.err
    return printed.out


def test_train_evaluate_inspect_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(
        write_synthetic_store(
            tmp_path / "[s].zarr", samples=60, classes=NAMES, splits=("train", "val")
        )
    )
    (tmp_path / "r.toml").write_text(RECIPE)
    run = str(tmp_path / "[/run]")
    options = ("--store", store, "--out", run)
    text = _run(monkeypatch, capsys, "train", str(tmp_path / "r.toml"), *options)
    assert f"from {store}" in text
    text = _run(monkeypatch, capsys, "evaluate", run, store, "--per-class")
    assert all(f" {name} " in text for name in NAMES)
    text = _run(monkeypatch, capsys, "inspect", store)
    assert ", ".join(NAMES) in text
    assert "[s].zarr" in text
    text = _run(monkeypatch, capsys, "report", run, "-o", str(tmp_path / "[/report]"))
    assert "[/report]/report.md" in text


def test_a_report_of_runs_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, codec in enumerate(["[/x]", "\x1b[31mred", "$\\frac{$", "\u202e|\ud800"]):
        write_run(
            tmp_path / str(seed),
            "trashnet/fa-cresnet-msssim-1",
            0.5,
            store=str(seed) * 64,
            codec=codec,
            test_split=codec,
        )
    words = ("report", str(tmp_path), "--skip-timing", "-o", str(tmp_path / "report"))
    try:
        text = _run(monkeypatch, capsys, *words)
    except AssertionError as error:  # two stores, or a surrogate: refused in one line
        text = str(error)
    assert "\x1b[31m" not in text
    assert "Traceback" not in text
    assert "not expected" not in text


def test_a_picture_of_names_that_are_no_formulas(tmp_path: Path) -> None:
    from latentset.paper.report.output import new_figure, save_picture

    figure = new_figure(2, 2)
    axes = figure.subplots()
    for name in ("$\\frac{$", "\x1b[31m", "\ud800", "$x", "a\nb"):
        axes.plot([0, 1], label=name)
        axes.set_title(name)
    axes.legend()
    save_picture(figure, tmp_path / "a.png", "caption $\\frac{$")
    save_picture(figure, tmp_path / "a.svg")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.svg"}


def test_errors_are_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["latentset", "inspect", str(tmp_path / "[/x] :smile:")])
    with pytest.raises(SystemExit):
        module.main()
    text = capsys.readouterr().err
    assert "[/x] :smile:" in text.replace("\n", " ")
