"""Top-1, top-5, loss and confusion of a network on splits of a store."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from latentset.datasets.errors import RecipeError, TrainingError
from latentset.datasets.store import Store, open_store
from latentset.train.data.reader import Batch, LatentReader
from latentset.train.data.split import select_split, split_names
from latentset.train.models.build import build_network
from latentset.train.models.networks import Table
from latentset.train.recipe.recipe import Accelerator, EvalCrop, Recipe
from latentset.train.run.checkpoint import Record, StoreRecord, load_weights
from latentset.train.run.engine import EpochLoader, make_trainer, run_lightning, uses_cuda
from latentset.train.run.module import Classifier
from latentset.train.run.run_files import BEST, LAST, write_text
from latentset.train.run.teacher import write_logits


class SplitFigures(Table):
    """How good a network is on one split."""

    samples: int
    """Samples of the split."""
    loss: float
    """Mean cross entropy, nats."""
    top1: float
    """Share whose class has the highest logit."""
    top5: float
    """Share whose class is among the five highest."""
    per_class: dict[str, float | None]
    """top1 of each class's samples; None for a class that has none in the split."""


@dataclass(frozen=True)
class SplitEvaluation:
    """A network's answers on one split."""

    figures: SplitFigures
    """What they come to."""
    confusion: Tensor
    """int64 (classes, classes): samples by true class (row) and answered class (column)."""
    samples: Tensor
    """int64 (N,), rows of the store's samples table."""
    logits: Tensor
    """float32 (N, classes)."""


class Evaluation(Table):
    """What ``latentset evaluate`` finds out."""

    checkpoint: str
    """File of the weights."""
    recipe: str
    """Name of the recipe they come from."""
    epoch: int
    """Epochs that were trained."""
    codec: str
    """Codec of the store."""
    store_fingerprint: str
    """The store's fingerprint."""
    notes: tuple[str, ...]
    """In what the store differs from the one that the network was trained from."""
    crop: str
    """What the network saw of each sample: ``whole`` or ``central``."""
    splits: dict[str, SplitFigures]
    """Figures by split."""


def evaluate_checkpoint(
    checkpoint: Path,
    store: Path | str,
    *,
    splits: Sequence[str] = (),
    crop: EvalCrop | None = None,
    accelerator: Accelerator | None = None,
    confusion: Path | None = None,
    logits: Path | None = None,
) -> Evaluation:
    """Evaluate saved weights.

    Args:
        checkpoint: A file of weights, or a run's folder: its best weights, or its last where it
            had no validation split.
        store: The store.
        splits: Names of splits; all that have samples where empty.
        crop: What the network sees; what the recipe says if None.
        accelerator: Where to compute; where the recipe says if None.
        confusion: Where to write the confusion matrix of all these splits together, CSV.
        logits: Where to write the logits of every sample, for :mod:`latentset.train.run.teacher`.

    Returns:
        The figures.

    Raises:
        TrainingError: The weights cannot be read, or the store is of another codec or has other
            classes than the one they were trained from.
        StoreError: The store cannot be used.
        RecipeError: A split is empty.
    """
    module, record, checkpoint, opened = load_classifier(checkpoint, store)
    of_pixels = module.input.names == ("pixels",)
    given = StoreRecord.of(opened)
    notes = compare_stores(record.store, given, str(store), of_pixels=of_pixels)
    recipe = record.recipe
    if accelerator is not None:
        device = recipe.device.model_copy(update={"accelerator": accelerator})
        recipe = recipe.model_copy(update={"device": device})
    if crop is not None:
        data = recipe.data.model_copy(update={"eval_crop": crop})
        recipe = recipe.model_copy(update={"data": data})
    found = {
        name: evaluate_split(module, recipe, opened, name) for name in splits or split_names(opened)
    }
    classes = opened.header.source.classes
    if confusion is not None:
        total = torch.stack([each.confusion for each in found.values()]).sum(dim=0)
        write_confusion(confusion, total, classes)
    if logits is not None:
        everything = torch.full((opened.header.source.samples, len(classes)), float("nan"))
        for each in found.values():
            everything[each.samples] = each.logits
        write_logits(logits, everything, opened)
    return Evaluation(
        checkpoint=str(checkpoint),
        recipe=recipe.name,
        epoch=record.epoch,
        codec=given.codec,
        store_fingerprint=opened.fingerprint,
        notes=notes,
        crop=recipe.data.eval_crop,
        splits={name: each.figures for name, each in found.items()},
    )


