import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from latentset.datasets.errors import RecipeError, StoreError, StoreIncompleteError, TrainingError
from latentset.datasets.store import Store
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.evaluate import evaluate_checkpoint
from latentset.train.run.fit import fit
from latentset.train.run.loop import StopSignal
from latentset.train.run.run_files import read_result
from latentset.train.run.world import World
from tests.makers.runs import figures
from tests.makers.synthetic import write_synthetic_store

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="module")
def recipe(make_recipe: MakeRecipe) -> Recipe:
    return make_recipe(data__test_split="test")


@pytest.fixture(scope="module")
def finished(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    fit(recipe, folder)
    return folder


def test_run_leaves_what_it_says(finished: Path, recipe: Recipe, mixed_store: Store) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        "best.safetensors",
        "confusion.csv",
        "last.safetensors",
        "metrics.csv",
        "recipe.json",
        "result.json",
        "resume.safetensors",
        "tensorboard",
    ]
    start = json.loads((finished / "recipe.json").read_text())
    assert start["store"]["fingerprint"] == mixed_store.fingerprint
    assert start["recipe"]["model"]["channels"] == 8
    result = read_result(finished)
    assert result["recipe"] == "tests/tiny"
    assert result["rate_bpp"] == pytest.approx(0.26, abs=0.001)
    assert result["test"]["samples"] == 24
    assert result["last"]["epoch"] == 4
    assert [row[0] for row in figures(finished)] == ["1", "2", "3", "4"]
    assert [float(row[1]) for row in figures(finished)] == pytest.approx([0.05] * 3 + [0.005])
    (events,) = (finished / "tensorboard").iterdir()
    assert events.stat().st_size > 1000


def test_result_is_that_of_the_best_weights(finished: Path, mixed_store: Store) -> None:
    result = read_result(finished)
    found = evaluate_checkpoint(finished, Path(str(mixed_store.location)))
    assert found.checkpoint.endswith("best.safetensors")
    assert found.epoch == result["best"]["epoch"]
    assert found.splits["val"].top1 == result["best"]["val_top1"]
    assert found.splits["val"].loss == pytest.approx(result["best"]["val_loss"], rel=1e-6)
    assert found.splits["test"].model_dump() == result["test"]
    last = evaluate_checkpoint(
        finished / "last.safetensors", Path(str(mixed_store.location)), splits=["val"]
    )
    assert last.splits["val"].top1 == result["last"]["val_top1"]
    assert list(last.splits) == ["val"]
    assert max(float(row[5]) for row in figures(finished)) == result["best"]["val_top1"]


