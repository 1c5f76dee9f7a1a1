"""Run folders that are damaged, or from elsewhere: refused with the file's name and what to do."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from latentset.datasets.errors import LatentSetError, TrainingError
from latentset.datasets.store import Store
from latentset.paper.report.page import write_report
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.checkpoint import StoreRecord
from latentset.train.run.classifier_export import export_classifier
from latentset.train.run.evaluate import evaluate_checkpoint
from latentset.train.run.fit import fit
from latentset.train.run.run_folder import Start, claim_folder

MakeRecipe = Callable[..., Recipe]
Tensors = dict[str, Tensor]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def recipe(make_recipe: MakeRecipe) -> Recipe:
    return make_recipe(schedule__epochs=2, schedule__decay_epochs=[], data__test_split="test")


@pytest.fixture(scope="module")
def half(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "half"
    fit(recipe, folder, stop_after=1, console=QUIET)
    return folder


@pytest.fixture
def run(half: Path, tmp_path: Path) -> Path:
    shutil.copytree(half, tmp_path / "run")
    return tmp_path / "run"


def _rewrite(path: Path, key: str, change: Callable[[Tensors, Any], tuple[Tensors, Any]]) -> None:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = file.metadata()[key]
    tensors, record = change(tensors, json.loads(text))
    save_file(tensors, path, {key: record if isinstance(record, str) else json.dumps(record)})


def _each(change: Callable[[str, Tensor], Tensor | None]) -> Callable[..., tuple[Tensors, Any]]:
    def on_all(tensors: Tensors, record: Any) -> tuple[Tensors, Any]:
        changed = {name: change(name, tensor) for name, tensor in tensors.items()}
        return {name: x for name, x in changed.items() if x is not None}, record

    return on_all


def _set(**values: Any) -> Callable[..., tuple[Tensors, Any]]:
    return lambda tensors, record: (tensors, {**record, **values})


def _nan(name: str, tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor


CHANGES: dict[str, Callable[..., tuple[Tensors, Any]]] = {
    "nested too deep": lambda tensors, _: (tensors, "[" * 100_000 + "]" * 100_000),
    "empty": lambda tensors, _: (tensors, ""),
    "a list": lambda tensors, _: (tensors, []),
    "another version": lambda tensors, record: (tensors, {**record, "version": "2.0"}),
    "no weights": _each(lambda name, x: x if name.startswith("momentum.") else None),
    "not a number": _each(_nan),
    "another type": _each(lambda name, x: x.to(torch.float64)),
    "another shape": _each(lambda name, x: torch.zeros((2, *x.shape))),
}
OF_STATE: dict[str, Callable[..., tuple[Tensors, Any]]] = {
    "momentum of another shape": _each(
        lambda name, x: torch.ones(3, 1) if name.startswith("momentum.") else x
    ),
    "momentum of nothing": lambda tensors, record: (
        {**tensors, "momentum.nowhere": torch.ones(2)},
        record,
    ),
    "batches below 0": _set(batches=-1),
    "batches without end": _set(batches=10**30),
    "a whole epoch of batches": _set(batches=10_000),
    "seconds that are none": _set(seconds="nan"),
    "frozen for -1 epochs": _set(frozen_epochs=-1),
    "too many epochs": lambda tensors, record: (tensors, {**record, "rows": record["rows"] * 3}),
    "figures that are no numbers": lambda tensors, record: (
        tensors,
        {**record, "rows": [{**record["rows"][0], "lr_new": float("nan")}]},
    ),
}


@pytest.mark.parametrize("case", [*CHANGES, *OF_STATE])
def test_state_that_is_not_this_runs(case: str, run: Path, recipe: Recipe) -> None:
    path = run / "resume.safetensors"
    _rewrite(path, "progress", (CHANGES | OF_STATE)[case])
    with pytest.raises(TrainingError, match=r"resume\.safetensors: .*emove it, and the run starts"):
        fit(recipe, run, console=QUIET)
    path.unlink()
    assert fit(recipe, run, console=QUIET)["epochs"] == 2


@pytest.mark.parametrize("case", CHANGES)
def test_weights_that_are_not_a_runs(
    case: str, run: Path, mixed_store: Store, tmp_path: Path
) -> None:
    _rewrite(run / "best.safetensors", "latentset", CHANGES[case])
    store = str(mixed_store.location)
    with pytest.raises(TrainingError, match=r"best\.safetensors: "):
        evaluate_checkpoint(run, store)
    with pytest.raises(TrainingError, match=r"best\.safetensors: "):
        export_classifier(run, store, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("sizes", [{"width": 4096}, {"width": 10**9}, {"depths": [10**6, 1, 1]}])
def test_weights_of_a_giant_network(sizes: Any, run: Path, mixed_store: Store) -> None:
    def grow(tensors: Tensors, record: Any) -> tuple[Tensors, Any]:
        record["recipe"]["model"] |= sizes
        return tensors, record

    _rewrite(run / "best.safetensors", "latentset", grow)
    with pytest.raises(TrainingError, match=r"best\.safetensors: "):
        evaluate_checkpoint(run, str(mixed_store.location))


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
@pytest.mark.parametrize("name", ["recipe.json", "result.json", "resume", "best"])
def test_what_is_no_file(
    name: str, kind: str, run: Path, recipe: Recipe, mixed_store: Store, tmp_path: Path
) -> None:
    path = run / (name if "." in name else f"{name}.safetensors")
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    commands: dict[str, Callable[[], Any]] = {
        "best": lambda: evaluate_checkpoint(run, str(mixed_store.location)),
        "result.json": lambda: write_report([run], tmp_path / "report"),
    }
    command = commands.get(name) or (lambda: fit(recipe, run, console=QUIET))
    with pytest.raises(LatentSetError, match=f"{path.name}: expected a file, got a folder, a FIFO"):
        command()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000, '{"recipe": 1}'])
def test_how_it_was_started_from_elsewhere(text: str, run: Path, recipe: Recipe) -> None:
    (run / "recipe.json").write_text(text)
    with pytest.raises(TrainingError, match=r"recipe\.json cannot be read; .* --out"):
        fit(recipe, run, console=QUIET)
    (run / "result.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"result\.json: not the figures of a run"):
        write_report([run], run / "report")


LINKS = ["metrics.csv", "result.json", "best.safetensors", "last.safetensors", "confusion.csv"]


def test_no_link_is_written_through(run: Path, recipe: Recipe, tmp_path: Path) -> None:
    (outside := tmp_path / "outside").mkdir()
    for name in LINKS:
        (run / name).unlink(missing_ok=True)
        for link in (name, f".{name}.partial"):
            (outside / link).write_text("mine")
            (run / link).symlink_to(outside / link)
    (run / "result.json").unlink()  # else the run is finished
    (run / ".result.json.partial-000000000000").symlink_to(outside / "new")
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").symlink_to(outside)
    with pytest.raises(TrainingError, match="tensorboard is a link, which is not followed"):
        fit(recipe, run, console=QUIET)
    (run / "tensorboard").unlink()
    assert fit(recipe, run, console=QUIET)["epochs"] == 2
    assert {path.read_text() for path in outside.iterdir()} == {"mine"}
    assert len(list(outside.iterdir())) == 2 * len(LINKS)


def test_two_that_start_at_once(recipe: Recipe, tmp_path: Path) -> None:
    """One creates recipe.json, the other has the same run, or is refused."""
    other = recipe.model_copy(update={"seed": 5})
    record = StoreRecord(fingerprint="f", codec="c", codec_sha256="", resize="none", classes=())
    starts = [Start(recipe=each, store=record) for each in (recipe, recipe, other)]
    for k in range(20):
        barrier = threading.Barrier(3)

        def claim(start: Start, folder: Path, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            try:
                claim_folder(folder, start)
            except TrainingError as error:
                return "other settings" if "with other settings" in str(error) else str(error)
            return "claimed"

        with ThreadPoolExecutor(3) as pool:
            ended = list(pool.map(claim, starts, [tmp_path / str(k)] * 3))
        assert set(ended) == {"claimed", "other settings"}
