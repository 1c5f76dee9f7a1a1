"""A run is bound to the samples of its store: a retry before it resumes is noticed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from latentset.datasets.errors import TrainingError
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.fit import fit
from tests.makers.synthetic import write_synthetic_store


def test_samples_that_were_added_since_are_refused(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [
        write_synthetic_store(tmp_path / name, samples=48, splits=("train", "val"), failed=failed)
        for name, failed in (("before.zarr", (0, 2)), ("after.zarr", ()))
    ]
    # As a retry does: the settings, and so the fingerprint, stay the same.
    monkeypatch.setattr(
        "latentset.datasets.store.store.Store.fingerprint", property(lambda store: "f" * 64)
    )
    settings = {"data__batch_size": 8, "schedule__epochs": 2, "schedule__decay_epochs": []}
    fit(make_recipe(data__store=str(stores[0]), **settings), tmp_path / "run", stop_after=1)
    with pytest.raises(TrainingError, match=r"store: samples \w{12} -> \w{12}"):
        fit(make_recipe(data__store=str(stores[1]), **settings), tmp_path / "run")
