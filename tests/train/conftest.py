"""Stores and recipes small enough to train on in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from latentset.datasets.store import Store, open_store
from latentset.train.models.networks import ResNetNetwork
from latentset.train.models.resnet import PixelResNet
from latentset.train.recipe.recipe import Recipe
from latentset.train.recipe.recipe_file import parse_recipe
from tests.makers.synthetic import write_mixed_store

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    # Networks this small only wait for each other on more.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mixed_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(write_mixed_store(tmp_path_factory.mktemp("stores") / "mixed.zarr"))


@pytest.fixture
def resnet_file(tmp_path: Path) -> Path:
    """Weights of the ResNet that the tiny network is made of, to adopt; random ones."""
    torch.manual_seed(9)
    path = tmp_path / "anchor.safetensors"
    save_file(
        PixelResNet(ResNetNetwork(num_classes=3, depths=(1, 1, 1, 1), width=2)).state_dict(), path
    )
    return path


@pytest.fixture(scope="session")
def make_recipe(mixed_store: Store) -> MakeRecipe:
    """Make a recipe of a tiny network on the mixed store; keywords TABLE__KEY change it."""

    def make(**changes: Any) -> Recipe:
        tables: dict[str, Any] = {
            "name": "tests/tiny",
            "model": {"kind": "fa-cresnet", "depths": [1, 1, 1], "width": 2, "n": [1, 1, 1]},
            "data": {"store": str(mixed_store.location), "batch_size": 8, "size": 8},
            "schedule": {"epochs": 4, "learning_rate": 0.05, "decay_epochs": [3]},
            "device": {"accelerator": "cpu"},
        }
        tables["model"]["r"] = 2
        for key, value in changes.items():
            table, _, name = key.partition("__")
            if name:
                tables.setdefault(table, {})[name] = value
            else:
                tables[table] = value
        return parse_recipe(tables, "tests")

    return make
