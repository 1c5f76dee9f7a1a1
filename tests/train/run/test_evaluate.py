from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentset.datasets.errors import RecipeError, TrainingError
from latentset.datasets.store import Store, open_store
from latentset.train.models.build import build_network
from latentset.train.recipe.recipe import Recipe, resolve
from latentset.train.run import evaluate
from latentset.train.run.checkpoint import Record, StoreRecord, load_weights, save_weights
from latentset.train.run.evaluate import (
    compare_stores,
    evaluate_checkpoint,
    evaluate_split,
    load_classifier,
)
from tests.makers.synthetic import write_synthetic_store

MakeRecipe = Callable[..., Recipe]
BIAS = (0.0, 2.0, 1.0)


@pytest.fixture
def constant(make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path) -> Path:
    """Weights of a network that answers metal, then paper, then glass, whatever it sees."""
    recipe = resolve(make_recipe(), mixed_store.header, "here")
    network = build_network(recipe.model)
    with torch.no_grad():
        network.fc.weight.zero_()
        network.fc.bias.copy_(torch.tensor(BIAS))
    record = Record(recipe=recipe, store=StoreRecord.of(mixed_store), epoch=1, metrics={})
    save_weights(tmp_path / "last.safetensors", network.state_dict(), record)
    return tmp_path


def test_figures_are_those_worked_out_by_hand(constant: Path, mixed_store: Store) -> None:
    found = evaluate_checkpoint(constant, Path(str(mixed_store.location)))
    # Labels go round; of the 16 metal samples in train one has failed.
    assert list(found.splits) == ["train", "val", "test"]
    assert [found.splits[name].samples for name in found.splits] == [47, 24, 24]
    assert found.splits["train"].top1 == pytest.approx(15 / 47)
    assert found.splits["val"].top1 == pytest.approx(8 / 24)
    assert found.splits["val"].top5 == 1
    # Cross entropy: ln(e^0 + e^2 + e^1) less the mean of the biases.
    assert found.splits["val"].loss == pytest.approx(2.407606 - 1.0, abs=1e-5)
    assert found.splits["val"].per_class == {"glass": 0, "metal": 1, "paper": 0}
    assert found.checkpoint == str(constant / "last.safetensors")
    assert found.crop == "whole"
    assert found.notes == ()


def test_loss_is_the_mean_over_samples(
    make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path
) -> None:
    # 24 samples in batches of 7: the last has 3, and they count no more than others.
    recipe = resolve(make_recipe(data__batch_size=7), mixed_store.header, "here")
    network = build_network(recipe.model)
    record = Record(recipe=recipe, store=StoreRecord.of(mixed_store), epoch=1, metrics={})
    save_weights(tmp_path / "w.safetensors", network.state_dict(), record)
    module, *_ = load_classifier(tmp_path / "w.safetensors", str(mixed_store.location))
    logits = torch.empty(mixed_store.samples.num_rows, 3)
    found = evaluate_split(module, recipe, mixed_store, "val", logits)
    labels = found.samples % 3  # classes go round
    chosen = logits[found.samples].double().log_softmax(dim=1)[torch.arange(24), labels]
    assert found.figures.loss == pytest.approx(-chosen.mean().item(), rel=1e-5)


