import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from latentset.datasets.errors import RecipeError
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.epochs import EpochFigures, Progress
from latentset.train.run.fit import fit

MakeRecipe = Callable[..., Recipe]


def ends(losses: list[float], patience: int, frozen_epochs: int = 9) -> int:
    """The epoch at which the second phase begins, for these losses on the validation split."""
    progress = Progress(frozen_epochs=frozen_epochs)
    for epoch, loss in enumerate(losses):
        if epoch < progress.frozen_epochs:
            # As a run that is resumed after each epoch does.
            progress = Progress.model_validate_json(progress.model_dump_json())
            progress.finish_epoch(row_of(epoch + 1, loss), patience)
    return progress.frozen_epochs


def row_of(epoch: int, val_loss: float) -> EpochFigures:
    return EpochFigures(
        epoch=epoch,
        frozen=1,
        lr_new=1.0,
        lr_adopted=0.0,
        train_loss=1.0,
        train_top1=0.5,
        val_loss=val_loss,
        val_top1=0.5,
        val_top5=1.0,
        seconds=1.0,
        samples_per_s=1.0,
    )


def test_first_phase_ends_at_the_plateau() -> None:
    falling = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2]
    assert ends(falling, 2) == 9
    assert ends([5.0, 4.0, 4.0, 4.5, 1.0, 1.0], 2) == 4
    assert ends([5.0, 4.0, 4.5, 3.0, 3.5, 3.1, 0.1], 2) == 6
    assert ends([5.0, 5.0, 4.0], 1) == 2
    assert ends([5.0] * 9, 0) == 9


@pytest.mark.parametrize(
    ("val_loss", "said"), [(9.9, ""), (10.0, "10 times"), (271.0, "271 times")]
)
def test_a_validation_loss_far_above_the_other_is_said_to_be(val_loss: float, said: str) -> None:
    line = row_of(1, val_loss).line(3)
    assert said in line
    assert ("the training loss: docs/training.md, When the val" in line) == bool(said)
    assert line.splitlines()[0].endswith("1 samples/s  trunk frozen")


def test_plateau_wants_a_first_phase_and_a_split(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match="it ends the first phase, but frozen_epochs is 0"):
        make_recipe(schedule__plateau_epochs=2)
    with pytest.raises(RecipeError, match=r"needs a validation split, .*val_split is empty"):
        make_recipe(
            schedule__plateau_epochs=2,
            schedule__frozen_epochs=2,
            weights__adopt="f",
            data__val_split="",
        )


def test_plateau_ends_the_first_phase_of_a_run(
    make_recipe: MakeRecipe, resnet_file: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(
        weights__adopt=str(resnet_file),
        schedule__epochs=8,
        schedule__frozen_epochs=8,
        schedule__plateau_epochs=2,
        schedule__learning_rate=0.3,
        schedule__decay_epochs=[],
    )
    fit(recipe, tmp_path / "whole")
    rows = metrics(tmp_path / "whole")
    # By hand from the losses: the first epoch after two that did not fall below the lowest.
    lowest, waited, frozen = float("inf"), 0, []
    for row in rows:
        frozen.append("1" if waited < 2 else "0")
        if waited < 2:
            better = float(row["val_loss"]) < lowest
            lowest, waited = min(lowest, float(row["val_loss"])), 0 if better else waited + 1
    assert [row["frozen"] for row in rows] == frozen
    assert 2 < frozen.count("1") < 8
    # A run that goes on, within the phase and after it, ends it in the same epoch.
    for stop in (2, frozen.count("1") + 1):
        fit(recipe, tmp_path / "run", stop_after=stop)
    fit(recipe, tmp_path / "run")
    assert [row["frozen"] for row in metrics(tmp_path / "run")] == frozen
    assert [row["val_loss"] for row in metrics(tmp_path / "run")] == [r["val_loss"] for r in rows]


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))
