"""Runs that are killed within an epoch end as those that were not."""

import csv
import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from latentset.datasets.errors import TrainingError
from latentset.train.models.fa_cresnet import FACResNet
from latentset.train.recipe.recipe import Device, Recipe
from latentset.train.run import loop
from latentset.train.run.checkpoint import save_state
from latentset.train.run.epochs import Progress
from latentset.train.run.fit import fit
from latentset.train.run.run_files import read_result
from tests.makers.ranks import start_ranks
from tests.makers.runs import read_progress

MakeRecipe = Callable[..., Recipe]
TIMED = ("seconds", "samples_per_s")


def make(make_recipe: MakeRecipe, **changes: Any) -> Recipe:
    """23 steps of two samples an epoch; the state is saved after every second one."""
    options = {"data__batch_size": 2, "schedule__epochs": 2, "schedule__decay_epochs": []}
    return make_recipe(**options, device__save_steps=2, **changes)


def seldom_saved(recipe: Recipe) -> Recipe:
    """The same run, its state saved after each epoch alone."""
    return recipe.model_copy(update={"device": Device(accelerator="cpu")})


def figures(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [
            {name: row[name] for name in row if name not in TIMED} for row in csv.DictReader(file)
        ]


def kill_after(saves: int, recipe: Recipe, run: Path) -> None:
    """Start a run and kill it when its state has been saved so many times, within an epoch."""
    state, seen, last = run / "resume.safetensors", 0, 0
    (process,) = start_ranks(recipe, run, 1)
    while seen < saves and process.is_alive():
        time.sleep(0.001)
        now = state.stat().st_mtime_ns if state.exists() else 0
        seen, last = seen + (now != last), now
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert 0 < read_progress(state).batches < 23


def assert_equal(run: Path, whole: Path) -> None:
    assert figures(run) == figures(whole)
    ours, theirs = (load_file(folder / "last.safetensors") for folder in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    one, other = (read_result(folder) for folder in (run, whole))
    for result in (one, other):
        for row in (result, result["best"], result["last"]):
            for name in TIMED:
                row.pop(name, None)
    assert json.dumps(one) == json.dumps(other)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_within_an_epoch(make_recipe: MakeRecipe, tmp_path: Path, seed: int) -> None:
    recipe = make(make_recipe, schedule__ema_decay=0.9, schedule__mixup=0.4)
    fit(seldom_saved(recipe), tmp_path / "whole")
    # Each epoch is saved after steps 2, 4, … 22, and at its end.
    saves = random.Random(seed).choice([k for k in range(1, 24) if k not in (12, 24)])
    kill_after(saves, recipe, tmp_path / "run")
    fit(seldom_saved(recipe), tmp_path / "run")
    assert_equal(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_an_epoch_loses_no_step(
    make_recipe: MakeRecipe, tmp_path: Path, number: signal.Signals
) -> None:
    recipe = make(make_recipe, schedule__ema_decay=0.9, schedule__accumulate=2)
    recipe = seldom_saved(recipe)
    fit(recipe, tmp_path / "whole")
    seen = 0

    def press(module: nn.Module, inputs: Any) -> None:
        nonlocal seen
        if isinstance(module, FACResNet) and module.training:
            seen += 1
            if seen == 9:  # the first of two micro-batches of the fifth step
                signal.raise_signal(number)

    handle = register_module_forward_pre_hook(press)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, tmp_path / "run")
    finally:
        handle.remove()
    assert read_progress(tmp_path / "run" / "resume.safetensors").batches == 10
    fit(recipe, tmp_path / "run")
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_the_state_is_saved_between_steps(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(path: Path, classifier: Any, optimizer: Any, progress: Progress) -> None:
        seen.append(progress.batches)
        save_state(path, classifier, optimizer, progress)

    monkeypatch.setattr(loop, "save_state", look)
    options = {"data__batch_size": 4, "schedule__epochs": 1, "schedule__decay_epochs": []}
    fit(make_recipe(**options, schedule__accumulate=2, device__save_steps=3), tmp_path / "run")
    assert seen == [6, 12, 18, 0]  # micro-batches: 11 steps of two; 0 at the end of the epoch


def test_the_best_epoch_is_remembered(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    # Of three epochs the second is the best; a run that goes on after it knows.
    recipe = make_recipe(schedule__epochs=3, data__test_split="test")
    run = tmp_path / "run"
    fit(recipe, run, stop_after=2)
    with safe_open(run / "resume.safetensors", framework="pt") as file:
        progress = json.loads(file.metadata()["progress"])
    progress["rows"][1]["val_top1"] = progress["best"]["val_top1"] = 1.0
    progress["best"]["epoch"] = 2
    tensors, texts = load_file(run / "resume.safetensors"), {"progress": json.dumps(progress)}
    save_file(tensors, run / "resume.safetensors", metadata=texts)
    best = (run / "best.safetensors").read_bytes()
    assert fit(recipe, run)["best"]["epoch"] == 2
    assert (run / "best.safetensors").read_bytes() == best


def test_killed_in_the_frozen_phase(
    make_recipe: MakeRecipe, resnet_file: Path, tmp_path: Path
) -> None:
    # What is frozen is no part of the weights: it must be set again, also within an epoch.
    recipe = make(make_recipe, weights__adopt=str(resnet_file), schedule__frozen_epochs=1)
    fit(seldom_saved(recipe), tmp_path / "whole")
    kill_after(4, recipe, tmp_path / "run")
    resnet_file.unlink()  # its weights are in the state
    fit(seldom_saved(recipe), tmp_path / "run")
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_the_state_of_another_network(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run, wider = tmp_path / "run", tmp_path / "wider"
    fit(make(make_recipe), run, stop_after=1)
    fit(make(make_recipe, model__width=4), wider, stop_after=1)
    before = (run / "last.safetensors").read_bytes()
    (run / "resume.safetensors").write_bytes((wider / "resume.safetensors").read_bytes())
    with pytest.raises(TrainingError, match=r"of another network; .* \d+ differ in .*remove it"):
        fit(make(make_recipe), run)
    assert (run / "last.safetensors").read_bytes() == before
    (run / "resume.safetensors").unlink()
    fit(make(make_recipe), run)
    fit(make(make_recipe), tmp_path / "whole")
    assert_equal(run, tmp_path / "whole")


def test_why_a_run_of_another_version_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(make(make_recipe), run, stop_after=1)
    start = json.loads((run / "recipe.json").read_text())
    start["recipe"]["schedule"]["epochs"] = "many"
    (run / "recipe.json").write_text(json.dumps(start))
    with pytest.raises(TrainingError, match=r"recipe.json cannot be read") as caught:
        fit(make(make_recipe), run)
    message = str(caught.value)
    assert "recipe.schedule.epochs: Input should be a valid integer" in message
    assert "got 'many'" in message
    assert "pydantic" not in message