def test_confusion_matrix_is_that_worked_out_by_hand(
    constant: Path, mixed_store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "confusion.csv"
    evaluate_checkpoint(
        constant, str(mixed_store.location), splits=["train", "val"], confusion=file
    )
    # 16, 15 and 16 samples in train, 8 of each in val; all are taken for metal.
    assert file.read_text().splitlines() == [
        "true \\ predicted,glass,metal,paper",
        "glass,0,24,0",
        "metal,0,23,0",
        "paper,0,24,0",
    ]


def test_class_without_samples_has_no_accuracy(
    make_recipe: MakeRecipe, mixed_store: Store, constant: Path, tmp_path: Path
) -> None:
    store = write_synthetic_store(
        tmp_path / "s.zarr", samples=2, classes=("glass", "metal", "paper"), splits=("val",)
    )
    found = evaluate_checkpoint(constant, store).splits["val"]
    assert found.per_class == {"glass": 0, "metal": 1, "paper": None}


def test_central_crop_and_full_grid(
    make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path
) -> None:
    recipe = resolve(make_recipe(data__eval_share=0.5), mixed_store.header, "here")
    network = build_network(recipe.model)
    torch.manual_seed(5)
    record = Record(recipe=recipe, store=StoreRecord.of(mixed_store), epoch=1, metrics={})
    save_weights(tmp_path / "w.safetensors", network.state_dict(), record)
    where = str(mixed_store.location)
    whole = evaluate_checkpoint(tmp_path / "w.safetensors", where, crop="whole")
    central = evaluate_checkpoint(tmp_path / "w.safetensors", where, crop="central")
    assert (whole.crop, central.crop) == ("whole", "central")
    assert whole.splits["val"].loss != central.splits["val"].loss
    assert whole.splits == evaluate_checkpoint(tmp_path / "w.safetensors", where).splits
    # The share is the recipe's: of a larger square the network answers otherwise.
    larger = recipe.model_copy(update={"data": recipe.data.model_copy(update={"eval_share": 1})})
    save_weights(
        tmp_path / "l.safetensors",
        network.state_dict(),
        record.model_copy(update={"recipe": larger}),
    )
    other = evaluate_checkpoint(tmp_path / "l.safetensors", where, crop="central")
    assert other.splits["val"].loss != central.splits["val"].loss


def test_top5_of_more_classes(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = write_synthetic_store(
        tmp_path / "ten.zarr", samples=40, classes=[f"c{k}" for k in range(10)], splits=("val",)
    )
    store = open_store(path)
    recipe = resolve(make_recipe(), store.header, "here")
    network = build_network(recipe.model)
    with torch.no_grad():
        network.fc.weight.zero_()
        network.fc.bias.copy_(torch.arange(10.0))
    record = Record(recipe=recipe, store=StoreRecord.of(store), epoch=1, metrics={})
    save_weights(tmp_path / "w.safetensors", network.state_dict(), record)
    found = evaluate_checkpoint(tmp_path / "w.safetensors", path).splits["val"]
    assert found.top1 == pytest.approx(0.1)
    assert found.top5 == pytest.approx(0.5)


def test_store_of_another_codec_is_refused(mixed_store: Store) -> None:
    trained = StoreRecord.of(mixed_store)
    given = trained.model_copy(update={"codec": "other", "codec_sha256": "0" * 64})
    with pytest.raises(TrainingError, match=r"expected synthetic .*, got other .*Encode the"):
        compare_stores(trained, given, "here", of_pixels=False)


def test_store_of_other_classes_is_refused(constant: Path, tmp_path: Path) -> None:
    store = write_synthetic_store(tmp_path / "s.zarr", classes=("glass", "paper", "tin"))
    message = (
        r"expected 3 \(glass, metal, paper\), or some of them, "
        r"got 3 \(glass, paper, tin\): 'tin' is none of them"
    )
    with pytest.raises(TrainingError, match=message):
        evaluate_checkpoint(constant, store)


def test_a_store_of_some_of_the_classes(constant: Path, tmp_path: Path) -> None:
    store = write_synthetic_store(
        tmp_path / "s.zarr", samples=8, classes=("paper", "metal"), splits=("",)
    )
    matrix, logits = tmp_path / "matrix.csv", tmp_path / "logits.safetensors"
    found = evaluate_checkpoint(constant, store, confusion=matrix, logits=logits)
    assert found.splits[""].per_class == {"glass": None, "metal": 1, "paper": 0}
    assert found.splits[""].top1 == 0.5
    assert matrix.read_text().splitlines()[1:] == ["glass,0,0,0", "metal,0,4,0", "paper,0,4,0"]
    assert found.notes[-1] == "the classes are those of the run, the store's are 2 (paper, metal)"


def test_a_loss_that_is_not_finite(constant: Path, mixed_store: Store) -> None:
    tensors, record = load_weights(constant / "last.safetensors")
    name = next(name for name in tensors if name.endswith("running_var"))
    tensors[name][:] = -1
    save_weights(constant / "last.safetensors", tensors, record)
    with pytest.raises(TrainingError, match="the loss is nan: the network gives values that"):
        evaluate_checkpoint(constant, Path(str(mixed_store.location)))


def test_another_store_is_used_and_noted(constant: Path, tmp_path: Path) -> None:
    store = write_synthetic_store(
        tmp_path / "s.zarr", samples=9, classes=("glass", "metal", "paper"), splits=("",)
    )
    found = evaluate_checkpoint(constant, store)
    assert found.splits[""].samples == 9
    assert found.notes == (
        "not the store that the network was trained from (same codec and classes)",
    )


def test_another_resize_rule_is_noted(mixed_store: Store) -> None:
    trained = StoreRecord.of(mixed_store)
    given = trained.model_copy(update={"resize": "short:256"})
    assert compare_stores(trained, given, "here", of_pixels=False) == (
        "resize rule: trained with none, this store has short:256",
    )


def test_empty_split_is_refused(constant: Path, mixed_store: Store) -> None:
    with pytest.raises(RecipeError, match="empty split: expected samples of split 'dev'"):
        evaluate_checkpoint(constant, Path(str(mixed_store.location)), splits=["dev"])


def test_folder_without_weights(tmp_path: Path, mixed_store: Store) -> None:
    with pytest.raises(TrainingError, match=r"no weights at .*last\.safetensors"):
        evaluate_checkpoint(tmp_path, Path(str(mixed_store.location)))


def test_altered_weights_are_refused(constant: Path, mixed_store: Store, tmp_path: Path) -> None:
    tensors, record = load_weights(constant / "last.safetensors")
    tensors.pop(next(iter(tensors)))
    save_weights(tmp_path / "altered.safetensors", tensors, record)
    with pytest.raises(TrainingError, match="not those of the network in its own record"):
        evaluate_checkpoint(tmp_path / "altered.safetensors", Path(str(mixed_store.location)))


def test_a_record_without_a_name_for_each_class(constant: Path, mixed_store: Store) -> None:
    tensors, record = load_weights(constant / "last.safetensors")
    few = record.store.model_copy(update={"classes": ("glass", "metal")})
    save_weights(constant / "few.safetensors", tensors, record.model_copy(update={"store": few}))
    with pytest.raises(TrainingError, match="got 2 names of 3 classes"):
        evaluate_checkpoint(constant / "few.safetensors", str(mixed_store.location))


def test_a_confusion_matrix_of_many_classes_is_refused(
    constant: Path, mixed_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "MAX_CONFUSION_CLASSES", 2)
    with pytest.raises(RecipeError, match=r"--confusion: expected at most 2 classes, .* has 3"):
        evaluate_checkpoint(constant, str(mixed_store.location), confusion=tmp_path / "c.csv")
    assert not (tmp_path / "c.csv").exists()
