"""Claiming a run's folder, and writing an epoch's files to it."""

import csv
import io
from pathlib import Path

from pydantic import ValidationError

from latentset.datasets.errors import TrainingError, describe_invalid
from latentset.datasets.storage.atomic import write_atomically
from latentset.train.models.networks import Table
from latentset.train.recipe.recipe import Recipe, differences
from latentset.train.run.checkpoint import Record, StoreRecord
from latentset.train.run.epochs import EpochFigures
from latentset.train.run.run_files import METRICS, RECIPE


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
    """Write recipe.json with ``write``; refuse a folder of another run, or of something else."""
    path = folder / RECIPE
    if not path.exists():
        if write:
            _create_folder(folder)
            write_atomically(path, start.model_dump_json(indent=1) + "\n")
        return
    try:
        before = Start.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise TrainingError(
            f"{path} cannot be read; was it written by another version? "
            f"Give another folder with --out. {describe_invalid(error)}"
        ) from error
    changed = differences(before.recipe, start.recipe)
    for what, old, new in (
        ("store: fingerprint", before.store.fingerprint, start.store.fingerprint),
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


def _create_folder(folder: Path) -> None:
    # A run that was killed as it started leaves a partial recipe.json.
    if folder.exists() and not (
        folder.is_dir() and all(p.name.startswith(f".{RECIPE}.partial") for p in folder.iterdir())
    ):
        raise TrainingError(
            f"{folder} is not empty and not the folder of a run (it has no {RECIPE}); "
            "give another with --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except NotADirectoryError as error:
        raise TrainingError(
            f"{folder} is inside something that is no folder; give another with --out"
        ) from error


def write_metrics(folder: Path, rows: list[EpochFigures]) -> None:
    """Write all epochs to metrics.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, EpochFigures.model_fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    write_atomically(folder / METRICS, text.getvalue())
