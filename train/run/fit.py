"""Training a recipe's network from a store: checks, the loop, and the figures of the result."""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError
from latentset.datasets.storage.atomic import write_atomically
from latentset.datasets.storage.folder import Folder
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.target_checks import refuse_nested
from latentset.datasets.terminal import print_text
from latentset.train.data.split import Split, select_split, split_names
from latentset.train.models.build import build_network
from latentset.train.models.pretrained import PretrainableModel, load_pretrained
from latentset.train.recipe.recipe import Recipe, resolve
from latentset.train.recipe.recipe_file import parse_recipe
from latentset.train.run.checkpoint import (
    StoreRecord,
    check_weights,
    load_state,
    load_weights,
    save_weights,
)
from latentset.train.run.classifier import Classifier, open_reader
from latentset.train.run.epochs import Progress
from latentset.train.run.evaluate import MAX_CONFUSION_CLASSES, evaluate_split, write_confusion
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
from latentset.train.run.run_folder import Start, claim_folder, is_finished
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
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust_store: bool = False,
) -> dict[str, Any]:
    """Train the network of a recipe whose ``data.store`` names a store, or resume its training.

    ``folder`` is by default ``runs/RECIPE/CODEC/seed-SEED``. ``stop_after`` ends after that epoch,
    as if interrupted. Returns what result.json holds; without the figures where the run was
    stopped, and in all processes but the first. ``cache`` and ``cache_bytes`` are those of
    ``open_store``. Unless ``trust_store``, the shards of a local store are compared with their
    digests while they are read first, and nothing is saved if one differs.
    """
    world = World.from_environment()
    # Names of stores, codecs and classes are no markup.
    console = (console or Console(markup=False)) if world.is_first else Console(quiet=True)
    if not recipe.data.store:
        raise RecipeError(f"{recipe.name}: no store: give one with --store STORE (data.store)")
    store = open_store(recipe.data.store, cache=cache, cache_bytes=cache_bytes)
    recipe = resolve(recipe, store.header, recipe.data.store)
    if recipe.paper is None:
        recipe = adapt(recipe, store, console)
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
    refuse_nested(Folder(folder))
    claim_folder(folder, start, write=world.is_first)
    with lock_run(folder) if world.is_first else nullcontext():
        if is_finished(folder, recipe):
            result = read_result(folder) if world.is_first else {"recipe": recipe.name}
            text = f"{folder} is finished: nothing to do (more epochs: --set schedule.epochs=N)"
            print_text(console, text)
            return result
        classifier = Classifier(network, recipe, store.header)
        progress = Progress(frozen_epochs=recipe.schedule.frozen_epochs)
        if splits is not None:
            run = prepare_run(
                start, folder, console, world, device, classifier, store, splits, trust_store
            )
            print_start(run, splits, resuming=(folder / RESUME).exists())
            train(run, min(stop_after or recipe.schedule.epochs, recipe.schedule.epochs))
            world.disconnect()  # the first process evaluates alone
            progress = run.progress
        elif world.is_first:
            save_weights(folder / LAST, network.state_dict(), start.record(None))
        if progress.epoch < recipe.schedule.epochs or not world.is_first:
            return {"recipe": recipe.name, "epochs": progress.epoch}
        result = make_result(start, store, progress, classifier, folder, world, trust_store)
        write_atomically(folder / RESULT, json.dumps(result, indent=1) + "\n")
        return result


