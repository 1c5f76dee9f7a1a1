"""Training a recipe's network from a store, from the first step to the figures."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from torch import Tensor

from latentset.datasets.errors import RecipeError
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.header import ArrayName
from latentset.train.data.reader import LatentReader
from latentset.train.data.split import Split, select_split
from latentset.train.models import adopt_weights
from latentset.train.models.build import build_network
from latentset.train.recipe.recipe import Recipe, resolve
from latentset.train.run.checkpoint import StoreRecord, load_weights, save_weights
from latentset.train.run.engine import EpochBar, EpochLoader, make_trainer, run_lightning, uses_cuda
from latentset.train.run.evaluate import evaluate_split, write_confusion
from latentset.train.run.module import Classifier
from latentset.train.run.phases import Phases
from latentset.train.run.ranks import Ranks
from latentset.train.run.run_files import (
    CONFUSION,
    LAST,
    RESULT,
    RESUME,
    chosen_weights,
    only_one,
    read_result,
    write_text,
)
from latentset.train.run.run_folder import RunFolder, Start, begin, make_record
from latentset.train.run.teacher import read_logits
from latentset.train.run.weights import digest, find_weights


class RunData(LightningDataModule):
    """The readers of a run.

    Args:
        store: The store.
        recipe: The resolved recipe.
        splits: The split to learn, and the one to look at after each epoch, if any.
        names: Arrays to read.
        keeper: Knows how much of an epoch was learnt before the run was interrupted.
        ranks: The processes that share each batch.
        teacher: Float (samples of the store, classes), a teacher's logits, if any.
    """

    def __init__(
        self,
        store: Store,
        recipe: Recipe,
        splits: tuple[Split, Split | None],
        names: Sequence[ArrayName],
        keeper: RunFolder,
        ranks: Ranks,
        teacher: Tensor | None,
    ) -> None:
        super().__init__()
        self._keeper = keeper
        self._train, self._val = (
            LatentReader(
                store,
                split,
                recipe.data,
                seed=recipe.seed,
                training=split is splits[0],
                rank=ranks.rank,
                ranks=ranks.ranks,
                parts=recipe.schedule.accumulate if split is splits[0] else 1,
                pin_memory=uses_cuda(recipe.device),
                names=names,
                teacher=teacher if split is splits[0] else None,
            )
            if split
            else None
            for split in splits
        )

    def train_dataloader(self) -> EpochLoader:
        """The epoch that is about to begin, or to go on; Lightning asks anew for each."""
        if self._train is None or self.trainer is None:
            raise RuntimeError("Lightning asked for an epoch before a trainer was attached")
        return EpochLoader(self._train, self.trainer.current_epoch, self._keeper.batches)

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

    A folder in which the same recipe was begun is taken up where its state was last saved; one in
    which it has ended is left as it is. Started by torchrun, the processes train together.

    Args:
        recipe: The recipe; ``data.store`` names the store.
        folder: Where the run is kept; ``runs/RECIPE/CODEC/seed-SEED`` by default.
        console: Where progress goes; standard output by default.
        stop_after: End after this epoch, as if interrupted.

    Returns:
        What result.json holds; without the figures where the run was stopped, and in all processes
        but the first.

    Raises:
        RecipeError: The recipe and the store do not go together.
        StoreError: The store is incomplete, corrupt or not there.
        TrainingError: The folder holds another run, weights cannot be adopted, or training fails.
    """
    ranks = Ranks.of_environment()
    console = (console or Console()) if ranks.is_first else Console(quiet=True)
    if not recipe.data.store:
        raise RecipeError(f"{recipe.name}: no store: give one with --store STORE (data.store)")
    store = open_store(recipe.data.store)
    recipe = resolve(recipe, store.header, recipe.data.store)
    ranks.check(recipe)
    if recipe.data.test_split:
        select_split(store, recipe.data.test_split)
    splits = _splits(store, recipe, ranks) if recipe.schedule.epochs else None
    folder = folder or Path("runs") / recipe.name / str(recipe.data.codec) / f"seed-{recipe.seed}"
    teacher = None
    if recipe.distill.logits and splits and not (folder / RESULT).exists():
        teacher = read_logits(Path(recipe.distill.logits), store, splits[0])

    torch.manual_seed(recipe.seed)
    network = build_network(recipe.model)
    found = None
    if (folder / RESUME).exists():
        network.leave_out(recipe.weights.leave_out)
    elif recipe.weights.adopt:
        with_fc = "fc" not in recipe.weights.leave_out
        classes = store.header.source.classes if with_fc else None
        found = find_weights(recipe.weights.adopt, classes)
        report = adopt_weights(network, found.tensors, leave_out=recipe.weights.leave_out)
        console.print(f"weights of {found.where}:\n{report}", highlight=False, soft_wrap=True)
    if recipe.schedule.frozen_epochs and not any(True for _ in network.new_parameters()):
        raise RecipeError(
            f"schedule.frozen_epochs: expected 0, got {recipe.schedule.frozen_epochs}: all of "
            f"{recipe.model.kind} is adopted, and nothing would train while it is frozen; leave "
            "out what is new (weights.leave_out), or set schedule.frozen_epochs=0"
        )
    start = Start(
        recipe=recipe,
        store=StoreRecord.of(store),
        adopted_sha256=found.sha256 if found else "",
        teacher_sha256=digest({"logits": teacher}) if teacher is not None else "",
    )
    resuming = begin(folder, start, write=ranks.is_first)
    with only_one(folder) if ranks.is_first else nullcontext():
        if (folder / RESULT).exists():
            result = read_result(folder) if ranks.is_first else {"recipe": recipe.name}
            console.print(f"{folder} is finished: nothing to do", highlight=False, soft_wrap=True)
            return result
        module = Classifier(network, recipe, store.header)
        keeper = RunFolder(folder, start, console)
        if splits is not None:
            _train(module, splits, keeper, store, ranks, teacher, stop_after, resuming)
        elif ranks.is_first:
            save_weights(folder / LAST, network.state_dict(), make_record(start, {}))
        if len(keeper.rows) < recipe.schedule.epochs or not ranks.is_first:
            return {"recipe": recipe.name, "epochs": len(keeper.rows)}
        return _conclude(start, store, keeper, module, ranks)


