from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from latentset.datasets.errors import TrainingError
from latentset.datasets.store import Store, open_store
from latentset.train.data.split import select_split
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.evaluate import evaluate_checkpoint
from latentset.train.run.fit import fit
from latentset.train.run.teacher import read_logits, write_logits
from tests.makers.synthetic import write_synthetic_store

MakeRecipe = Callable[..., Recipe]


def test_student_learns_from_logits_alone(
    make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path
) -> None:
    teacher = make_recipe(model__width=4, data__crop_scale=[0.5, 1], schedule__epochs=6)
    fit(teacher, tmp_path / "teacher")
    file = tmp_path / "logits.safetensors"
    found = evaluate_checkpoint(tmp_path / "teacher", str(mixed_store.location), logits=file)
    with safe_open(file, framework="pt") as opened:
        logits = opened.get_tensor("logits").float()
    assert logits.shape == (96, 3)
    assert logits[1].isnan().all()  # the sample that has failed
    val = select_split(mixed_store, "val")
    right = logits[val.samples].argmax(dim=1) == torch.from_numpy(val.labels)
    assert right.float().mean().item() == pytest.approx(found.splits["val"].top1)
    # The teacher alone, without a single label: one that says class k + 1 of what is of class k.
    write_logits(file, logits.roll(1, dims=1), mixed_store)
    student = make_recipe(
        data__crop_scale=[0.5, 1],
        distill={"logits": str(file), "weight": 1.0, "temperature": 2.0},
        schedule__epochs=8,
    )
    assert fit(student, tmp_path / "student")["last"]["val_top1"] <= 0.1
    taught, last = tmp_path / "taught.safetensors", tmp_path / "student" / "last.safetensors"
    evaluate_checkpoint(last, str(mixed_store.location), logits=taught)
    with safe_open(taught, framework="pt") as opened:
        answered = opened.get_tensor("logits").float()[val.samples].argmax(dim=1)
    expected = (torch.from_numpy(val.labels) + 1) % 3
    assert (answered == expected).float().mean().item() >= 0.9


def test_the_teacher_is_known_again(
    make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_logits(first, torch.zeros(96, 3), mixed_store)
    write_logits(second, torch.ones(96, 3), mixed_store)
    options = {"schedule__epochs": 2, "schedule__decay_epochs": []}
    run = tmp_path / "run"
    fit(make_recipe(**options, distill__logits=str(first)), run, stop_after=1)
    with pytest.raises(TrainingError, match=r"distill\.logits: .*first -> none"):
        fit(make_recipe(**options), run)
    with pytest.raises(TrainingError, match=r"teacher's logits: sha256 \w{12} -> \w{12}"):
        fit(make_recipe(**options, distill__logits=str(second)), run)
    first.rename(tmp_path / "moved")
    moved = make_recipe(**options, distill__logits=str(tmp_path / "moved"))
    assert fit(moved, run)["epochs"] == 2


def test_logits_of_other_images_are_refused(mixed_store: Store, tmp_path: Path) -> None:
    other = open_store(write_synthetic_store(tmp_path / "s.zarr", classes=("a", "b", "c")))
    write_logits(tmp_path / "f", torch.zeros(24, 3), other)
    train = select_split(mixed_store, "train")
    with pytest.raises(TrainingError, match=r"of other images than .*mixed.zarr"):
        read_logits(tmp_path / "f", mixed_store, train)
    logits = torch.zeros(96, 3)
    logits[train.samples[5]] = float("nan")
    write_logits(tmp_path / "g", logits, mixed_store)
    with pytest.raises(TrainingError, match="no logits of 1 of 47 samples of split 'train'"):
        read_logits(tmp_path / "g", mixed_store, train)
    write_logits(tmp_path / "h", torch.zeros(96, 4), mixed_store)
    with pytest.raises(TrainingError, match=r"expected logits \(96, 3\), got \(96, 4\)"):
        read_logits(tmp_path / "h", mixed_store, train)
    with pytest.raises(TrainingError, match=r"latentset evaluate RUN STORE --logits FILE"):
        read_logits(tmp_path / "absent", mixed_store, train)
