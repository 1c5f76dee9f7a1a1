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
from latentset.train.recipe.recipe import Recipe
from latentset.train.run import checkpoint
from latentset.train.run.checkpoint import (
    Record,
    SafetensorsIO,
    StoreRecord,
    load_resnet,
    load_weights,
    save_weights,
)

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


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "epoch": 3,
        "optimizer": [{"state": {0: {"momentum": torch.arange(3.0)}, 1: {}}, "lr": 0.1}],
        "tuple": (1, "two", None, True, [float("inf")]),
        "score": torch.tensor(0.25),
        "list": ["tensor", "0"],
    }
    io = SafetensorsIO()
    io.save_checkpoint(state, tmp_path / "s.safetensors")
    loaded = io.load_checkpoint(tmp_path / "s.safetensors", weights_only=True)
    assert torch.equal(loaded["optimizer"][0]["state"][0].pop("momentum"), torch.arange(3.0))
    assert loaded["score"].item() == 0.25
    del loaded["score"], state["score"], state["optimizer"][0]["state"][0]["momentum"]
    assert loaded == state
    io.remove_checkpoint(tmp_path / "s.safetensors")
    assert not list(tmp_path.iterdir())


def test_state_refuses_what_would_need_pickle(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds a PosixPath: expected tensors, numbers"):
        SafetensorsIO().save_checkpoint({"x": tmp_path}, tmp_path / "s.safetensors")


def test_state_that_is_none(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "s.safetensors", metadata={"state": '["what", []]'})
    with pytest.raises(TrainingError, match="not the state of a run: unknown kind 'what'"):
        SafetensorsIO().load_checkpoint(tmp_path / "s.safetensors")


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("hostile-code-ran"),))


def test_resnet_weights_from_both_forms(tmp_path: Path) -> None:
    tensors = {"fc.bias": torch.ones(3)}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        assert load_resnet(tmp_path / name)["fc.bias"].tolist() == [1, 1, 1]
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
