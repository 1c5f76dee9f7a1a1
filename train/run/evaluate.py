"""Top-1, top-5, loss and confusion of a network on splits of a store."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentset.datasets.errors import RecipeError, TrainingError
from latentset.datasets.storage.atomic import write_atomically
from latentset.datasets.store import Store, open_store
from latentset.train.data.split import select_split, split_names
from latentset.train.models.build import build_network
from latentset.train.models.networks import Table
from latentset.train.recipe.recipe import Accelerator, EvalCrop, Recipe, codec_name
from latentset.train.run.checkpoint import Record, StoreRecord, check_weights, load_weights
from latentset.train.run.classifier import Classifier, predict_split, score
from latentset.train.run.run_files import BEST, LAST, RECIPE, check_target
from latentset.train.run.teacher import write_logits

MAX_CONFUSION_CLASSES = 2000
"""A confusion matrix of more is neither made nor written: it grows with their square."""


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
    samples: Tensor
    """int64 (N,), rows of the store's samples table."""
    labels: Tensor
    """int64 (N,)."""
    predicted: Tensor
    """int64 (N,): the class of the largest logit."""


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
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust_store: bool = False,
) -> Evaluation:
    """Evaluate a file of weights, or a run's folder: its best weights, else its last.

    ``confusion`` and ``logits`` are files to write: a CSV matrix of all these splits together, and
    every sample's logits for ``teacher``. A store of another codec or of other classes is refused.
    ``cache`` and ``cache_bytes`` are those of ``open_store``. Unless ``trust_store``, the shards of
    a local store are compared with their digests while they are read.
    """
    for target in (confusion, logits):
        if target is not None:
            check_target(target)
    classifier, record, checkpoint, opened, notes = load_classifier(
        checkpoint, store, cache=cache, cache_bytes=cache_bytes
    )
    recipe = override(record.recipe, crop=crop, accelerator=accelerator)
    names = splits or split_names(opened)
    classes = record.store.classes
    if confusion is not None and len(classes) > MAX_CONFUSION_CLASSES:
        raise RecipeError(
            f"--confusion: expected at most {MAX_CONFUSION_CLASSES:,} classes, {checkpoint} "
            f"has {len(classes):,}"
        )
    everything = None
    if logits is not None:
        shape = opened.header.source.samples, len(classes)
        everything = torch.full(shape, float("nan"), dtype=torch.float16)
    found = {
        name: evaluate_split(
            classifier,
            recipe,
            opened,
            name,
            everything,
            classes=classes,
            check_shards=not trust_store,
        )
        for name in names
    }
    if confusion is not None:
        write_confusion(confusion, list(found.values()), classes)
    if logits is not None and everything is not None:
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


def override(recipe: Recipe, *, crop: EvalCrop | None, accelerator: Accelerator | None) -> Recipe:
    """The recipe with what a command says otherwise."""
    device, data = recipe.device, recipe.data
    if accelerator is not None:
        device = device.model_copy(update={"accelerator": accelerator})
    if crop is not None:
        data = data.model_copy(update={"eval_crop": crop})
    return recipe.model_copy(update={"device": device, "data": data})


def load_classifier(
    checkpoint: Path,
    store: Path | str,
    *,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    same_classes: bool = True,
) -> tuple[Classifier, Record, Path, Store, tuple[str, ...]]:
    """Load saved weights into the network of their recipe, for a store.

    ``same_classes`` refuses a store of other classes, and notes that it is another store. Returns
    the classifier, the record of its weights, their file, the store, and notes on it.
    """
    if (Path(store) / RECIPE).exists() and not (checkpoint / RECIPE).exists():
        raise TrainingError(
            f"{store} is a run and not a store: give the run, or its weights, first, as "
            f"RUN STORE: {store} {checkpoint}"
        )
    if checkpoint.is_dir():
        checkpoint = checkpoint / (BEST if (checkpoint / BEST).exists() else LAST)
    tensors, record = load_weights(checkpoint)
    opened = open_store(store, cache=cache, cache_bytes=cache_bytes)
    with torch.device("meta"):  # before a network that a file names takes memory
        check_weights(checkpoint, tensors, build_network(record.recipe.model))
    classifier = Classifier(build_network(record.recipe.model), record.recipe, opened.header)
    if set(classifier.input.names).difference(opened.header.arrays):
        raise RecipeError(
            f"{store}: {record.recipe.name} takes {', '.join(classifier.input.names)}, the store "
            f"holds {', '.join(opened.header.arrays)}"
        )
    codec, channels = opened.header.codec, getattr(record.recipe.model, "channels", None)
    if codec is not None and channels not in (None, codec.channels):
        raise TrainingError(
            f"{store} has latents of {codec.channels} channels, the network was trained with "
            f"{channels}; encode the images with {record.store.codec}"
        )
    if record.recipe.model.num_classes != len(record.store.classes):
        raise TrainingError(
            f"{checkpoint}: expected one name a class in its record, got "
            f"{len(record.store.classes)} names of {record.recipe.model.num_classes} classes; "
            "copy the file again from its source, or train again"
        )
    classifier.evaluated.load_state_dict(tensors)
    of_pixels = classifier.input.names == ("pixels",)
    notes = compare_stores(
        record.store,
        StoreRecord.of(opened),
        str(store),
        of_pixels=of_pixels,
        same_classes=same_classes,
    )
    return classifier, record, checkpoint, opened, notes


