import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from latentset.datasets.store import Store
from latentset.train.data.split import select_split
from latentset.train.models.build import build_network
from latentset.train.models.fa_cresnet import FACResNet
from latentset.train.recipe.recipe import Distill, Recipe, resolve
from latentset.train.run.classifier import Classifier, open_reader
from latentset.train.run.fit import fit
from latentset.train.run.loop import compute_loss
from latentset.train.run.loss import classification_loss, mix, mixup_weight

MakeRecipe = Callable[..., Recipe]
LOGITS = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])  # 1/4, 3/4 and 4/5, 1/5
LABELS = torch.tensor([1, 1])


def test_cross_entropy() -> None:
    loss = classification_loss(LOGITS, LABELS)
    assert loss.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 5)) / 2)


def test_label_smoothing() -> None:
    # 0.2 spread over two classes: 0.9 of the label's, 0.1 of the other's.
    loss = classification_loss(LOGITS, LABELS, label_smoothing=0.2)
    first = 0.9 * math.log(3 / 4) + 0.1 * math.log(1 / 4)
    second = 0.9 * math.log(1 / 5) + 0.1 * math.log(4 / 5)
    assert loss.item() == pytest.approx(-(first + second) / 2)


def test_mixup_mixes_labels_as_inputs() -> None:
    values = torch.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]])
    expected = torch.tensor([[2.0, 20.0], [2.5, 25.0], [4.5, 45.0]])
    assert torch.allclose(mix(values, 0.75), expected)
    # The first keeps 3/4 of class 1 and takes 1/4 of class 0, the second the other way round.
    loss = classification_loss(LOGITS, torch.tensor([1, 0]), weight=0.75)
    first = 0.75 * math.log(3 / 4) + 0.25 * math.log(1 / 4)
    second = 0.75 * math.log(4 / 5) + 0.25 * math.log(1 / 5)
    assert loss.item() == pytest.approx(-(first + second) / 2)


def test_labels_are_mixed_with_those_of_the_inputs_before_and_smoothed() -> None:
    # Of three, so that the one before is not the one after; logits of 0 but one class each.
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    e = math.exp(2)
    right, wrong = math.log(e / (e + 2)), math.log(1 / (e + 2))
    for label_smoothing, of_label in ((0.0, 1.0), (0.3, 0.8)):  # 0.3 / 3 for each class
        rest = (1 - of_label) / 2
        loss = classification_loss(
            logits, torch.tensor([0, 0, 1]), weight=0.75, label_smoothing=label_smoothing
        )
        # Their labels: 3/4 of 0 and 1/4 of 1; of 0 alone; 3/4 of 1 and 1/4 of 0.
        shares = [(0.75, 0.25, 0.0), (1.0, 0.0, 0.0), (0.25, 0.75, 0.0)]
        expected = 0.0
        for k, labels in enumerate(shares):
            for cls, share in enumerate(labels):
                target = share * of_label + (1 - share) * rest
                expected -= target * (right if cls == k else wrong)
        assert loss.item() == pytest.approx(expected / 3)


def test_a_training_step_mixes_all_inputs_and_labels(
    make_recipe: MakeRecipe, mixed_store: Store
) -> None:
    options = {"schedule__mixup": 1.0, "schedule__label_smoothing": 0.1}
    recipe = resolve(make_recipe(**options), mixed_store.header, "here")
    module = Classifier(build_network(recipe.model), recipe, mixed_store.header).train()
    split = select_split(mixed_store, "train")
    reader = open_reader(mixed_store, split, recipe, training=True)
    shares = set()
    for batch in reader.batches(0):
        share = mixup_weight(1.0, seed=0, epoch=0, sample=int(batch.samples[0]))
        shares.add(share)
        mixed = []
        for values in module.input(batch):
            before = torch.cat([values[-1:], values[:-1]])
            mixed.append(share * values + (1 - share) * before)
        expected = classification_loss(
            module.network(*mixed), batch.labels, label_smoothing=0.1, weight=share
        )
        loss, _ = compute_loss(module, module.network, batch, 0)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert len(shares) == 5


def test_mixup_shares_are_of_the_beta_distribution() -> None:
    shares = np.array([mixup_weight(0.4, seed=3, epoch=1, sample=k) for k in range(4000)])
    assert shares.min() >= 0.5
    assert shares.max() <= 1
    # E|2 x - 1|^2 of Beta(a, a) is 1 / (2 a + 1); five standard errors.
    square = (2 * shares - 1) ** 2
    assert square.mean() == pytest.approx(1 / 1.8, abs=5 * square.std() / math.sqrt(4000))
    assert shares[7] == mixup_weight(0.4, seed=3, epoch=1, sample=7)
    assert shares[7] != mixup_weight(0.4, seed=3, epoch=2, sample=7)


def test_teacher() -> None:
    teacher = torch.tensor([[math.log(16.0), 0.0], [0.0, 0.0]])
    loss = classification_loss(
        LOGITS, LABELS, teacher=teacher, distill=Distill(logits="f", weight=0.25, temperature=2)
    )
    # At temperature 2 the teacher says 4/5, 1/5 and 1/2, 1/2; the student's odds are square roots.
    student = [1 / (1 + math.sqrt(3)), 2 / 3]
    divergence = sum(
        p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        for p, q in zip((4 / 5, 1 / 2), student, strict=True)
    )
    hard = -(math.log(3 / 4) + math.log(1 / 5)) / 2
    assert loss.item() == pytest.approx(0.75 * hard + 0.25 * 4 * divergence / 2)