def adapt(recipe: Recipe, store: Store, console: Console) -> Recipe:
    """Fit a recipe for any data set to the splits of a store, and print what that changes.

    The recipes of the paper are not changed: their splits are part of the experiment.
    """
    data, names = recipe.data, split_names(store)
    changes: dict[str, Any] = {}
    if data.val_split == "val" and "val" not in names:
        changes["val_split"] = ""
        text = "no split val: nothing is validated, and the weights of the last epoch count"
        print_text(console, text)
    if data.test_split == "test" and "test" not in names:
        changes["test_split"] = "val" if "val" in names else ""
        text = "no split test: " + (
            "the result is that of val, which chose the weights too"
            if "val" in names
            else "there is no result at the end"
        )
        print_text(console, text)
    split = select_split(store, data.train_split) if recipe.schedule.epochs else None
    train, codec = len(split) if split else 0, store.header.codec
    if split and codec and store.header.pixels is None:
        side = int(np.median(np.minimum(split.heights, split.widths)))
        if side > 2 * data.size:
            pixels = data.size * codec.y_downsampling
            text = (
                f"grids of {side} positions are read at {data.size} (data.size), the nearest of "
                f"each: images encoded with --resize short:{pixels} have about as many"
            )
            print_text(console, text)
    if 0 < train < data.batch_size:
        changes |= {"batch_size": train - train % recipe.schedule.accumulate}
        name = data.train_split or "(none)"
        text = f"batches of {changes['batch_size']}: split {name} has {train} samples"
        print_text(console, text)
    if not changes:
        return recipe
    tables = {**recipe.model_dump(), "data": {**data.model_dump(), **changes}}
    return parse_recipe(tables, recipe.name)


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
    if recipe.distill.logits and not is_finished(folder, recipe):
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
        print_text(console, text)
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
    trust_store: bool,
) -> Training:
    """Connect the processes, put the network on its device, and load the state if there is one."""
    recipe, network = start.recipe, classifier.network

    open_split = partial(
        open_reader,
        store,
        recipe=recipe,
        rank=world.rank,
        world_size=world.world_size,
        pin_memory=device.type == "cuda",
        names=classifier.input.names,
        check_shards=not trust_store and world.local_rank == 0,
    )
    used = [splits.train, *([splits.val] if splits.val else [])]
    if recipe.data.test_split:
        used.append(select_split(store, recipe.data.test_split))
    # Together, so that a cache that is too small is refused with the bytes of the whole run.
    store.reserve(classifier.input.names, np.concatenate([split.first_rows for split in used]))
    accumulate, teacher = recipe.schedule.accumulate, splits.teacher
    reader = open_split(
        split=splits.train, training=True, micro_batches=accumulate, teacher=teacher
    )
    val_reader = open_split(split=splits.val, training=False) if splits.val else None
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
        progress = load_state(folder / RESUME, classifier, optimizer, len(reader))
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
    trust_store: bool,
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
        "test_split": recipe.data.test_split,
        "test": None,
    }
    if recipe.data.test_split:
        checkpoint = folder / chosen_weights(recipe)
        tensors, _ = load_weights(checkpoint)
        check_weights(checkpoint, tensors, classifier.evaluated)
        classifier.evaluated.load_state_dict(tensors)
        found = evaluate_split(
            classifier, recipe, store, recipe.data.test_split, check_shards=not trust_store
        )
        result["test"] = found.figures.model_dump()
        classes = store.header.source.classes
        if len(classes) <= MAX_CONFUSION_CLASSES:
            write_confusion(folder / CONFUSION, [found], classes)
    result["seconds"] = round(sum(row.seconds for row in progress.rows), 3)
    return result


def print_start(run: Training, splits: Splits, *, resuming: bool) -> None:
    """Print what is trained from what, and where."""
    recipe, train, val = run.start.recipe, splits.train, splits.val
    parameters = sum(p.numel() for p in run.classifier.network.parameters())
    threads, epochs = torch.get_num_threads(), recipe.schedule.epochs
    where = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    if run.device.type == "cuda":
        where = torch.cuda.get_device_name(run.device)
    if run.world.world_size > 1:
        where = f"{run.world.world_size} processes, each {where}"
    sizes = f"{train.name or '(no split)'} {len(train):,}" + (
        f", {val.name} {len(val):,}" if val else ""
    )
    print_text(
        run.console,
        f"{recipe.name}, seed {recipe.seed}: {recipe.model.kind}, {parameters:,} parameters\n"
        f"from {recipe.data.store} ({run.start.store.codec}; {sizes}) into {run.folder}\n"
        f"on {where}, {recipe.device.precision}, {epochs} epoch{'s' if epochs != 1 else ''}"
        + (f"; resuming where it stopped, after epoch {run.progress.epoch}" if resuming else ""),
    )
