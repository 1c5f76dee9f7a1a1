"""The lock of a run's folder, and figures that are not those of a run."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from latentset.datasets.errors import TrainingError
from latentset.train.fit import fit
from latentset.train.recipe import Recipe
from latentset.train.run_files import only_one, read_result
from tests.train.made_runs import write_run

MakeRecipe = Callable[..., Recipe]


def test_two_do_not_train_in_one_folder(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(schedule__epochs=1, schedule__decay_epochs=[])
    with only_one(tmp_path / "run"):
        with pytest.raises(TrainingError, match=r"run is being trained in by another process"):
            fit(recipe, tmp_path / "run")
        assert not list((tmp_path / "run").iterdir())
    assert fit(recipe, tmp_path / "run")["epochs"] == 1  # the lock has ended


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"recipe": ', "cannot be read: "),
        ("{}", "it lacks best, codec, last, "),
        ("[]", "it lacks a table"),
    ],
)
def test_torn_figures_are_refused(text: str, message: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path, "trashnet/anchor1", 0.5)
    (folder / "result.json").write_text(text)
    expected = re.escape(str(folder / "result.json")) + f".*{message}.*remove result.json"
    with pytest.raises(TrainingError, match=expected):
        read_result(folder)


def test_without_its_figures_a_run_ends_once_more(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(schedule__epochs=2, schedule__decay_epochs=[], data__test_split="test")
    before = fit(recipe, tmp_path / "run")
    metrics = (tmp_path / "run/metrics.csv").read_bytes()
    (tmp_path / "run/result.json").write_text("{")
    with pytest.raises(TrainingError, match=r"remove result\.json and give the command again"):
        fit(recipe, tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    assert fit(recipe, tmp_path / "run") == before
    assert json.loads((tmp_path / "run/result.json").read_text()) == before
    assert (tmp_path / "run/metrics.csv").read_bytes() == metrics
