"""Top-1, top-5, loss and confusion of a network on splits of a store."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latentset.datasets.errors import RecipeError, TrainingError
from latentset.datasets.storage.atomic import write_atomically
from latentset.datasets.store import Store, open_store
from latentset.train.data.batches import LatentReader
from latentset.train.data.split import select_split, split_names
from latentset.train.models.build import build_network
from latentset.train.models.networks import Table
from latentset.train.recipe.recipe import Accelerator, EvalCrop, Recipe, codec_name
from latentset.train.run.checkpoint import Record, StoreRecord, load_weights
from latentset.train.run.classifier import Classifier, predict, score
from latentset.train.run.run_files import BEST, LAST
from latentset.train.run.teacher import write_logits
from latentset.train.run.world import select_device


class SplitFigures(Table):
    """Of a network on one split."""

    samples: int
    loss: float
    """Mean cross entropy, nats."""
    top1: float
    """0 to 1."""
    top5: float
    per_class: dict[str, float | None]
    """top1 of each class's samples, if any."""


@dataclass(frozen=True)
class SplitEvaluation:
    """A network's predictions on one split."""

    figures: SplitFigures
    confusion: Tensor
    """int64 (classes, classes): samples by true class (row) and predicted class (column)."""
    samples: Tensor
    """int64 (N,), rows of the store's samples table."""
    logits: Tensor
    """float32 (N, classes)."""


class Evaluation(Table):
    """The result of ``latentset evaluate``."""

    checkpoint: str
    recipe: str
    epoch: int
    codec: str
    store_fingerprint: str
    notes: tuple[str, ...]
    """How the store differs from the one that the network was trained from."""
    crop: str
    splits: dict[str, SplitFigures]


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
    """Evaluate a file of weights, or a run's folder: its best weights, else its last.

    ``confusion`` and ``logits`` are files to write: a CSV matrix of all these splits together, and
    every sample's logits for ``teacher``. A store of another codec or of other classes is refused.
    """
    classifier, record, checkpoint, opened, notes = load_classifier(checkpoint, store)
    recipe = record.recipe
    device, data = recipe.device, recipe.data
    if accelerator is not None:
        device = device.model_copy(update={"accelerator": accelerator})
    if crop is not None:
        data = data.model_copy(update={"eval_crop": crop})
    recipe = recipe.model_copy(update={"device": device, "data": data})
    names = splits or split_names(opened)
    found = {name: evaluate_split(classifier, recipe, opened, name) for name in names}
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
        codec=codec_name(opened.header),
        store_fingerprint=opened.fingerprint,
        notes=notes,
        crop=recipe.data.eval_crop,
        splits={name: each.figures for name, each in found.items()},
    )


def load_classifier(
    checkpoint: Path, store: Path | str
) -> tuple[Classifier, Record, Path, Store, tuple[str, ...]]:
    """Load saved weights into the network of their recipe, for a store.

    Returns the classifier, the record of its weights, their file, the store, and notes on it.
    """
    if checkpoint.is_dir():
        checkpoint = checkpoint / (BEST if (checkpoint / BEST).exists() else LAST)
    tensors, record = load_weights(checkpoint)
    opened = open_store(store)
    classifier = Classifier(build_network(record.recipe.model), record.recipe, opened.header)
    if set(classifier.input.names).difference(opened.header.arrays):
        raise RecipeError(
            f"{store}: {record.recipe.name} takes {', '.join(classifier.input.names)}, the store "
            f"holds {', '.join(opened.header.arrays)}"
        )
    try:
        classifier.evaluated.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(
            f"{checkpoint}: its tensors are not those of the network in its own record: {error}. "
            "The file was altered: copy it again from its source, or train again"
        ) from error
    of_pixels = classifier.input.names == ("pixels",)
    notes = compare_stores(record.store, StoreRecord.of(opened), str(store), of_pixels=of_pixels)
    return classifier, record, checkpoint, opened, notes


def evaluate_split(
    classifier: Classifier, recipe: Recipe, store: Store, name: str
) -> SplitEvaluation:
    """Evaluate a network on one split, in this process alone."""
    device = select_device(recipe.device)
    split = select_split(store, name)
    reader = LatentReader(
        store,
        split,
        recipe.data,
        seed=recipe.seed,
        training=False,
        pin_memory=device.type == "cuda",
        names=classifier.input.names,
    )
    predictions = [
        (batch.samples.cpu(), batch.labels.cpu(), logits.cpu())
        for batch, logits in predict(classifier.to(device), reader, device)
    ]
    samples, labels, logits = (torch.cat(column) for column in zip(*predictions, strict=True))
    loss, top1, top5, count = score(logits, labels).tolist()
    classes = store.header.source.classes
    cells = labels * len(classes) + logits.argmax(dim=1)
    confusion = cells.bincount(minlength=len(classes) ** 2).view(len(classes), -1)
    counts = zip(confusion.diagonal().tolist(), confusion.sum(dim=1).tolist(), strict=True)
    figures = SplitFigures(
        samples=len(split),
        loss=loss / count,
        top1=top1 / count,
        top5=top5 / count,
        per_class={
            cls: right / total if total else None
            for cls, (right, total) in zip(classes, counts, strict=True)
        },
    )
    return SplitEvaluation(figures, confusion, samples, logits)


def write_confusion(path: Path, confusion: Tensor, classes: Sequence[str]) -> None:
    """Write a confusion matrix as CSV: a row a true class, a column a predicted class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ answered", *classes])
    writer.writerows([cls, *row] for cls, row in zip(classes, confusion.tolist(), strict=True))
    write_atomically(path, text.getvalue())


def compare_stores(
    trained: StoreRecord, given: StoreRecord, location: str, *, of_pixels: bool
) -> tuple[str, ...]:
    """Refuse a store that a network cannot be used with; return in what else it differs."""
    if trained.codec_sha256 != given.codec_sha256 and not of_pixels:
        raise TrainingError(
            f"{location} is of another codec than the network was trained with: expected "
            f"{trained.codec} ({trained.codec_sha256[:12]}), got {given.codec} "
            f"({given.codec_sha256[:12]}); their latents have different meanings. Encode the "
            f"images with {trained.codec}"
        )
    if trained.classes != given.classes:
        raise TrainingError(
            f"{location} has other classes than the network was trained with: expected "
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
