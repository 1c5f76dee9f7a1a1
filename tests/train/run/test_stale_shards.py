"""A shard that is whole but another one: training and evaluation leave no result."""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from latentset.cli.main import app
from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.storage.location import Folder
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.header import ArrayName
from latentset.datasets.store.zarr.writer import shard_objects
from latentset.train.models.build import build_network
from latentset.train.recipe.recipe import Recipe, resolve
from latentset.train.run.checkpoint import Record, StoreRecord, save_weights
from latentset.train.run.evaluate import evaluate_checkpoint
from latentset.train.run.fit import fit
from latentset.train.run.prediction import write_predictions

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(params=["first", "last"])
def stale(request: pytest.FixtureRequest, mixed_store: Store, tmp_path: Path) -> Path:
    """A copy of which a shard of y_hat is another one, of the size that the manifest lists.

    The first shard has samples to train with, the last one has none.
    """
    store = Path(shutil.copytree(str(mixed_store.location), tmp_path / request.param))
    opened = open_store(store)
    index = 0 if request.param == "first" else opened.header.layout.shards - 1
    rows: dict[ArrayName, NDArray[Any]] = {"y_hat": opened.read_shard(index)["y_hat"] + 1}
    ((path, content),) = shard_objects(opened.header, index, rows).items()
    (store / path).write_bytes(content)
    manifest = json.loads((store / "manifest.json").read_text())
    for item in manifest["objects"]:
        if item["path"] == path:
            item["bytes"] = len(content)
    text = json.dumps({**manifest, "sha256": "0" * 64})
    digest = hashlib.sha256(text.encode()).hexdigest()
    (store / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest}))
    return store


def test_training_stops_before_weights_are_saved(
    make_recipe: MakeRecipe, stale: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(data__store=str(stale), device__save_steps=1)
    for _ in range(2):  # and again, when it is resumed
        with pytest.raises(StoreCorruptError, match=r"y_hat/c/\d+/0 differs from its sha256"):
            fit(recipe, tmp_path / "run")
        saved = {path.name for path in (tmp_path / "run").glob("*.safetensors")}
        # The state alone, where every shard that it was trained from is as described.
        assert saved == (set() if stale.name == "first" else {"resume.safetensors"})
    assert "best" in fit(recipe, tmp_path / "run", trust_store=True)


def test_an_altered_hdf5_file(make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    convert(mixed_store, Folder(path), "hdf5")
    recipe = make_recipe(data__store=str(path), schedule__epochs=1, schedule__decay_epochs=[])
    fit(recipe, tmp_path / "sound")
    with h5py.File(path, "r+") as file:
        file["samples/label"][:] = (file["samples/label"][:] + 1) % 3
    for use in (
        partial(fit, recipe, tmp_path / "run"),
        partial(evaluate_checkpoint, tmp_path / "sound", path),
        partial(write_predictions, tmp_path / "sound", path, tmp_path / "p.csv"),
    ):
        with pytest.raises(StoreCorruptError, match="differs from the sha256 in its first line"):
            use()
        use(trust_store=True)


def test_evaluation_gives_no_figures(
    make_recipe: MakeRecipe, mixed_store: Store, stale: Path, tmp_path: Path
) -> None:
    recipe = resolve(make_recipe(), mixed_store.header, "here")
    network = build_network(recipe.model)
    record = Record(recipe=recipe, store=StoreRecord.of(mixed_store), epoch=1, metrics={})
    save_weights(tmp_path / "w.safetensors", network.state_dict(), record)
    with pytest.raises(StoreCorruptError, match=r"y_hat/c/\d+/0 differs from its sha256"):
        evaluate_checkpoint(tmp_path / "w.safetensors", stale)
    with pytest.raises(StoreCorruptError, match=r"y_hat/c/\d+/0 differs from its sha256"):
        write_predictions(tmp_path / "w.safetensors", stale, tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()
    result = CliRunner().invoke(
        app, ["evaluate", str(tmp_path / "w.safetensors"), str(stale), "--trust-store"]
    )
    assert result.exit_code == 0, result.output
    assert torch.isfinite(torch.tensor(len(result.output)))


def test_each_shard_is_compared_once(mixed_store: Store) -> None:
    store = open_store(str(mixed_store.location))
    rows = store.samples["first_row"].to_numpy()[store.indices()]
    for expected in (2 * store.header.layout.shards, 0):
        with store.check_ahead(("y_hat", "scale_index"), rows) as check:
            assert len(check._checks) == expected
            check.wait()
            check.look()
