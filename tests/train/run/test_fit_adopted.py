"""Runs that adopt weights: the two phases, other classes, and weights that nothing trains."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentset.datasets.errors import RecipeError, TrainingError
from latentset.datasets.store import Store
from latentset.train.models.networks import ResNetNetwork
from latentset.train.models.resnet import PixelResNet
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.fit import fit
from latentset.train.run.run_files import read_result
from tests.makers.runs import figures
from tests.makers.synthetic import write_synthetic_pixels

MakeRecipe = Callable[..., Recipe]


def test_two_phases(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    torch.manual_seed(9)
    resnet = PixelResNet(ResNetNetwork(num_classes=3, depths=(1, 2, 1, 1), width=2))
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
    given = PixelResNet(ResNetNetwork(num_classes=7, depths=(1, 1, 1, 1), width=2)).state_dict()
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
    given = PixelResNet(ResNetNetwork(num_classes=3, depths=(1, 1, 1, 1), width=2)).state_dict()
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_file(given, first)
    save_file(given | {"fc.bias": given["fc.bias"] + 1}, second)
    options = {"schedule__epochs": 2, "schedule__decay_epochs": []}
    run = tmp_path / "run"
    fit(make_recipe(**options, weights__adopt=str(first)), run, stop_after=1)
    with pytest.raises(TrainingError, match=r"weights\.adopt: .*first\.safetensors -> none"):
        fit(make_recipe(**options), run)
    (run / "resume.safetensors").unlink()  # as if killed before the first state was saved
    with pytest.raises(TrainingError, match=r"pretrained weights: sha256 \w{12} -> \w{12}"):
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


def test_no_epochs_evaluate_what_is_adopted(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"0 evaluates pretrained weights, .*adopt is empty"):
        make_recipe(schedule__epochs=0)
    pixels = write_synthetic_pixels(
        tmp_path / "p.zarr", classes=("glass", "metal", "paper"), splits=("test",)
    )
    torch.manual_seed(9)
    given = PixelResNet(ResNetNetwork(num_classes=3, depths=(1, 1, 1, 1), width=2)).state_dict()
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
    assert (tmp_path / "run" / "confusion.csv").read_text().splitlines() == [
        "true \\ predicted,glass,metal,paper",
        *(f"{cls},0,{result['test']['samples'] // 3},0" for cls in ("glass", "metal", "paper")),
    ]
    assert result["best"] is result["last"] is None
    assert result["checkpoint"] == "last.safetensors"
    assert fit(recipe, tmp_path / "run") == read_result(tmp_path / "run") == result
    kept = load_file(tmp_path / "run" / "last.safetensors")
    assert all(torch.equal(kept[name], given[name]) for name in given)


def test_nothing_to_train_while_the_trunk_is_frozen(
    make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path
) -> None:
    pixels = write_synthetic_pixels(tmp_path / "pixels.zarr", classes=("a", "b"), seed=1)
    network = PixelResNet(ResNetNetwork(num_classes=2, depths=(1, 1, 1, 1), width=2))
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
