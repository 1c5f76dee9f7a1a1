import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from latentset.datasets.errors import RecipeError, StoreIncompleteError, TrainingError
from latentset.datasets.store import Store
from latentset.datasets.store.synthetic import write_synthetic_pixels, write_synthetic_store
from latentset.train.evaluate import evaluate_checkpoint
from latentset.train.fit import fit
from latentset.train.models import PixelResNet
from latentset.train.recipe import Recipe
from latentset.train.run_files import read_result

MakeRecipe = Callable[..., Recipe]
LEARNT = ("epoch", "lr_new", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5")


def figures(folder: Path) -> list[tuple[str, ...]]:
    """What an uninterrupted and a resumed run have in common, digit for digit."""
    with (folder / "metrics.csv").open() as file:
        return [tuple(row[name] for name in LEARNT) for row in csv.DictReader(file)]


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
    (events,) = (finished / "tensorboard").glob("events.*")  # Lightning adds a hparams.yaml
    assert events.stat().st_size > 1000


def test_result_is_that_of_the_best_weights(finished: Path, mixed_store: Store) -> None:
    result = read_result(finished)
    found = evaluate_checkpoint(finished, Path(str(mixed_store.place)))
    assert found.checkpoint.endswith("best.safetensors")
    assert found.epoch == result["best"]["epoch"]
    assert found.splits["val"].top1 == result["best"]["val_top1"]
    assert found.splits["val"].loss == pytest.approx(result["best"]["val_loss"], rel=1e-6)
    assert found.splits["test"].model_dump() == result["test"]
    last = evaluate_checkpoint(
        finished / "last.safetensors", Path(str(mixed_store.place)), splits=["val"]
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
        *(sys.executable, "-c", "from latentset.datasets.cli import main; main()"),
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
    assert "going on where it stopped" in again.stdout
    assert "epoch 2/4" not in again.stdout
    assert again.stderr == ""
    assert figures(run) == figures(finished)


def test_ctrl_c_stops_and_the_run_goes_on(recipe: Recipe, tmp_path: Path) -> None:
    class Interrupting(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            if str(objects[0]).startswith("epoch 1/4"):
                raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, tmp_path / "run", console=Interrupting())
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(figures(tmp_path / "run")) == 1


def test_terminal_has_a_bar_that_counts_from_one(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(schedule__epochs=1, schedule__decay_epochs=[])
    fit(recipe, tmp_path / "run", console=Console(force_terminal=True, width=120))
    text = capsys.readouterr().out
    assert "epoch 1/1 ━" in text
    assert "Epoch 0" not in text


def test_other_settings_are_refused(finished: Path, make_recipe: MakeRecipe) -> None:
    other = make_recipe(data__test_split="test", schedule__learning_rate=0.1, seed=1)
    with pytest.raises(
        TrainingError, match=r"begun otherwise:\n  schedule.learning_rate: 0.05 -> 0.1\n  seed"
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
        ({"data__batch_size": 48}, "has 47 samples, less than one batch of data.batch_size=48"),
        ({"model__channels": 192}, "expected 192, got 8"),
        ({"weights__adopt": "absent.pth"}, "no weights at absent.pth"),
    ],
)
def test_refused_before_anything_is_written(
    make_recipe: MakeRecipe, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises((RecipeError, TrainingError), match=message):
        fit(make_recipe(**change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_incomplete_store_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    store = write_synthetic_store(tmp_path / "s.zarr")
    (store / "manifest.json").unlink()
    with pytest.raises(StoreIncompleteError, match="run the same latentset encode again"):
        fit(make_recipe(data__store=str(store)), tmp_path / "run")


def test_two_phases(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    torch.manual_seed(9)
    resnet = PixelResNet(3, depths=(1, 2, 1, 1), width=2)
    given = resnet.state_dict()
    save_file(given, tmp_path / "anchor.safetensors")
    recipe = make_recipe(
        model__depths=[2, 1, 1],
        weights__adopt=str(tmp_path / "anchor.safetensors"),
        schedule__frozen_epochs=1,
        schedule__epochs=2,
        schedule__adopted_learning_rate=0.01,
        schedule__weight_decay=0.1,
    )
    fit(recipe, tmp_path / "run", stop_after=1)
    first = load_file(tmp_path / "run" / "last.safetensors")
    adopted = [name for name in first if name in given and not name.startswith("layer2.0")]
    assert len(adopted) > 30
    assert "layer4.0.bn1.running_mean" in adopted
    assert all(torch.equal(first[name], given[name]) for name in adopted)
    fit(recipe, tmp_path / "run")
    second = load_file(tmp_path / "run" / "last.safetensors")
    same = [name for name in second if torch.equal(second[name], first[name])]
    # Softmax takes a bias out again, so only weight decay moves those of the attention poolings.
    assert same == []
    fit(recipe, tmp_path / "whole")
    assert figures(tmp_path / "whole") == figures(tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["frozen"], row["lr_adopted"]) for row in rows] == [("1", "0.0"), ("0", "0.01")]


def test_weights_of_other_classes(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    torch.manual_seed(9)
    given = PixelResNet(7, depths=(1, 1, 1, 1), width=2).state_dict()
    save_file(given, tmp_path / "anchor.safetensors")
    options = {
        "weights__adopt": str(tmp_path / "anchor.safetensors"),
        "schedule__frozen_epochs": 2,
        "schedule__epochs": 2,
        "schedule__decay_epochs": [],
    }
    with pytest.raises(TrainingError, match=r"fc.weight: expected \(3, 64\), got \(7, 64\)"):
        fit(make_recipe(**options), tmp_path / "run")
    recipe = make_recipe(**options, weights__leave_out=["fc"])
    fit(recipe, tmp_path / "run", stop_after=1)
    first = load_file(tmp_path / "run" / "last.safetensors")
    fit(recipe, tmp_path / "run")  # what is left out trains also in a run that goes on
    second = load_file(tmp_path / "run" / "last.safetensors")
    assert torch.equal(second["layer4.0.conv1.weight"], given["layer4.0.conv1.weight"])
    assert not torch.equal(second["fc.weight"], first["fc.weight"])


def test_what_was_adopted_is_known_again(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    torch.manual_seed(9)
    given = PixelResNet(3, depths=(1, 1, 1, 1), width=2).state_dict()
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_file(given, first)
    save_file(given | {"fc.bias": given["fc.bias"] + 1}, second)
    options = {"schedule__epochs": 2, "schedule__decay_epochs": []}
    run = tmp_path / "run"
    fit(make_recipe(**options, weights__adopt=str(first)), run, stop_after=1)
    with pytest.raises(TrainingError, match=r"weights\.adopt: .*first\.safetensors -> none"):
        fit(make_recipe(**options), run)
    (run / "resume.safetensors").unlink()  # as if killed before the first state was saved
    with pytest.raises(TrainingError, match=r"adopted weights: sha256 \w{12} -> \w{12}"):
        fit(make_recipe(**options, weights__adopt=str(second)), run)
    moved = tmp_path / "moved.safetensors"
    first.rename(moved)
    assert fit(make_recipe(**options, weights__adopt=str(moved)), run)["epochs"] == 2


def test_weights_of_classes_in_another_order_are_refused(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    pixels = write_synthetic_pixels(
        tmp_path / "p.zarr", samples=24, classes=("paper", "metal", "glass")
    )
    anchor = make_recipe(
        model={"kind": "resnet", "depths": [1, 1, 1, 1], "width": 2},
        data={"store": str(pixels), "batch_size": 4, "size": 16, "resize": 16},
        schedule__epochs=1,
        schedule__decay_epochs=[],
    )
    fit(anchor, tmp_path / "anchor")
    options = {
        "weights__adopt": str(tmp_path / "anchor" / "best.safetensors"),
        "schedule__epochs": 1,
        "schedule__decay_epochs": [],
    }
    with pytest.raises(TrainingError, match="class 0 is 'paper', the store's is 'glass'"):
        fit(make_recipe(**options), tmp_path / "run")
    fit(make_recipe(**options, weights__leave_out=["fc"]), tmp_path / "run")


def test_folder_of_a_run_that_was_killed_as_it_began(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    (tmp_path / ".recipe.json.partial").write_text("{")
    fit(make_recipe(schedule__epochs=1, schedule__decay_epochs=[]), tmp_path)
    assert (tmp_path / "result.json").exists()


def test_no_epochs_evaluate_what_is_adopted(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"0 evaluates adopted weights, .*adopt is empty"):
        make_recipe(schedule__epochs=0)
    pixels = write_synthetic_pixels(
        tmp_path / "p.zarr", classes=("glass", "metal", "paper"), splits=("test",)
    )
    torch.manual_seed(9)
    given = PixelResNet(3, depths=(1, 1, 1, 1), width=2).state_dict()
    given["fc.weight"].zero_()
    given["fc.bias"].copy_(torch.tensor([0.0, 2.0, 1.0]))
    save_file(given, tmp_path / "anchor.safetensors")
    recipe = make_recipe(
        model={"kind": "resnet", "depths": [1, 1, 1, 1], "width": 2},
        data={
            "store": str(pixels),
            "val_split": "",
            "test_split": "test",
            "batch_size": 4,
            "size": 16,
        },
        weights__adopt=str(tmp_path / "anchor.safetensors"),
        schedule__epochs=0,
    )
    with monkeypatch.context() as second:  # of two processes only the first writes
        second.setenv("RANK", "1")
        second.setenv("WORLD_SIZE", "2")
        assert fit(recipe, tmp_path / "run") == {"recipe": "tests/tiny", "epochs": 0}
    assert not (tmp_path / "run").exists()
    result = fit(recipe, tmp_path / "run")
    assert result["test"]["per_class"] == {"glass": 0, "metal": 1, "paper": 0}
    assert result["best"] is result["last"] is None
    assert result["checkpoint"] == "last.safetensors"
    assert fit(recipe, tmp_path / "run") == read_result(tmp_path / "run") == result
    kept = load_file(tmp_path / "run" / "last.safetensors")
    assert all(torch.equal(kept[name], given[name]) for name in given)


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


def test_nothing_to_train_while_the_trunk_is_frozen(
    make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path
) -> None:
    pixels = write_synthetic_pixels(tmp_path / "pixels.zarr", classes=("a", "b"), seed=1)
    network = PixelResNet(2, depths=(1, 1, 1, 1), width=2)
    save_file(network.state_dict(), tmp_path / "anchor.safetensors")
    recipe = make_recipe(
        model={"kind": "resnet", "depths": [1, 1, 1, 1], "width": 2},
        data__store=str(pixels),
        data__size=32,
        weights__adopt=str(tmp_path / "anchor.safetensors"),
        schedule__frozen_epochs=1,
    )
    with pytest.raises(RecipeError, match=r"frozen_epochs: expected 0, got 1: all of resnet is"):
        fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_weights_is_no_file(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"expected a file, got the folder .*best.safetensors"):
        fit(make_recipe(weights__adopt=str(tmp_path)), tmp_path / "run")


def _toml(tables: dict[str, Any]) -> str:
    lines = [f"{k} = {json.dumps(v)}" for k, v in tables.items() if not isinstance(v, dict)]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    return "\n".join(lines)
