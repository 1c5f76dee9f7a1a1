"""A run that is given more epochs ends as one that had them from the start."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from latentset.datasets.errors import TrainingError
from latentset.datasets.store import Store
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.evaluate import evaluate_checkpoint
from latentset.train.run.fit import fit
from latentset.train.run.run_files import RESULT, RESUME, lock_run, read_result
from tests.makers.ranks import start_ranks
from tests.makers.runs import figures

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def make(make_recipe: MakeRecipe) -> MakeRecipe:
    def with_epochs(epochs: int, *decay_epochs: int, **changes: Any) -> Recipe:
        fields = {"schedule__epochs": epochs, "schedule__decay_epochs": list(decay_epochs)}
        return make_recipe(**fields, data__test_split="test", **changes)

    return with_epochs


def assert_equal(run: Path, whole: Path) -> None:
    assert figures(run) == figures(whole)
    ours, theirs = (load_file(folder / "last.safetensors") for folder in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    one, other = (read_result(folder) for folder in (run, whole))
    for name in ("epochs", "test", "checkpoint"):
        assert one[name] == other[name]
    assert one["best"]["epoch"] == other["best"]["epoch"]


@pytest.mark.parametrize("stop_after", [None, 1])
def test_more_epochs(make: MakeRecipe, tmp_path: Path, stop_after: int | None) -> None:
    run, longer = tmp_path / "run", make(4, 1, 3)
    fit(make(2, 1), run, stop_after=stop_after)
    assert fit(longer, run)["epochs"] == 4
    fit(longer, tmp_path / "whole")
    assert_equal(run, tmp_path / "whole")
    assert fit(longer, run) == read_result(run)  # finished: nothing to do


def test_a_kill_between_the_two_steps_of_the_change(make: MakeRecipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(make(2), run)
    (run / RESULT).unlink()
    assert fit(make(3), run)["epochs"] == 3


def test_several_processes(make: MakeRecipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(make(1), run)
    processes = start_ranks(make(2), run, 2)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (read_result(run)["epochs"], read_result(run)["processes"]) == (2, 2)


def test_a_teacher_is_read_again(make: MakeRecipe, mixed_store: Store, tmp_path: Path) -> None:
    logits, store = tmp_path / "teacher.safetensors", str(mixed_store.location)
    fit(make(1), tmp_path / "teacher")
    evaluate_checkpoint(tmp_path / "teacher", store, logits=logits)
    fit(make(1, distill__logits=str(logits)), tmp_path / "run")
    longer = make(2, distill__logits=str(logits))
    fit(longer, tmp_path / "run")
    fit(longer, tmp_path / "whole")
    assert_equal(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("schedule", "changes", "message"),
    [
        ((4, 1), {}, "other learning rates: 0.05 in epoch 2, which schedule.decay_epochs=[1] "),
        ((1,), {}, "has trained 2 epochs, more than schedule.epochs=1"),
        ((4,), {"seed": 1}, "other settings:\n  seed: 0 -> 1\n"),
    ],
)
def test_what_would_be_another_run_is_refused(
    make: MakeRecipe,
    tmp_path: Path,
    schedule: tuple[int, ...],
    changes: dict[str, Any],
    message: str,
) -> None:
    run = tmp_path / "run"
    fit(make(2), run)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(TrainingError, match=re.escape(message)):
        fit(make(*schedule, **changes), run)
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before


def test_without_its_state_or_lock_a_run_gets_no_epochs(make: MakeRecipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(make(1), run)
    with lock_run(run), pytest.raises(TrainingError, match="is being trained by another process"):
        fit(make(2), run)
    (run / RESUME).unlink()
    with pytest.raises(TrainingError, match=r"it has no resume\.safetensors"):
        fit(make(2), run)
    assert fit(make(1), run)["epochs"] == 1  # finished
