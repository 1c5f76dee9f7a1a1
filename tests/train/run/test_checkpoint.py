import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentset.datasets.errors import TrainingError
from latentset.datasets.store import Store
from latentset.train.models.build import build_network
from latentset.train.recipe.recipe import Recipe, resolve
from latentset.train.run import checkpoint
from latentset.train.run.checkpoint import (
    Record,
    StoreRecord,
    load_resnet,
    load_state,
    load_weights,
    save_state,
    save_weights,
)
from latentset.train.run.classifier import Classifier
from latentset.train.run.epochs import Progress

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def record(make_recipe: MakeRecipe, mixed_store: Store) -> Record:
    return Record(
        recipe=make_recipe(), store=StoreRecord.of(mixed_store), epoch=3, metrics={"val_top1": 0.5}
    )


def test_weights_come_back_with_their_record(tmp_path: Path, record: Record) -> None:
    tensors = {"fc.weight": torch.randn(3, 4).T, "bn.num_batches_tracked": torch.tensor(7)}
    save_weights(tmp_path / "w.safetensors", tensors, record)
    loaded, found = load_weights(tmp_path / "w.safetensors")
    assert found == record
    assert found.store.classes == ("glass", "metal", "paper")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_file_is_replaced_whole(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"x": torch.ones(2)}, record)

    def fail(tensors: dict[str, Tensor], where: Path, metadata: dict[str, str]) -> None:
        where.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        save_weights(path, {"x": torch.zeros(2)}, record)
    assert load_weights(path)[0]["x"].tolist() == [1, 1]


def test_weights_are_plain_safetensors(tmp_path: Path, record: Record) -> None:
    save_weights(tmp_path / "w.safetensors", {"x": torch.ones(2)}, record)
    assert load_file(tmp_path / "w.safetensors")["x"].tolist() == [1, 1]


def test_files_that_are_not_weights(tmp_path: Path, record: Record) -> None:
    with pytest.raises(TrainingError, match="no weights at"):
        load_weights(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(TrainingError, match="expected a safetensors file"):
        load_weights(tmp_path / "text.safetensors")
    save_file({"x": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(TrainingError, match="without the entry 'latentset'"):
        load_weights(tmp_path / "other.safetensors")
    text = json.dumps(record.model_dump(mode="json") | {"epok": 3})
    save_file({"x": torch.ones(2)}, tmp_path / "odd.safetensors", metadata={"latentset": text})
    with pytest.raises(TrainingError, match=r"record cannot be read.*(?s:.*)epok"):
        load_weights(tmp_path / "odd.safetensors")


@pytest.fixture
def trained(make_recipe: MakeRecipe, mixed_store: Store) -> Classifier:
    """A classifier of random weights, with a moving average."""
    recipe = resolve(make_recipe(schedule__ema_decay=0.5), mixed_store.header, "here")
    return Classifier(build_network(recipe.model), recipe, mixed_store.header)


def test_state_comes_back_as_it_was(tmp_path: Path, trained: Classifier) -> None:
    optimizer = trained.optimizer()
    trained.network.fc.weight.grad = torch.randn(trained.network.fc.weight.shape)
    optimizer.step()
    trained.update_average()
    progress = Progress(batches=3, sums=(float("inf"), 7.0), seconds=0.1, frozen_epochs=2)
    save_state(tmp_path / "s.safetensors", trained, optimizer, progress)
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]
    other = copy.deepcopy(trained)
    for tensor in other.state_dict().values():
        tensor.zero_()
    second = other.optimizer()
    assert load_state(tmp_path / "s.safetensors", other, second, 4) == progress
    expected, found = trained.state_dict(), other.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    names = {
        name: state["momentum_buffer"]
        for name, parameter in other.network.named_parameters()
        if (state := second.state.get(parameter))
    }
    assert list(names) == ["fc.weight"]  # the others have had no step
    momentum = optimizer.state[trained.network.fc.weight]["momentum_buffer"]
    assert torch.equal(names["fc.weight"], momentum)


def test_state_that_is_none(tmp_path: Path, trained: Classifier) -> None:
    for texts in ({"state": "{}"}, {"progress": "[]"}, {"progress": '{"frozen_epochs": "many"}'}):
        save_file({"x": torch.ones(1)}, tmp_path / "s.safetensors", metadata=texts)
        with pytest.raises(TrainingError, match=r"not the state of a run, .* remove it, and the"):
            load_state(tmp_path / "s.safetensors", trained, trained.optimizer(), 4)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("hostile-code-ran"),))


def test_resnet_weights_from_both_forms(tmp_path: Path) -> None:
    tensors = {"fc.bias": torch.ones(3)}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        assert load_resnet(tmp_path / name)[0]["fc.bias"].tolist() == [1, 1, 1]
    torch.save({"model": tensors}, tmp_path / "b.pth")
    with pytest.raises(TrainingError, match="expected a table of tensors"):
        load_resnet(tmp_path / "b.pth")
    with pytest.raises(TrainingError, match="no weights at"):
        load_resnet(tmp_path / "absent.pth")


def test_resnet_weights_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Hostile()}, "hostile.pth")
    with pytest.raises(TrainingError, match=r"\.pth that holds tensors alone"):
        load_resnet(Path("hostile.pth"))
    assert not Path("hostile-code-ran").exists()