def load_classifier(checkpoint: Path, store: Path | str) -> tuple[Classifier, Record, Path, Store]:
    """Load saved weights into the network of their recipe, for a store.

    Args:
        checkpoint: A file of weights, or a run's folder.
        store: The store.

    Returns:
        The classifier, what its weights are, the file they are from, and the open store.

    Raises:
        TrainingError: The weights cannot be read.
        StoreError: The store cannot be used.
        RecipeError: The store does not hold what the network takes.
    """
    if checkpoint.is_dir():
        checkpoint = checkpoint / (BEST if (checkpoint / BEST).exists() else LAST)
    tensors, record = load_weights(checkpoint)
    opened = open_store(store)
    module = Classifier(build_network(record.recipe.model), record.recipe, opened.header)
    missing = set(module.input.names).difference(opened.header.arrays)
    if missing:
        raise RecipeError(
            f"{store}: {record.recipe.name} takes {', '.join(module.input.names)}, the store "
            f"holds {', '.join(opened.header.arrays)}"
        )
    load_tensors(module, tensors, checkpoint)
    return module, record, checkpoint, opened


def load_tensors(module: Classifier, tensors: dict[str, Tensor], checkpoint: Path) -> None:
    """Put saved weights into their network.

    Args:
        module: Changed in place.
        tensors: The weights.
        checkpoint: Their file, for messages.

    Raises:
        TrainingError: They are not of this network.
    """
    try:
        module.evaluated.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(
            f"{checkpoint}: its tensors are not those of the network in its own record: {error}. "
            "The file was altered: take it from where it came from, or train again"
        ) from error


class _Answers(Callback):
    """Keeps the logits of an evaluation."""

    def __init__(self) -> None:
        self.samples: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.logits: list[Tensor] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.samples.append(batch.samples.cpu())
        self.labels.append(batch.labels.cpu())
        self.logits.append(outputs.cpu())


def evaluate_split(module: Classifier, recipe: Recipe, store: Store, name: str) -> SplitEvaluation:
    """Evaluate a network on one split, in this process alone.

    Args:
        module: The network.
        recipe: Its resolved recipe.
        store: The store.
        name: Name of the split.

    Returns:
        Its answers.

    Raises:
        RecipeError: The split is empty.
    """
    split = select_split(store, name)
    reader = LatentReader(
        store,
        split,
        recipe.data,
        seed=recipe.seed,
        training=False,
        pin_memory=uses_cuda(recipe.device),
        names=module.input.names,
    )
    answers = _Answers()
    trainer = make_trainer(
        recipe.device,
        callbacks=[answers],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    validate = partial(trainer.validate, module, EpochLoader(reader, 0), verbose=False)
    found = run_lightning(trainer, validate)[0]
    labels, logits = torch.cat(answers.labels), torch.cat(answers.logits)
    classes = store.header.source.classes
    confusion = (
        torch.bincount(labels * len(classes) + logits.argmax(dim=1), minlength=len(classes) ** 2)
    ).view(len(classes), -1)
    rights, totals = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    figures = SplitFigures(
        samples=len(split),
        loss=found["val/loss"],
        top1=found["val/top1"],
        top5=found["val/top5"],
        per_class={
            cls: right / total if total else None
            for cls, right, total in zip(classes, rights, totals, strict=True)
        },
    )
    return SplitEvaluation(figures, confusion, torch.cat(answers.samples), logits)


def write_confusion(path: Path, confusion: Tensor, classes: Sequence[str]) -> None:
    """Write a confusion matrix as CSV: a row a true class, a column an answered class.

    Args:
        path: The file; replaced where it exists.
        confusion: int64 (classes, classes).
        classes: Their names.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ answered", *classes])
    writer.writerows([cls, *row] for cls, row in zip(classes, confusion.tolist(), strict=True))
    write_text(path, text.getvalue())


def compare_stores(
    trained: StoreRecord, given: StoreRecord, where: str, *, of_pixels: bool
) -> tuple[str, ...]:
    """Say whether a network can be used with a store.

    Args:
        trained: The store that it was trained from.
        given: The store.
        where: The store, for messages.
        of_pixels: The network takes pixels, which mean the same whatever codec they went through.

    Returns:
        In what they differ although the network can be used.

    Raises:
        TrainingError: It cannot.
    """
    if trained.codec_sha256 != given.codec_sha256 and not of_pixels:
        raise TrainingError(
            f"{where} is of another codec than the network was trained with: expected "
            f"{trained.codec} ({trained.codec_sha256[:12]}), got {given.codec} "
            f"({given.codec_sha256[:12]}); their latents have different meanings. Encode the "
            f"images with {trained.codec}"
        )
    if trained.classes != given.classes:
        raise TrainingError(
            f"{where} has other classes than the network was trained with: expected "
            f"{_shorten(trained.classes)}, got {_shorten(given.classes)}; encode from a source "
            "with the same classes in the same order"
        )
    notes = []
    if trained.codec_sha256 != given.codec_sha256:
        notes.append(f"pixels of codec {given.codec}, trained on those of {trained.codec}")
    if trained.fingerprint != given.fingerprint:
        notes.append("not the store that the network was trained from (same codec and classes)")
    if trained.resize != given.resize:
        notes.append(f"resize rule: trained with {trained.resize}, this store has {given.resize}")
    return tuple(notes)


def _shorten(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:6]) + (", …" if len(classes) > 6 else "")
    return f"{len(classes)} ({shown})"
