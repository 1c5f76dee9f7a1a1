from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from latentset.datasets.errors import RecipeError
from latentset.train.phases import Phases
from latentset.train.recipe import Recipe, Schedule

MakeRecipe = Callable[..., Recipe]


def ends(losses: list[float], patience: int, frozen_epochs: int = 9) -> int:
    """The epoch at which the second phase begins, for these losses on the validation split."""
    phases = Phases(
        Schedule(
            epochs=10,
            frozen_epochs=frozen_epochs,
            plateau_epochs=patience,
            learning_rate=1.0,
        )
    )
    for epoch, loss in enumerate(losses):
        if epoch < phases.frozen_epochs:
            trainer: Any = SimpleNamespace(
                current_epoch=epoch, callback_metrics={"val/loss": torch.tensor(loss)}
            )
            # As a run that goes on after each epoch does.
            state = phases.state_dict()
            phases = Phases(phases._schedule)
            phases.load_state_dict(state)
            phases.on_train_epoch_end(trainer, LightningModule())
    return phases.frozen_epochs


def test_first_phase_ends_at_the_plateau() -> None:
    falling = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2]
    assert ends(falling, 2) == 9
    assert ends([5.0, 4.0, 4.0, 4.5, 1.0, 1.0], 2) == 4
    assert ends([5.0, 4.0, 4.5, 3.0, 3.5, 3.1, 0.1], 2) == 6
    assert ends([5.0, 5.0, 4.0], 1) == 2
    assert ends([5.0] * 9, 0) == 9


def test_plateau_wants_a_first_phase_and_a_split(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match="it ends the first phase, but frozen_epochs is 0"):
        make_recipe(schedule__plateau_epochs=2)
    with pytest.raises(RecipeError, match=r"looks at the validation split, .*val_split is empty"):
        make_recipe(
            schedule__plateau_epochs=2,
            schedule__frozen_epochs=2,
            weights__adopt="f",
            data__val_split="",
        )