def evaluate_split(
    classifier: Classifier,
    recipe: Recipe,
    store: Store,
    name: str,
    everything: Tensor | None = None,
    *,
    classes: tuple[str, ...] | None = None,
    check_shards: bool = True,
) -> SplitEvaluation:
    """Evaluate a network on one split, in this process alone.

    ``classes`` are the network's, of which the store may have some only; None is the store's own.
    Logits go to ``everything`` (samples of the store, classes), if given, batch by batch.
    """
    of_store, split = store.header.source.classes, select_split(store, name)
    classes = of_store if classes is None else classes
    if classes != of_store:
        numbers = np.array([classes.index(cls) for cls in of_store])
        split = replace(split, labels=numbers[split.labels])
    predicting = predict_split(classifier, recipe, store, split, check_shards=check_shards)
    sums = torch.zeros(4, dtype=torch.float64)
    columns: list[tuple[Tensor, ...]] = []
    for batch, logits in predicting:
        sums += score(logits, batch.labels).cpu()
        columns.append((batch.samples.cpu(), batch.labels.cpu(), logits.argmax(dim=1).cpu()))
        if everything is not None:
            everything[batch.samples.cpu()] = logits.cpu().to(everything.dtype)
    samples, labels, predicted = (torch.cat(column) for column in zip(*columns, strict=True))
    loss, top1, top5, count = sums.tolist()
    if not math.isfinite(loss):
        raise TrainingError(
            f"{store.location}: split {name!r}: the loss is {loss}: the network gives values that "
            "are not finite. Train it again, with a lower schedule.learning_rate if it diverged"
        )
    right = labels[labels == predicted].bincount(minlength=len(classes)).tolist()
    totals = labels.bincount(minlength=len(classes)).tolist()
    figures = SplitFigures(
        samples=len(split),
        loss=loss / count,
        top1=top1 / count,
        top5=top5 / count,
        per_class={
            cls: found / total if total else None
            for cls, found, total in zip(classes, right, totals, strict=True)
        },
    )
    return SplitEvaluation(figures, samples, labels, predicted)


def write_confusion(path: Path, found: Sequence[SplitEvaluation], classes: Sequence[str]) -> None:
    """Write the confusion matrix of splits together: a row a true class, a column a predicted."""
    cells = [each.labels * len(classes) + each.predicted for each in found]
    confusion = torch.cat(cells).bincount(minlength=len(classes) ** 2).view(len(classes), -1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ predicted", *classes])
    writer.writerows([cls, *row.tolist()] for cls, row in zip(classes, confusion, strict=True))
    write_atomically(path, text.getvalue())


def compare_stores(
    trained: StoreRecord,
    given: StoreRecord,
    location: str,
    *,
    of_pixels: bool,
    same_classes: bool = True,
) -> tuple[str, ...]:
    """Refuse a store that a network cannot be used with; return in what else it differs."""
    if trained.codec_sha256 != given.codec_sha256 and not of_pixels:
        raise TrainingError(
            f"{location} is of another codec than the network was trained with: expected "
            f"{trained.codec} ({trained.codec_sha256[:12]}), got {given.codec} "
            f"({given.codec_sha256[:12]}); their latents have different meanings. Encode the "
            f"images with {trained.codec}"
        )
    known = set(trained.classes)
    other = [cls for cls in given.classes if cls not in known]
    if same_classes and other:
        raise TrainingError(
            f"{location} has other classes than the network was trained with: expected "
            f"{_shorten(trained.classes)}, or some of them, got {_shorten(given.classes)}: "
            f"{other[0]!r} is none of them; encode from a source with the same classes"
        )
    notes = []
    if trained.codec_sha256 != given.codec_sha256:
        notes.append(f"pixels of codec {given.codec}, trained on those of {trained.codec}")
    if trained.fingerprint != given.fingerprint and same_classes:
        also = " and classes" if trained.classes == given.classes else ""
        notes.append(f"not the store that the network was trained from (same codec{also})")
    if given.classes and trained.classes != given.classes:
        notes.append(f"the classes are those of the run, the store's are {_shorten(given.classes)}")
    if trained.resize != given.resize:
        notes.append(f"resize rule: trained with {trained.resize}, this store has {given.resize}")
    return tuple(notes)


def _shorten(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:6]) + (", …" if len(classes) > 6 else "")
    return f"{len(classes)} ({shown})"