def test_mixup_mixes_the_teachers_answers() -> None:
    teacher = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])  # 3/4, 1/4 and 1/2, 1/2
    loss = classification_loss(
        LOGITS,
        LABELS,
        weight=0.75,
        teacher=teacher,
        distill=Distill(logits="f", weight=1.0, temperature=1),
    )
    # 3/4 of its own and 1/4 of the other's: 11/16, 5/16 and 9/16, 7/16.
    pairs = (((11 / 16, 5 / 16), (1 / 4, 3 / 4)), ((9 / 16, 7 / 16), (4 / 5, 1 / 5)))
    divergence = sum(
        p * math.log(p / q) for wanted, said in pairs for p, q in zip(wanted, said, strict=True)
    )
    assert loss.item() == pytest.approx(divergence / 2)


def test_moving_average_is_what_is_kept(
    make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path
) -> None:
    recipe = resolve(make_recipe(schedule__ema_decay=0.75), mixed_store.header, "here")
    module = Classifier(build_network(recipe.model), recipe, mixed_store.header)
    assert module.average is not None
    with torch.no_grad():
        for value in (0.0, 4.0, 8.0):
            module.network.get_parameter("fc.bias").fill_(value)
            module.average.update_parameters(module.network)
    # The first is taken as it is; then 3/4 of the old and 1/4 of the new.
    assert module.evaluated.get_parameter("fc.bias").tolist() == pytest.approx([2.75] * 3)
    # Batch norm's statistics as well, but counters are no quantities to average.
    with torch.no_grad():
        mean = module.network.get_buffer("layer3.0.bn1.running_mean")
        averaged = module.evaluated.get_buffer("layer3.0.bn1.running_mean")
        mean.fill_(8)
        averaged.fill_(4)
    module.average.update_parameters(module.network)
    assert set(averaged.tolist()) == {5.0}
    counter = "layer3.0.bn1.num_batches_tracked"
    module.network.get_buffer(counter).fill_(7)
    module.average.update_parameters(module.network)
    module.average.update_parameters(module.network)
    assert module.evaluated.get_buffer(counter).item() == 7
    # It follows the training and does not change it; one that forgets at once is the weights.
    plain = fit(make_recipe(), tmp_path / "plain")["last"]
    slow = fit(make_recipe(schedule__ema_decay=0.75), tmp_path / "slow")["last"]
    quick = fit(make_recipe(schedule__ema_decay=1e-6), tmp_path / "quick")["last"]
    assert slow["train_loss"] == quick["train_loss"] == plain["train_loss"]
    assert slow["val_loss"] != plain["val_loss"]
    assert quick["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-3)


def test_the_optimiser_is_the_recipes(make_recipe: MakeRecipe, mixed_store: Store) -> None:
    options = {"momentum": 0.5, "weight_decay": 0.01, "adopted_learning_rate": 0.002}
    changes = {f"schedule__{name}": value for name, value in options.items()}
    recipe = resolve(make_recipe(**changes), mixed_store.header, "here")
    module = Classifier(build_network(recipe.model), recipe, mixed_store.header)
    optimiser = module.optimizer()
    assert type(optimiser) is torch.optim.SGD
    said = [
        (group["name"], group["lr"], group["momentum"], group["weight_decay"], group["nesterov"])
        for group in optimiser.param_groups
    ]
    assert said == [("new", 0.05, 0.5, 0.01, False), ("adopted", 0.002, 0.5, 0.01, False)]


def test_options_reach_the_training(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    options = {"schedule__epochs": 1, "schedule__decay_epochs": []}
    plain = fit(make_recipe(**options), tmp_path / "plain")["last"]
    for name, value in (("label_smoothing", 0.3), ("mixup", 1.0)):
        changed = fit(make_recipe(**options, **{f"schedule__{name}": value}), tmp_path / name)
        assert changed["last"]["train_loss"] != plain["train_loss"]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_mixup_mixes_inputs_in_training_alone(
    make_recipe: MakeRecipe, tmp_path: Path, alpha: float
) -> None:
    # y_hat are whole numbers, and mixtures of them are not.
    whole: dict[bool, list[bool]] = {True: [], False: []}

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, FACResNet):
            whole[module.training].append(bool((inputs[0] == inputs[0].round()).all()))

    recipe = make_recipe(schedule__epochs=1, schedule__decay_epochs=[], schedule__mixup=alpha)
    handle = register_module_forward_pre_hook(look)
    try:
        fit(recipe, tmp_path / "run")
    finally:
        handle.remove()
    assert len(whole[True]) == 5
    assert set(whole[True]) == {alpha == 0}
    assert set(whole[False]) == {True}


@pytest.mark.parametrize("wanted", [False, True])
def test_deterministic_mode(make_recipe: MakeRecipe, tmp_path: Path, wanted: bool) -> None:
    seen = set()

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.add(torch.are_deterministic_algorithms_enabled())

    recipe = make_recipe(
        schedule__epochs=1,
        schedule__decay_epochs=[],
        device={"accelerator": "cpu", "deterministic": wanted},
    )
    handle = register_module_forward_pre_hook(look)
    try:
        fit(recipe, tmp_path / "run")
    finally:
        handle.remove()
        torch.use_deterministic_algorithms(False)
    assert seen == {wanted}
