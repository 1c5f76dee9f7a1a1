"""Training from object storage and from a web server is training from a folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.storage.location import open_location
from latentset.datasets.store import Store, open_store
from latentset.train.data.batches import Batch, LatentReader
from latentset.train.data.split import select_split
from latentset.train.recipe.recipe import Data, Recipe
from latentset.train.run.fit import fit

MakeRecipe = Callable[..., Recipe]
DATA = Data(batch_size=8)


@pytest.fixture(params=["s3", "http"])
def url(request: pytest.FixtureRequest, mixed_store: Store) -> str:
    """The mixed store's address elsewhere."""
    near = Path(str(mixed_store.location))
    if request.param == "http":
        return f"{request.getfixturevalue('serve')(near.parent)}/{near.name}"
    url = f"{request.getfixturevalue('s3')}/mixed.zarr"
    for path in sorted(near.rglob("*")):
        if path.is_file():
            open_location(url).write(path.relative_to(near).as_posix(), path.read_bytes())
    return url


def read(store: Store) -> list[Batch]:
    split = select_split(store, "train")
    return list(LatentReader(store, split, DATA, seed=0, training=True).batches(0))


def test_batches_are_the_same(url: str, mixed_store: Store) -> None:
    far, near = read(open_store(url)), read(mixed_store)
    assert len(far) == len(near) == 5
    for a, b in zip(far, near, strict=True):
        assert a.samples.tolist() == b.samples.tolist()
        assert torch.equal(a.windows, b.windows)
        assert a.rows.keys() == b.rows.keys() == {"y_hat", "scale_index"}
        for name in a.rows:
            assert torch.equal(a.rows[name], b.rows[name])
            assert a.rows[name].any()


def test_a_run_gives_the_same_figures(
    url: str, make_recipe: MakeRecipe, mixed_store: Store, tmp_path: Path
) -> None:
    near = fit(make_recipe(schedule__epochs=1), tmp_path / "near")
    far = fit(make_recipe(schedule__epochs=1, data__store=url), tmp_path / "far")
    for key in ("train_loss", "val_loss", "val_top1"):
        assert far["last"][key] == near["last"][key]


def test_a_shard_that_a_web_server_has_lost_is_an_error(
    mixed_store: Store, serve: Callable[..., str], tmp_path: Path
) -> None:
    near = shutil.copytree(str(mixed_store.location), tmp_path / "mixed.zarr")
    (near / "y_hat/c/0/0").unlink()
    store = open_store(f"{serve(tmp_path)}/mixed.zarr")
    with pytest.raises(StoreCorruptError, match=r"y_hat of sample .* cannot be read"):
        read(store)