def _train(
    module: Classifier,
    splits: tuple[Split, Split | None],
    keeper: RunFolder,
    store: Store,
    ranks: Ranks,
    teacher: Tensor | None,
    stop_after: int | None,
    resuming: bool,
) -> None:
    """Train what is left of a run, or up to ``stop_after``; the keeper gathers the figures."""
    recipe, network, folder = keeper.start.recipe, module.network, keeper.folder
    if recipe.device.channels_last:
        network.to(memory_format=torch.channels_last)
    if recipe.device.compile:
        network.compile()
    callbacks: list[Callback] = [Phases(recipe.schedule), keeper]
    in_terminal = keeper.console.is_terminal
    if in_terminal:
        callbacks.append(EpochBar(refresh_rate=1))
    steps = len(splits[0]) // recipe.data.batch_size
    trainer = make_trainer(
        recipe.device,
        ranks,
        frozen=recipe.schedule.frozen_epochs > 0,
        max_epochs=min(stop_after or recipe.schedule.epochs, recipe.schedule.epochs),
        callbacks=callbacks,
        logger=[TensorBoardLogger(folder, name="tensorboard", version="")],
        enable_progress_bar=in_terminal,
        log_every_n_steps=min(50, steps),
        limit_val_batches=None if splits[1] else 0,
        accumulate_grad_batches=recipe.schedule.accumulate,
        reload_dataloaders_every_n_epochs=1,
    )
    data = RunData(store, recipe, splits, module.input.names, keeper, ranks, teacher)
    _announce(keeper, splits, network, resuming, ranks)
    checkpoint = folder / RESUME if resuming else None
    run_lightning(trainer, partial(trainer.fit, module, datamodule=data, ckpt_path=checkpoint))
    if ranks.ranks > 1:
        torch.distributed.destroy_process_group()  # the first process evaluates alone


