"""Training from object storage, a web server or the Hub is training from a folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.storage.location import open_location
from latentset.datasets.store import Store, open_store
from latentset.train.data.batches import Batch, LatentReader
from latentset.train.data.split import select_split
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.evaluate import evaluate_checkpoint
from latentset.train.run.fit import fit
from tests.makers.commands import TIMEOUT_S, wait_for
from tests.makers.faulty import Answer, Fault, FaultyServer, Request
from tests.makers.hub import rate_limited

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(params=["s3", "http", "hub"])
def url(request: pytest.FixtureRequest, mixed_store: Store) -> str:
    """The mixed store's address elsewhere."""
    near = Path(str(mixed_store.location))
    if request.param == "http":
        return f"{request.getfixturevalue('serve')(near.parent)}/{near.name}"
    if request.param == "hub":
        files = {path: open_location(near).read(path) for path in open_location(near).sizes() or {}}
        made = request.getfixturevalue("hub").add("org/set", files)
        return f"hf://datasets/org/set@{made.commits[-1].sha}"
    url = f"{request.getfixturevalue('s3')}/mixed.zarr"
    for path in sorted(near.rglob("*")):
        if path.is_file():
            open_location(url).write(path.relative_to(near).as_posix(), path.read_bytes())
    return url


def read(store: Store) -> list[Batch]:
    split = select_split(store, "train")
    return list(LatentReader(store, split, batch_size=8, shuffle=True, drop_last=True).batches(0))


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
    with pytest.raises(StoreCorruptError, match=r"mixed\.zarr: y_hat/c/0/0 is missing"):
        read(store)


def test_the_second_epoch_needs_no_server(
    mixed_store: Store, serve: Callable[..., str], make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    gone = shutil.copytree(str(mixed_store.location), tmp_path / "www/mixed.zarr")
    url, cache = f"{serve(gone.parent)}/mixed.zarr", tmp_path / "here"
    recipe = make_recipe(schedule__epochs=2, data__store=url, data__test_split="test")
    fit(recipe, tmp_path / "run", stop_after=1, cache=cache)
    for shard in gone.glob("*/c/*/0"):
        shard.unlink()
    far = fit(recipe, tmp_path / "run", cache=cache)
    near = fit(make_recipe(schedule__epochs=2, data__test_split="test"), tmp_path / "near")
    assert far["last"]["train_loss"] == near["last"]["train_loss"]
    found = evaluate_checkpoint(tmp_path / "run", url, splits=["test"], cache=cache)
    assert found.splits["test"].top1 == near["test"]["top1"]


def test_a_store_that_the_cache_has_no_room_for_is_refused(
    mixed_store: Store, serve: Callable[..., str], make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    url = f"{serve(Path(str(mixed_store.location)).parent)}/mixed.zarr"
    with pytest.raises(StoreError, match=r"bytes are needed in the cache .*20,000 are allowed"):
        fit(make_recipe(data__store=url), tmp_path / "run", cache_bytes=20_000)


def test_a_cache_that_is_too_small_is_refused_with_what_the_run_needs(
    mixed_store: Store, serve: Callable[..., str], make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    near = Path(str(mixed_store.location))
    recipe = make_recipe(
        data__store=f"{serve(near.parent)}/{near.name}", data__test_split="test", schedule__epochs=1
    )
    assert mixed_store.manifest
    metadata = [item.bytes for item in mixed_store.manifest.objects if "/c/" not in item.path]
    with pytest.raises(StoreError, match="bytes are needed in the cache") as refused:
        fit(recipe, tmp_path / "run", cache_bytes=sum(metadata))
    needed = re.search(r"([\d,]+) bytes are needed", str(refused.value))
    assert needed
    result = fit(recipe, tmp_path / "run", cache_bytes=int(needed[1].replace(",", "")))
    assert result["test"]


def test_a_shard_that_is_damaged_in_the_cache_is_fetched_again(
    mixed_store: Store, serve: Callable[..., str], tmp_path: Path
) -> None:
    near = Path(str(mixed_store.location))
    store = open_store(f"{serve(near.parent)}/{near.name}")
    expected = read(store)
    for path in (tmp_path / "cache").glob("stores/*/*/c/*/0"):
        content = bytearray(path.read_bytes())
        content[30] ^= 1  # of its first chunk
        path.write_bytes(content)
    for a, b in zip(read(store), expected, strict=True):
        assert torch.equal(a.rows["y_hat"], b.rows["y_hat"])
    for path in (tmp_path / "cache").glob("stores/*/*/c/*/0"):
        path.write_bytes(bytes(path.stat().st_size))
    for a, b in zip(read(store), expected, strict=True):
        assert torch.equal(a.rows["scale_index"], b.rows["scale_index"])


class Stores(FaultyServer):
    """Serves a folder."""

    root = Path()

    def answer(self, request: Request, body: bytes) -> Answer:
        path = self.root / request.path.lstrip("/")
        return Answer(200, path.read_bytes()) if path.is_file() else Answer(404)


TRAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from latentset.cli.main import main
main()
"""


def test_ctrl_c_twice_ends_it_while_a_server_asks_to_wait(
    mixed_store: Store, tmp_path: Path
) -> None:
    server = Stores()
    server.root = Path(str(mixed_store.location)).parent
    server.faults = [Fault("/c/", answer=rate_limited(TIMEOUT_S), times=1000)]
    with server.serve("api"):
        url = f"{server.urls['api']}/mixed.zarr"
        words = ["train", "cresnet-slim", "--store", url, "--out", str(tmp_path / "run")]
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN, *words, "--set", "model.depths=[1,1,1]"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LATENTSET_CACHE": str(tmp_path / "cache")},
        )
        try:
            wait_for(lambda: any("/c/" in r.path for r in server.requests), process)
            process.send_signal(signal.SIGINT)
            assert process.stderr
            while "Ctrl-C again" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=TIMEOUT_S / 10)
        finally:
            process.kill()
    assert process.returncode == 130
