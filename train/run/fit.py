"""Training a recipe's network from a store: checks, the loop, and the figures of the result."""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError
from latentset.datasets.storage.atomic import write_atomically
from latentset.datasets.store import Store, open_store
from latentset.train.data.batches import LatentReader
from latentset.train.data.split import Split, select_split
from latentset.train.models.build import build_network
from latentset.train.models.pretrained import PretrainableModel, load_pretrained
from latentset.train.recipe.recipe import Recipe, resolve
from latentset.train.run.checkpoint import StoreRecord, load_state, load_weights, save_weights
from latentset.train.run.classifier import Classifier
from latentset.train.run.epochs import Progress
from latentset.train.run.evaluate import evaluate_split, write_confusion
from latentset.train.run.loop import Training, train
from latentset.train.run.run_files import (
    CONFUSION,
    LAST,
    RESULT,
    RESUME,
    chosen_weights,
    lock_run,
    read_result,
)
from latentset.train.run.run_folder import Start, claim_folder
from latentset.train.run.teacher import read_logits
from latentset.train.run.weights import digest, find_weights
from latentset.train.run.world import World, select_device


@dataclass(frozen=True)
class Splits:
    """What is trained from, and what is validated on after each epoch."""

    train: Split
    val: Split | None
    teacher: Tensor | None
    """Float (samples of the store, classes)."""


def fit(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    console: Console | None = None,
    stop_after: int | None = None,
) -> dict[str, Any]:
    """Train the network of a recipe whose ``data.store`` names a store, or resume its training.

    ``folder`` is by default ``runs/RECIPE/CODEC/seed-SEED``. ``stop_after`` ends after that epoch,
    as if interrupted. Returns what result.json holds; without the figures where the run was
    stopped, and in all processes but the first.
    """
    world = World.from_environment()
    console = (console or Console()) if world.is_first else Console(quiet=True)
    if not recipe.data.store:
        raise RecipeError(f"{recipe.name}: no store: give one with --store STORE (data.store)")
    store = open_store(recipe.data.store)
    recipe = resolve(recipe, store.header, recipe.data.store)
    world.check(recipe)
    device = select_device(recipe.device, world.local_rank)
    if recipe.data.test_split:
        select_split(store, recipe.data.test_split)
    folder = folder or Path("runs") / recipe.name / str(recipe.data.codec) / f"seed-{recipe.seed}"
    splits = select_splits(store, recipe, world, folder) if recipe.schedule.epochs else None

    torch.manual_seed(recipe.seed)
    network = build_network(recipe.model)
    pretrained_sha256 = initialise(network, recipe, store, folder, console)
    teacher = splits.teacher if splits else None
    start = Start(
        recipe=recipe,
        store=StoreRecord.of(store),
        adopted_sha256=pretrained_sha256,
        teacher_sha256="" if teacher is None else digest({"logits": teacher}),
    )
    claim_folder(folder, start, write=world.is_first)
    with lock_run(folder) if world.is_first else nullcontext():
        if (folder / RESULT).exists():
            result = read_result(folder) if world.is_first else {"recipe": recipe.name}
            console.print(f"{folder} is finished: nothing to do", highlight=False, soft_wrap=True)
            return result
        classifier = Classifier(network, recipe, store.header)
        progress = Progress(frozen_epochs=recipe.schedule.frozen_epochs)
        if splits is not None:
            run = prepare_run(start, folder, console, world, device, classifier, store, splits)
            print_start(run, splits, resuming=(folder / RESUME).exists())
            train(run, min(stop_after or recipe.schedule.epochs, recipe.schedule.epochs))
            world.disconnect()  # the first process evaluates alone
            progress = run.progress
        elif world.is_first:
            save_weights(folder / LAST, network.state_dict(), start.record(None))
        if progress.epoch < recipe.schedule.epochs or not world.is_first:
            return {"recipe": recipe.name, "epochs": progress.epoch}
        result = make_result(start, store, progress, classifier, folder, world)
        write_atomically(folder / RESULT, json.dumps(result, indent=1) + "\n")
        return result


def select_splits(store: Store, recipe: Recipe, world: World, folder: Path) -> Splits:
    """Select the splits of training, and read a teacher's logits for a run that is not finished."""
    data = recipe.data
    split = select_split(store, data.train_split)
    val = select_split(store, data.val_split) if data.val_split else None
    if len(split) < data.batch_size:
        raise RecipeError(
            f"{store.location}: split {data.train_split!r} has {len(split)} samples, less than one "
            f"batch of data.batch_size={data.batch_size}; "
            f"set data.batch_size to {len(split)} or less"
        )
    if val and len(val) < world.world_size:
        raise RecipeError(
            f"{store.location}: split {data.val_split!r} has {len(val)} samples, less than one for "
            f"each of {world.world_size} processes; start fewer, or set data.val_split to another"
        )
    teacher = None
    if recipe.distill.logits and not (folder / RESULT).exists():
        teacher = read_logits(Path(recipe.distill.logits), store, split)
    return Splits(split, val, teacher)


