"""Claiming a run's folder, and writing an epoch's files to it."""

import csv
import io
from pathlib import Path

from pydantic import ValidationError

from latentset.datasets.errors import TrainingError, describe_invalid
from latentset.datasets.storage.atomic import create_atomically, write_atomically
from latentset.train.models.networks import Table
from latentset.train.recipe.recipe import Recipe, Schedule, differences
from latentset.train.run.checkpoint import Record, StoreRecord, read_progress
from latentset.train.run.epochs import EpochFigures
from latentset.train.run.run_files import METRICS, RECIPE, RESULT, RESUME, lock_run, read_file

OTHER_FOLDER = "Give another folder with --out"

MAX_START_BYTES = 2 << 30
"""It has the names of all classes."""


class Start(Table):
    """What recipe.json holds."""

    recipe: Recipe
    store: StoreRecord
    adopted_sha256: str = ""
    """Of the pretrained weights; empty where there are none."""
    teacher_sha256: str = ""
    """Of the teacher's logits; empty where there is none."""

    def record(self, row: EpochFigures | None) -> Record:
        """The record of an epoch's weights; None for weights that were not trained."""
        metrics = row.model_dump(exclude_none=True) if row else {}
        epoch = row.epoch if row else 0
        return Record(recipe=self.recipe, store=self.store, epoch=epoch, metrics=metrics)


def claim_folder(folder: Path, start: Start, *, write: bool = True) -> None:
    """Write recipe.json with ``write``; refuse a folder of another run, or of something else.

    A run may be given more epochs where those that it has trained would be the same.
    """
    if not (folder / RECIPE).exists():
        if not write:
            return
        _create_folder(folder)
        # Of two that start at once, one creates it, and the other compares.
        if create_atomically(folder / RECIPE, start.model_dump_json(indent=1).encode() + b"\n"):
            return
    before = read_start(folder, OTHER_FOLDER)
    schedule = start.recipe.schedule
    fields = {"epochs": schedule.epochs, "decay_epochs": schedule.decay_epochs}
    moved = before.recipe.schedule.model_copy(update=fields)
    changed = differences(before.recipe.model_copy(update={"schedule": moved}), start.recipe)
    for what, old, new in (
        ("store: fingerprint", before.store.fingerprint, start.store.fingerprint),
        ("store: samples", before.store.samples_sha256, start.store.samples_sha256),
        ("pretrained weights: sha256", before.adopted_sha256, start.adopted_sha256),
        ("teacher's logits: sha256", before.teacher_sha256, start.teacher_sha256),
    ):
        if "" not in (old, new) and old != new:
            changed.append(f"{what} {old[:12]} -> {new[:12]}")
    if changed:
        raise TrainingError(
            f"{folder} holds a run with other settings:\n  "
            + "\n  ".join(changed)
            + "\nResume it with its own settings, or give another folder with --out"
        )
    if moved == before.recipe.schedule:
        return
    _check_schedule(folder, before.recipe.schedule, schedule)
    if write:
        with lock_run(folder):
            if read_start(folder, OTHER_FOLDER) != before:
                raise TrainingError(f"{folder} was just changed: run the same command again")
            # First: with the old result, a recipe of more epochs would be finished.
            (folder / RESULT).unlink(missing_ok=True)
            longer = before.model_copy(update={"recipe": start.recipe})
            write_atomically(folder / RECIPE, longer.model_dump_json(indent=1) + "\n")


def read_start(folder: Path, remedy: str) -> Start:
    """Read how a run was started; ``remedy`` ends the message where that cannot be."""
    path = folder / RECIPE
    try:
        return Start.model_validate_json(read_file(path, MAX_START_BYTES))
    except ValidationError as error:
        raise TrainingError(
            f"{path} cannot be read; was it written by another version? {remedy}. "
            f"{describe_invalid(error)}"
        ) from error


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the epochs of a recipe are trained."""
    if not (folder / RECIPE).exists():
        return False
    # Before the result, which is removed before more epochs are noted.
    start = read_start(folder, OTHER_FOLDER)
    same = start.recipe.schedule.epochs == recipe.schedule.epochs
    return same and (folder / RESULT).exists()


def _check_schedule(folder: Path, before: Schedule, after: Schedule) -> None:
    """Refuse another number of epochs where trained ones would have been trained otherwise."""
    trained, advice = before.epochs, "give another folder with --out"
    if (folder / RESUME).exists():
        progress = read_progress(folder / RESUME)
        trained = progress.epoch + (progress.batches > 0)
    elif not (folder / RESULT).exists():
        trained = 0
    elif trained:
        raise TrainingError(
            f"{folder} cannot be given more epochs: it has no {RESUME}, from which they would "
            f"start; {advice}"
        )
    if after.epochs < trained:
        raise TrainingError(
            f"{folder} has trained {trained} epochs, more than schedule.epochs={after.epochs}: "
            f"{advice}"
        )
    for epoch in range(trained):
        if before.rates(epoch) != after.rates(epoch):
            raise TrainingError(
                f"{folder} was trained with other learning rates: {before.rates(epoch)[0]:g} in "
                f"epoch {epoch + 1}, which schedule.decay_epochs={list(after.decay_epochs)} makes "
                f"{after.rates(epoch)[0]:g}. Decay after epoch {trained} or later, or {advice}"
            )


def _create_folder(folder: Path) -> None:
    # A run that was killed as it started leaves a partial recipe.json, another may write it now.
    if folder.exists() and not (
        folder.is_dir()
        and all(
            p.name == RECIPE or p.name.startswith(f".{RECIPE}.partial") for p in folder.iterdir()
        )
    ):
        raise TrainingError(
            f"{folder} is not empty and not the folder of a run (it has no {RECIPE}); "
            "give another with --out"
        )
    folder.mkdir(parents=True, exist_ok=True)


def write_metrics(folder: Path, rows: list[EpochFigures]) -> None:
    """Write all epochs to metrics.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, EpochFigures.model_fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    write_atomically(folder / METRICS, text.getvalue())
