"""Several processes, started by torchrun, learn what one learns from the same batches."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from latentset.datasets.errors import RecipeError
from latentset.datasets.store import Store
from latentset.train.recipe.recipe import Recipe
from latentset.train.recipe.recipe_file import toml_text
from latentset.train.run.evaluate import evaluate_checkpoint
from latentset.train.run.fit import fit
from latentset.train.run.run_files import read_result
from latentset.train.run.world import World
from tests.makers.ranks import start_ranks
from tests.makers.runs import read_progress
from tests.makers.synthetic import write_synthetic_pixels, write_synthetic_store

MakeRecipe = Callable[..., Recipe]
MAIN = "from latentset.cli.main import main; main()"


ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def torchrun(recipe: Recipe, run: Path, ranks: int) -> str:
    """Train a recipe in several processes, started by torchrun and the command line."""
    text, main = run.with_suffix(".toml"), run.with_suffix(".py")
    text.write_text(toml_text(recipe.model_dump(exclude_none=True)))
    main.write_text(MAIN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", str(main), "train", str(text), "--out", str(run)]
    done = subprocess.run(
        command, env=ONE_THREAD, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def train_together(recipe: Recipe, run: Path, ranks: int) -> str:
    processes = start_ranks(recipe, run, ranks)
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    return "".join(run.with_suffix(f".{rank}").read_text() for rank in range(ranks))


def column(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_two_processes_learn_what_one_does(
    make_recipe: MakeRecipe, mixed_store: Store, resnet_file: Path, tmp_path: Path
) -> None:
    # Batch norm sees a process's share; so the one process divides each batch in two as well.
    options = {
        "weights__adopt": str(resnet_file),
        "schedule__epochs": 3,
        "schedule__frozen_epochs": 1,
        "schedule__decay_epochs": [],
        "data__test_split": "test",
    }
    fit(make_recipe(**options, schedule__accumulate=2), tmp_path / "one")
    said = torchrun(make_recipe(**options), tmp_path / "two", 2)
    assert said.count("2 processes") == said.count("epoch 3/3") == said.count("test, best") == 1
    one, two = tmp_path / "one", tmp_path / "two"
    assert column(two, "train_loss") == pytest.approx(column(one, "train_loss"), rel=1e-4)
    assert column(two, "train_top1") == column(one, "train_top1")
    ours, theirs = (load_file(run / "last.safetensors") for run in (two, one))
    for name in theirs:
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)
    # What both processes validated together is what one finds.
    found = evaluate_checkpoint(two / "last.safetensors", str(mixed_store.location), splits=["val"])
    assert column(two, "val_loss")[-1] == pytest.approx(found.splits["val"].loss, rel=1e-5)
    assert column(two, "val_top1")[-1] == pytest.approx(found.splits["val"].top1)
    assert read_result(two)["test"]["samples"] == 24
    assert [read_result(run)["processes"] for run in (one, two)] == [1, 2]


def test_where_statistics_stand_still_two_are_one_with_the_whole_batch(
    make_recipe: MakeRecipe, resnet_file: Path, tmp_path: Path
) -> None:
    # All but fc is adopted and frozen, with batch norm: nothing depends on how a batch is shared.
    store = write_synthetic_pixels(
        tmp_path / "pixels.zarr",
        samples=96,
        classes=("glass", "metal", "paper"),
        splits=("train", "train", "val", "test"),
    )
    recipe = make_recipe(
        model={"kind": "resnet", "depths": [1, 1, 1, 1], "width": 2},
        data={"store": str(store), "batch_size": 8, "size": 16, "resize": 20, "flip": True},
        weights={"adopt": str(resnet_file), "leave_out": ["fc"]},
        schedule__epochs=3,
        schedule__frozen_epochs=3,
        schedule__decay_epochs=[2],
    )
    fit(recipe, tmp_path / "one")
    train_together(recipe, tmp_path / "two", 2)
    one, two = tmp_path / "one", tmp_path / "two"
    for name in ("train_loss", "train_top1", "val_loss", "val_top1"):
        assert column(two, name) == pytest.approx(column(one, name), rel=1e-5), name
    assert column(one, "train_loss")[0] > column(one, "train_loss")[2]
    ours, theirs = (load_file(run / "last.safetensors") for run in (two, one))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


def is_within_an_epoch(state: Path) -> bool:
    """Whether a run's state was saved last in the first half of an epoch, not the first epoch."""
    if not state.exists():
        return False
    progress = read_progress(state)
    return bool(progress.rows) and 0 < progress.batches < 12