def test_resumed_run_has_the_same_losses(finished: Path, recipe: Recipe, tmp_path: Path) -> None:
    stopped = fit(recipe, tmp_path / "run", stop_after=2)
    assert stopped == {"recipe": "tests/tiny", "epochs": 2}
    assert len(figures(tmp_path / "run")) == 2
    fit(recipe, tmp_path / "run")
    assert figures(tmp_path / "run") == figures(finished)
    ours, theirs = (
        load_file(folder / "last.safetensors") for folder in (tmp_path / "run", finished)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_finished_run_is_left_alone(finished: Path, recipe: Recipe) -> None:
    before = (finished / "last.safetensors").stat().st_mtime_ns
    assert fit(recipe, finished) == read_result(finished)
    assert (finished / "last.safetensors").stat().st_mtime_ns == before


def test_killed_run_goes_on(finished: Path, recipe: Recipe, tmp_path: Path) -> None:
    run, text = tmp_path / "run", tmp_path / "recipe.toml"
    text.write_text(_toml(recipe.model_dump(exclude_none=True)))
    command = [
        *(sys.executable, "-c", "from latentset.cli.main import main; main()"),
        *("train", str(text), "--out", str(run)),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.startswith("epoch 2/4"):
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (run / "result.json").exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "resuming where it stopped" in again.stdout
    assert "epoch 2/4" not in again.stdout
    assert again.stderr == "loading PyTorch\n"
    assert figures(run) == figures(finished)


class Pressing(Console):
    """Presses Ctrl-C after the first epoch, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__(quiet=True)
        self.left = times

    def print(self, *objects: Any, **options: Any) -> None:
        while self.left and str(objects[0]).startswith("epoch 1/4"):
            self.left -= 1
            Finalised()


class Finalised:
    """Ctrl-C comes where Python forgets exceptions: the handler must not count on raising one."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_stops_before_the_next_step_and_the_run_goes_on(
    finished: Path, recipe: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, tmp_path / "run", console=Pressing(times=1))
    assert signal.getsignal(signal.SIGINT) is handler
    assert capfd.readouterr().err == "stopping after this step; Ctrl-C again stops at once\n"
    assert len(figures(tmp_path / "run")) == 1
    fit(recipe, tmp_path / "run", console=Console(quiet=True))
    assert figures(tmp_path / "run") == figures(finished)


def test_a_second_ctrl_c_stops_at_once() -> None:
    stop = StopSignal(World())
    stop.handle(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        stop.handle(signal.SIGINT, None)


def test_ctrl_c_that_is_ignored_stays_so(recipe: Recipe, tmp_path: Path) -> None:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        fit(recipe, tmp_path / "run", console=Pressing(times=1))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(figures(tmp_path / "run")) == 4


def test_terminal_has_a_bar_that_counts_from_one(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(schedule__epochs=1, schedule__decay_epochs=[])
    fit(recipe, tmp_path / "run", console=Console(force_terminal=True, width=120))
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)  # without colours
    assert "epoch 1/1 ━" in text
    assert "Epoch 0" not in text


def test_other_settings_are_refused(finished: Path, make_recipe: MakeRecipe) -> None:
    other = make_recipe(data__test_split="test", schedule__learning_rate=0.1, seed=1)
    with pytest.raises(
        TrainingError, match=r"other settings:\n  schedule.learning_rate: 0.05 -> 0.1\n  seed"
    ):
        fit(other, finished)


def test_another_store_is_refused(finished: Path, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    store = write_synthetic_store(
        tmp_path / "other.zarr",
        samples=48,
        classes=("glass", "metal", "paper"),
        splits=("train", "train", "val", "test"),
    )
    with pytest.raises(TrainingError, match=r"store: fingerprint \w{12} -> \w{12}"):
        fit(make_recipe(data__test_split="test", data__store=str(store)), finished)


def test_a_folder_cannot_be_in_a_file(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file is a file, and no folder"):
        fit(recipe, tmp_path / "file/run")


def test_folder_of_something_else_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(TrainingError, match="not empty and not the folder of a run"):
        fit(recipe, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__store": ""}, "no store: give one with --store"),
        ({"data__val_split": "valid"}, "empty split: expected samples of split 'valid'"),
        ({"data__test_split": "tset"}, "empty split: expected samples of split 'tset'"),
        ({"model__channels": 192}, "expected 192, got 8"),
        ({"weights__adopt": "absent.pth"}, "no weights at absent.pth"),
        ({"schedule__mixup": 1.0, "schedule__accumulate": 8}, "at least 2 samples in each of 8"),
    ],
)
def test_refused_before_anything_is_written(
    make_recipe: MakeRecipe, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises((RecipeError, TrainingError), match=message):
        fit(make_recipe(**change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recipes_of_the_paper_are_not_fitted_to_a_store(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(data__batch_size=48, paper={"setting": "cresnet"})
    with pytest.raises(RecipeError, match=r"47 samples, less than one batch of data.batch_size=48"):
        fit(recipe, tmp_path / "run")


def test_a_batch_is_at_most_the_split(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(data__batch_size=48, schedule__epochs=1, schedule__decay_epochs=[])
    fit(recipe, tmp_path / "run")
    assert "batches of 47: split train has 47 samples" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"]["data"]["batch_size"]
        == 47
    )


@pytest.mark.parametrize(
    ("splits", "said", "measured"),
    [
        (("train", "val"), "no split test: the result is that of val, which chose", "val"),
        (("train", "test"), "no split val: nothing is validated", "test"),
        (("train",), "no split test: there is no result at the end", ""),
    ],
)
def test_a_store_without_some_splits(
    make_recipe: MakeRecipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    splits: tuple[str, ...],
    said: str,
    measured: str,
) -> None:
    store = write_synthetic_store(tmp_path / "s.zarr", splits=splits)
    recipe = make_recipe(
        data__store=str(store),
        data__test_split="test",
        schedule__epochs=1,
        schedule__decay_epochs=[],
        data__batch_size=8,
    )
    result = fit(recipe, tmp_path / "run")
    assert said in capsys.readouterr().out
    assert result["test_split"] == measured
    assert (result["test"] is not None) == bool(measured)


def test_incomplete_store_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    store = write_synthetic_store(tmp_path / "s.zarr")
    (store / "manifest.json").unlink()
    with pytest.raises(StoreIncompleteError, match="run the same latentset encode again"):
        fit(make_recipe(data__store=str(store)), tmp_path / "run")


def test_folder_of_a_run_that_was_killed_as_it_began(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    (tmp_path / ".recipe.json.partial").write_text("{")
    fit(make_recipe(schedule__epochs=1, schedule__decay_epochs=[]), tmp_path)
    assert (tmp_path / "result.json").exists()


def test_learns_what_can_be_learnt(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(
        model__width=4, data__crop_scale=[0.5, 1], schedule__epochs=8, schedule__decay_epochs=[6]
    )
    result = fit(recipe, tmp_path / "run")
    assert result["last"]["val_top1"] >= 0.95
    assert result["last"]["val_loss"] < 0.2


def test_without_validation_the_last_weights_count(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(
        model={"kind": "cresnet", "depths": [1, 1, 1], "width": 2},
        data__val_split="",
        data__test_split="test",
        schedule__epochs=1,
        schedule__decay_epochs=[],
        device={"accelerator": "cpu", "precision": "bf16", "channels_last": True},
    )
    result = fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert (result["best"], result["checkpoint"]) == (None, "last.safetensors")
    assert result["last"]["val_top1"] is None
    assert result["test"]["samples"] == 24


def test_loss_that_is_not_finite_ends_the_run(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(schedule__learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"epoch 1: the loss is (nan|inf); .*learning_rate"):
        fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "last.safetensors").exists()
    # One step an epoch: its loss is of the weights before it, that on val of those after.
    recipe = make_recipe(schedule__learning_rate=1e30, data__batch_size=47)
    with pytest.raises(TrainingError, match=r"epoch 1: the loss is (nan|inf); .*learning_rate"):
        fit(recipe, tmp_path / "other")


def _toml(tables: dict[str, Any]) -> str:
    lines = [f"{k} = {json.dumps(v)}" for k, v in tables.items() if not isinstance(v, dict)]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    return "\n".join(lines)