def _splits(store: Store, recipe: Recipe, ranks: Ranks) -> tuple[Split, Split | None]:
    """Select the splits, all of them before anything is trained."""
    data = recipe.data
    train = select_split(store, data.train_split)
    val = select_split(store, data.val_split) if data.val_split else None
    if len(train) < data.batch_size:
        raise RecipeError(
            f"{store.location}: split {data.train_split!r} has {len(train)} samples, less than one "
            f"batch of data.batch_size={data.batch_size}; "
            f"set data.batch_size to {len(train)} or less"
        )
    if val and len(val) < ranks.ranks:
        raise RecipeError(
            f"{store.location}: split {data.val_split!r} has {len(val)} samples, less than one for "
            f"each of {ranks.ranks} processes; start fewer, or set data.val_split to another"
        )
    return train, val


def _conclude(
    start: Start, store: Store, keeper: RunFolder, module: Classifier, ranks: Ranks
) -> dict[str, Any]:
    """Evaluate the chosen weights, and gather and write the figures of a finished run."""
    recipe, folder = start.recipe, keeper.folder
    chosen = chosen_weights(recipe)
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "model": recipe.model.kind,
        "seed": recipe.seed,
        "epochs": recipe.schedule.epochs,
        "codec": start.store.codec,
        "store_fingerprint": start.store.fingerprint,
        "parameters": sum(p.numel() for p in module.network.parameters()),
        "processes": ranks.ranks,
        **_rates(store),
        "checkpoint": chosen,
        "last": keeper.rows[-1] if keeper.rows else None,
        "best": keeper.best,
        "test": None,
    }
    if recipe.data.test_split:
        tensors, _ = load_weights(folder / chosen)
        module.evaluated.load_state_dict(tensors)
        found = evaluate_split(module, recipe, store, recipe.data.test_split)
        result["test"] = found.figures.model_dump()
        write_confusion(folder / CONFUSION, found.confusion, store.header.source.classes)
    result["seconds"] = round(sum(row["seconds"] or 0 for row in keeper.rows), 3)
    write_text(folder / RESULT, json.dumps(result, indent=1) + "\n")
    return result


def _rates(store: Store) -> dict[str, Any]:
    """What the store costs: mean rate, and bytes of the arrays that training reads."""
    rates = store.samples["rate_bpp"].drop_null().to_numpy()
    objects = store.manifest.objects if store.manifest else ()
    wanted = ("y_hat/", "scale_index/", "pixels/")
    return {
        "rate_bpp": float(rates.mean()) if len(rates) else None,
        "store_bytes": sum(item.bytes for item in objects),
        "trained_bytes": sum(item.bytes for item in objects if item.path.startswith(wanted)),
    }


def _announce(
    keeper: RunFolder,
    splits: tuple[Split, Split | None],
    network: torch.nn.Module,
    resuming: bool,
    ranks: Ranks,
) -> None:
    start, (train, val) = keeper.start, splits
    recipe = start.recipe
    parameters = sum(p.numel() for p in network.parameters())
    cuda = uses_cuda(recipe.device)
    where = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    if ranks.ranks > 1:
        where = f"{ranks.ranks} processes, each {where}"
    sizes = f"{train.name} {len(train):,}" + (f", {val.name} {len(val):,}" if val else "")
    keeper.console.print(
        f"{recipe.name}, seed {recipe.seed}: {recipe.model.kind}, {parameters:,} parameters\n"
        f"from {recipe.data.store} ({start.store.codec}; {sizes}) into {keeper.folder}\n"
        f"on {where}, {recipe.device.precision}, {recipe.schedule.epochs} epochs"
        + ("; going on where it stopped" if resuming else ""),
        highlight=False,
        soft_wrap=True,
    )
