"""Training a recipe's network from a store, from the first step to the figures."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from latentset.datasets.errors import RecipeError
from latentset.datasets.store import Store, open_store
from latentset.train.build import build_network
from latentset.train.checkpoint import StoreRecord, load_resnet, load_weights
from latentset.train.engine import EpochBar, EpochLoader, make_trainer, run_lightning, uses_cuda
from latentset.train.evaluate import evaluate_splits
from latentset.train.models import adopt_weights
from latentset.train.module import LatentClassifier
from latentset.train.reader import LatentReader
from latentset.train.recipe import Recipe, resolve
from latentset.train.run_folder import (
    BEST,
    LAST,
    RESULT,
    RESUME,
    RunFolder,
    Start,
    begin,
    read_result,
    write_text,
)
from latentset.train.split import Split, select_split


class RunData(LightningDataModule):
    """The readers of a run.

    Args:
        store: The store.
        recipe: The resolved recipe.
        train: The split to learn.
        val: The split to look at after each epoch, if any.
    """

    def __init__(self, store: Store, recipe: Recipe, train: Split, val: Split | None) -> None:
        super().__init__()
        pinned = uses_cuda(recipe.device)
        self._train, self._val = (
            LatentReader(
                store,
                split,
                recipe.data,
                seed=recipe.seed,
                training=split is train,
                pin_memory=pinned,
            )
            if split
            else None
            for split in (train, val)
        )

    def train_dataloader(self) -> EpochLoader:
        """The epoch that is about to begin; Lightning asks anew for each."""
        if self._train is None or self.trainer is None:
            raise RuntimeError("Lightning asked for an epoch before a trainer was attached")
        return EpochLoader(self._train, self.trainer.current_epoch)

    def val_dataloader(self) -> EpochLoader | list[Any]:
        """The validation split, in the table's order."""
        return [] if self._val is None else EpochLoader(self._val, 0)