def initialise(
    network: PretrainableModel, recipe: Recipe, store: Store, folder: Path, console: Console
) -> str:
    """Load the weights that a new run is initialised from; return their digest, if any."""
    exclude, sha256 = recipe.weights.leave_out, ""
    if (folder / RESUME).exists():
        network.exclude(exclude)
    elif recipe.weights.adopt:
        classes = None if "fc" in exclude else store.header.source.classes
        tensors = find_weights(recipe.weights.adopt, classes)
        sha256 = digest(tensors)
        report = load_pretrained(network, tensors, exclude=exclude)
        text = f"weights of {recipe.weights.adopt}:\n{report}"
        console.print(text, highlight=False, soft_wrap=True)
    if recipe.schedule.frozen_epochs and not any(True for _ in network.new_parameters()):
        raise RecipeError(
            f"schedule.frozen_epochs: expected 0, got {recipe.schedule.frozen_epochs}: all of "
            f"{recipe.model.kind} is pretrained, and nothing would train while it is frozen; "
            "exclude what is new (weights.leave_out), or set schedule.frozen_epochs=0"
        )
    return sha256


def prepare_run(
    start: Start,
    folder: Path,
    console: Console,
    world: World,
    device: torch.device,
    classifier: Classifier,
    store: Store,
    splits: Splits,
) -> Training:
    """Connect the processes, put the network on its device, and load the state if there is one."""
    recipe, network = start.recipe, classifier.network

    open_reader = partial(
        LatentReader,
        store,
        data=recipe.data,
        seed=recipe.seed,
        rank=world.rank,
        world_size=world.world_size,
        pin_memory=device.type == "cuda",
        names=classifier.input.names,
    )
    accumulate, teacher = recipe.schedule.accumulate, splits.teacher
    reader = open_reader(
        split=splits.train, training=True, micro_batches=accumulate, teacher=teacher
    )
    val_reader = open_reader(split=splits.val, training=False) if splits.val else None
    world.connect(device)
    if recipe.device.sync_batchnorm and world.world_size > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(classifier)  # type: ignore[no-untyped-call]
    classifier.to(device)
    if recipe.device.channels_last:
        network.to(memory_format=torch.channels_last)
    if recipe.device.compile:
        network.compile()
    optimizer = classifier.optimizer()
    progress = Progress(frozen_epochs=recipe.schedule.frozen_epochs)
    if (folder / RESUME).exists():
        progress = load_state(folder / RESUME, classifier, optimizer)
    return Training(
        start, folder, console, world, device, classifier, optimizer, reader, val_reader, progress
    )


def make_result(
    start: Start,
    store: Store,
    progress: Progress,
    classifier: Classifier,
    folder: Path,
    world: World,
) -> dict[str, Any]:
    """Gather the figures of a finished run, and evaluate the chosen weights on the test split."""
    recipe, last = start.recipe, progress.rows[-1] if progress.rows else None
    rates = store.samples["rate_bpp"].drop_null().to_numpy()
    objects = store.manifest.objects if store.manifest else ()
    arrays = ("y_hat/", "scale_index/", "pixels/")
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "model": recipe.model.kind,
        "seed": recipe.seed,
        "epochs": recipe.schedule.epochs,
        "codec": start.store.codec,
        "store_fingerprint": start.store.fingerprint,
        "parameters": sum(p.numel() for p in classifier.network.parameters()),
        "processes": world.world_size,
        "rate_bpp": float(rates.mean()) if len(rates) else None,
        "store_bytes": sum(item.bytes for item in objects),
        "trained_bytes": sum(item.bytes for item in objects if item.path.startswith(arrays)),
        "checkpoint": chosen_weights(recipe),
        "last": last.model_dump() if last else None,
        "best": progress.best.model_dump() if progress.best else None,
        "test": None,
    }
    if recipe.data.test_split:
        tensors, _ = load_weights(folder / result["checkpoint"])
        classifier.evaluated.load_state_dict(tensors)
        found = evaluate_split(classifier, recipe, store, recipe.data.test_split)
        result["test"] = found.figures.model_dump()
        write_confusion(folder / CONFUSION, found.confusion, store.header.source.classes)
    result["seconds"] = round(sum(row.seconds for row in progress.rows), 3)
    return result


def print_start(run: Training, splits: Splits, *, resuming: bool) -> None:
    """Print what is trained from what, and where."""
    recipe, train, val = run.start.recipe, splits.train, splits.val
    parameters = sum(p.numel() for p in run.classifier.network.parameters())
    where = f"CPU, {torch.get_num_threads()} threads"
    if run.device.type == "cuda":
        where = torch.cuda.get_device_name(run.device)
    if run.world.world_size > 1:
        where = f"{run.world.world_size} processes, each {where}"
    sizes = f"{train.name} {len(train):,}" + (f", {val.name} {len(val):,}" if val else "")
    run.console.print(
        f"{recipe.name}, seed {recipe.seed}: {recipe.model.kind}, {parameters:,} parameters\n"
        f"from {recipe.data.store} ({run.start.store.codec}; {sizes}) into {run.folder}\n"
        f"on {where}, {recipe.device.precision}, {recipe.schedule.epochs} epochs"
        + ("; resuming where it stopped" if resuming else ""),
        highlight=False,
        soft_wrap=True,
    )