def test_killed_together_they_go_on(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    # 23 steps an epoch; the state is saved after every second one. Killed in the first half of the
    # second or third epoch.
    options = {"data__batch_size": 2, "schedule__epochs": 3, "schedule__decay_epochs": []}
    seldom = make_recipe(**options, schedule__ema_decay=0.9)
    recipe = make_recipe(**options, schedule__ema_decay=0.9, device__save_steps=2)
    run, whole = tmp_path / "run", tmp_path / "whole"
    state = run / "resume.safetensors"
    processes, stopped = start_ranks(recipe, run, 2), False
    pids = [process.pid or 0 for process in processes]
    while not (stopped and is_within_an_epoch(state)):
        for pid in pids if stopped else ():  # too late: the next epoch
            os.kill(pid, signal.SIGCONT)
        while not is_within_an_epoch(state):
            alive = all(process.is_alive() for process in processes)
            assert alive, "it ended before it could be killed"
            time.sleep(0.001)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        stopped = True
    for process in processes:
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert "resuming where it stopped" in train_together(seldom, run, 2)
    train_together(seldom, whole, 2)
    ours, theirs = (load_file(folder / "last.safetensors") for folder in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert column(run, "val_loss") == column(whole, "val_loss")
    # Also those of the epoch that was resumed, which are sums over both processes.
    for name in ("train_loss", "train_top1"):
        assert column(run, name) == pytest.approx(column(whole, name), rel=1e-12)


def test_last_batch_smaller_than_the_number_of_processes(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    # 23 samples to validate in batches of 22: the last is one sample, for two processes.
    store = write_synthetic_store(
        tmp_path / "s.zarr",
        samples=96,
        classes=("glass", "metal", "paper"),
        splits=("train", "train", "val", "test"),
        failed=(6,),
    )
    options = {"schedule__epochs": 1, "schedule__decay_epochs": []}
    recipe = make_recipe(
        **options, data={"store": str(store), "batch_size": 22, "size": 4, "val_split": "val"}
    )
    train_together(recipe, tmp_path / "two", 2)
    found = evaluate_checkpoint(tmp_path / "two", store, splits=["val"]).splits["val"]
    assert found.samples == 23
    assert column(tmp_path / "two", "val_loss") == [pytest.approx(found.loss, rel=1e-5)]
    assert column(tmp_path / "two", "val_top1") == [pytest.approx(found.top1)]


def test_torchrun_says_which_of_them_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert World.from_environment() == World(0, 1, 0)
    # The second of two processes of the third of three machines.
    of_torchrun = {"WORLD_SIZE": 6, "RANK": 5, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}
    for name, value in of_torchrun.items():
        monkeypatch.setenv(name, str(value))
    assert World.from_environment() == World(rank=5, world_size=6, local_rank=1)


def test_micro_batches_are_divided_evenly(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(schedule__accumulate=2)
    World(0, 4).check(recipe)
    with pytest.raises(RecipeError, match=r"multiple of 6 \(3 processes, .*=2\), got 8"):
        World(0, 3).check(recipe)
    with pytest.raises(RecipeError, match=r"expected a divisor of data.batch_size \(8\), got 3"):
        make_recipe(schedule__accumulate=3)


def test_a_micro_batch_of_one_sample_has_nothing_to_mix(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(schedule__accumulate=2, schedule__mixup=0.2)
    World(0, 2).check(recipe)
    with pytest.raises(RecipeError, match=r"schedule\.mixup: .* each of 8 micro-batches, got 1"):
        World(0, 4).check(recipe)


def test_batch_norm_in_step_wants_gpus(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(device={"accelerator": "cpu", "sync_batchnorm": True})
    with pytest.raises(RecipeError, match="PyTorch has it for GPUs only"):
        fit(recipe, tmp_path / "run")