def fit(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    console: Console | None = None,
    stop_after: int | None = None,
) -> dict[str, Any]:
    """Train, or go on training.

    A folder in which the same recipe was begun is taken up after the last epoch that it finished;
    one in which it has ended is left as it is.

    Args:
        recipe: The recipe; ``data.store`` names the store.
        folder: Where the run is kept; ``runs/RECIPE/CODEC/seed-SEED`` by default.
        console: Where progress goes; standard output by default.
        stop_after: End after this epoch, as if interrupted.

    Returns:
        What result.json holds; without the figures where the run was stopped.

    Raises:
        RecipeError: The recipe and the store do not go together.
        StoreError: The store is incomplete, corrupt or not there.
        TrainingError: The folder holds another run, weights cannot be adopted, or training fails.
    """
    console = console or Console()
    if not recipe.data.store:
        raise RecipeError(f"{recipe.name}: no store: give one with --store STORE (data.store)")
    store = open_store(recipe.data.store)
    recipe = resolve(recipe, store.header, recipe.data.store)
    train, val = _splits(store, recipe)
    start = Start(recipe=recipe, store=StoreRecord.of(store))
    folder = folder or Path("runs") / recipe.name / str(recipe.data.codec) / f"seed-{recipe.seed}"

    uses_cuda(recipe.device)
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.model)
    if recipe.weights.adopt and not (folder / RESUME).exists():
        report = adopt_weights(network, load_resnet(Path(recipe.weights.adopt)))
        console.print(
            f"weights of {recipe.weights.adopt}:\n{report}", highlight=False, soft_wrap=True
        )
    resuming = begin(folder, start)
    if (folder / RESULT).exists():
        console.print(f"{folder} is finished: nothing to do", highlight=False, soft_wrap=True)
        return read_result(folder)
    module = LatentClassifier(network, recipe, store.header.codec.scale_table)
    if recipe.device.channels_last:
        network.to(memory_format=torch.channels_last)
    if recipe.device.compile:
        network.compile()

    keeper = RunFolder(folder, start, console)
    callbacks: list[Callback] = [keeper]
    if console.is_terminal:
        callbacks.append(EpochBar(refresh_rate=1))
    logger = TensorBoardLogger(folder, name="tensorboard", version="")
    data = RunData(store, recipe, train, val)
    trainer = make_trainer(
        recipe.device,
        max_epochs=min(stop_after or recipe.schedule.epochs, recipe.schedule.epochs),
        callbacks=callbacks,
        logger=[logger],
        enable_progress_bar=console.is_terminal,
        log_every_n_steps=min(50, len(train) // recipe.data.batch_size),
        limit_val_batches=None if val else 0,
        reload_dataloaders_every_n_epochs=1,
    )
    _announce(console, start, train, val, network, folder, resuming, uses_cuda(recipe.device))
    began = time.perf_counter()
    checkpoint = folder / RESUME if resuming else None
    run_lightning(partial(trainer.fit, module, datamodule=data, ckpt_path=checkpoint))
    if len(keeper.rows) < recipe.schedule.epochs:
        return {"recipe": recipe.name, "epochs": len(keeper.rows)}
    result = _conclude(folder, start, store, keeper, module)
    result["seconds"] = round(time.perf_counter() - began, 3)
    write_text(folder / RESULT, json.dumps(result, indent=1) + "\n")
    return result


def _splits(store: Store, recipe: Recipe) -> tuple[Split, Split | None]:
    """Select the splits, all of them before anything is trained."""
    data = recipe.data
    train = select_split(store, data.train_split)
    val = select_split(store, data.val_split) if data.val_split else None
    if data.test_split:
        select_split(store, data.test_split)
    if len(train) < data.batch_size:
        raise RecipeError(
            f"{store.place}: split {data.train_split!r} has {len(train)} samples, less than one "
            f"batch of data.batch_size={data.batch_size}; "
            f"set data.batch_size to {len(train)} or less"
        )
    return train, val


def _conclude(
    folder: Path, start: Start, store: Store, keeper: RunFolder, module: LatentClassifier
) -> dict[str, Any]:
    """Evaluate the chosen weights and gather the figures of a finished run."""
    recipe, last = start.recipe, keeper.rows[-1]
    chosen = BEST if keeper.best else LAST
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "model": recipe.model.kind,
        "seed": recipe.seed,
        "epochs": recipe.schedule.epochs,
        "codec": start.store.codec,
        "store_fingerprint": start.store.fingerprint,
        "parameters": sum(p.numel() for p in module.network.parameters()),
        **_rates(store),
        "checkpoint": chosen,
        "last": last,
        "best": keeper.best,
        "test": None,
    }
    if recipe.data.test_split:
        tensors, _ = load_weights(folder / chosen)
        module.network.load_state_dict(tensors)
        figures = evaluate_splits(module, recipe, store, [recipe.data.test_split])
        result["test"] = figures[recipe.data.test_split].model_dump()
    return result


def _rates(store: Store) -> dict[str, Any]:
    """What the store costs: mean rate, and bytes of the arrays that training reads."""
    rates = store.samples["rate_bpp"].drop_null().to_numpy()
    objects = store.manifest.objects if store.manifest else ()
    wanted = ("y_hat/", "scale_index/")
    return {
        "rate_bpp": float(rates.mean()) if len(rates) else None,
        "store_bytes": sum(item.bytes for item in objects),
        "trained_bytes": sum(item.bytes for item in objects if item.path.startswith(wanted)),
    }


def _announce(
    console: Console,
    start: Start,
    train: Split,
    val: Split | None,
    network: torch.nn.Module,
    folder: Path,
    resuming: bool,
    cuda: bool,
) -> None:
    recipe = start.recipe
    parameters = sum(p.numel() for p in network.parameters())
    where = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    sizes = f"{train.name} {len(train):,}" + (f", {val.name} {len(val):,}" if val else "")
    console.print(
        f"{recipe.name}, seed {recipe.seed}: {recipe.model.kind}, {parameters:,} parameters\n"
        f"from {recipe.data.store} ({start.store.codec}; {sizes}) into {folder}\n"
        f"on {where}, {recipe.device.precision}, {recipe.schedule.epochs} epochs"
        + ("; going on where it stopped" if resuming else ""),
        highlight=False,
        soft_wrap=True,
    )
