"""The folder of a run, and keeping it up to date after every epoch.

::

    RUN/recipe.json          the resolved recipe, the store it was held against, and digests of the
                             weights and logits that it was given; written first, locked
    RUN/metrics.csv          one row an epoch
    RUN/tensorboard/         the same and the loss of steps, for TensorBoard
    RUN/last.safetensors     weights after the last epoch (checkpoint.py)
    RUN/best.safetensors     weights of the epoch with the highest top-1 on the validation split
    RUN/resume.safetensors   what a run that goes on needs; also saved within an epoch
    RUN/confusion.csv        which class was taken for which, on the test split
    RUN/result.json          the figures; written last: with it the run is finished
"""

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from pydantic import ValidationError
from rich.console import Console

from latentset.datasets.errors import TrainingError, describe_invalid
from latentset.train.models.networks import Table
from latentset.train.recipe.recipe import Recipe, differences
from latentset.train.run.checkpoint import Record, StoreRecord, save_weights
from latentset.train.run.engine import StoppedBetweenSteps
from latentset.train.run.run_files import BEST, LAST, METRICS, RECIPE, RESUME, write_text

COLUMNS = (
    "epoch",
    "frozen",
    "lr_new",
    "lr_adopted",
    "train_loss",
    "train_top1",
    "val_loss",
    "val_top1",
    "val_top5",
    "seconds",
    "samples_per_s",
)
"""Of metrics.csv. Epochs count from 1; accuracies are shares; seconds and samples/s are of
training alone, without validation."""

Row = dict[str, float | None]
"""One epoch's figures by column; None where there is no validation split."""


class Start(Table):
    """What recipe.json holds."""

    recipe: Recipe
    """The resolved recipe."""
    store: StoreRecord
    """The store."""
    adopted_sha256: str = ""
    """Digest of the weights that were adopted; empty where none were."""
    teacher_sha256: str = ""
    """Digest of the teacher's logits; empty where there is none."""


def begin(folder: Path, start: Start, *, write: bool = True) -> bool:
    """Claim a folder for a run, or find the run that was begun there.

    Args:
        folder: The run's folder.
        start: What is about to be trained.
        write: Whether this process writes; of several only the first does.

    Returns:
        Whether there is a state to go on from.

    Raises:
        TrainingError: Another run, or something else, is in the folder.
    """
    path = folder / RECIPE
    if not path.exists():
        if not write:
            return False
        if folder.exists() and not (folder.is_dir() and _is_empty(folder)):
            raise TrainingError(
                f"{folder} is not empty and not the folder of a run (it has no {RECIPE}); "
                "give another with --out"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except NotADirectoryError as error:
            raise TrainingError(
                f"{folder} lies in something that is no folder; give another with --out"
            ) from error
        write_text(path, start.model_dump_json(indent=1) + "\n")
        return False
    try:
        before = Start.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise TrainingError(
            f"{path} cannot be read; was it written by another version? "
            f"Give another folder with --out. {describe_invalid(error)}"
        ) from error
    changed = differences(before.recipe, start.recipe)
    if before.store.fingerprint != start.store.fingerprint:
        changed.append(
            f"store: fingerprint {before.store.fingerprint[:12]} -> {start.store.fingerprint[:12]}"
        )
    for what, old, new in (
        ("adopted weights", before.adopted_sha256, start.adopted_sha256),
        ("teacher's logits", before.teacher_sha256, start.teacher_sha256),
    ):
        if "" not in (old, new) and old != new:
            changed.append(f"{what}: sha256 {old[:12]} -> {new[:12]}")
    if changed:
        raise TrainingError(
            f"{folder} holds a run that was begun otherwise:\n  "
            + "\n  ".join(changed)
            + "\nGo on with its own settings, or give another folder with --out"
        )
    return (folder / RESUME).exists()


def _is_empty(folder: Path) -> bool:
    """Whether there is nothing in a folder, or what a run left that was killed as it began."""
    return all(path.name == f".{RECIPE}.partial" for path in folder.iterdir())


class RunFolder(Checkpoint):
    """Writes what an epoch brought, and says it in a line.

    The figures of all epochs are part of the state that a run goes on from, so metrics.csv is right
    also after a run was killed between two writes.

    Args:
        folder: The run's folder.
        start: What is trained.
        console: Where lines go.
    """

    def __init__(self, folder: Path, start: Start, console: Console) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.best: Row | None = None
        self.batches = 0  # of the epoch that was begun, when the state was saved
        self.folder = folder
        self.start = start
        self.console = console
        self._began = self._trained = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What goes into the state of the run."""
        seconds = time.perf_counter() - self._began if self.batches else 0.0
        return {
            "rows": self.rows,
            "best": self.best,
            "batches": self.batches,
            "seconds": seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the figures of a run that goes on.

        Args:
            state_dict: From :meth:`state_dict`.
        """
        self.rows, self.best = list(state_dict["rows"]), state_dict["best"]
        self.batches = state_dict["batches"]
        self._began = time.perf_counter() - state_dict["seconds"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time; an epoch that is taken up in its middle has its own."""
        self._began, self._trained = time.perf_counter(), 0.0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save the state now and then, after a whole step."""
        recipe, done = self.start.recipe, batch_idx + 1
        every = recipe.device.save_steps * recipe.schedule.accumulate
        if done % every == 0 and done < trainer.num_training_batches:
            self.batches = done
            trainer.save_checkpoint(self.folder / RESUME)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save the state at Ctrl-C; of several processes each may have stopped at another step."""
        done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        if isinstance(exception, StoppedBetweenSteps) and done and trainer.world_size == 1:
            self.batches = done
            trainer.save_checkpoint(self.folder / RESUME)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time: training of the epoch is over."""
        self._trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write everything; Lightning calls this after the validation of the epoch."""
        row = self._row(trainer, pl_module)
        # NaN in the network may show on the validation split first.
        losses = [row["train_loss"], row["val_loss"]]
        wrong = [loss for loss in losses if loss is not None and not math.isfinite(loss)]
        if wrong:
            raise TrainingError(
                f"epoch {row['epoch']:.0f}: the loss is {wrong[0]}; expected a finite number. "
                "Lower schedule.learning_rate; if it is so from the first epoch on, check the "
                f"store. The last good state is in {self.folder}"
            )
        self.rows.append(row)
        record = make_record(self.start, row)
        module: Any = pl_module
        tensors, best = module.evaluated.state_dict(), self._is_best(row)
        if best:
            self.best = row
        if trainer.is_global_zero:
            if best:
                save_weights(self.folder / BEST, tensors, record)
            save_weights(self.folder / LAST, tensors, record)
            self._write_metrics()
        self.batches = 0
        trainer.save_checkpoint(self.folder / RESUME)
        line = describe(row, self.start.recipe.schedule.epochs)
        self.console.print(line, highlight=False, soft_wrap=True)

    def _row(self, trainer: Trainer, module: Any) -> Row:
        recipe, epoch = self.start.recipe, trainer.current_epoch
        figures = {name: value.item() for name, value in trainer.callback_metrics.items()}
        seconds = (self._trained or time.perf_counter()) - self._began
        new, adopted = (group["lr"] for group in trainer.optimizers[0].param_groups)
        frozen = bool(module.network.frozen)
        samples = trainer.num_training_batches * recipe.data.batch_size / recipe.schedule.accumulate
        return {
            "epoch": epoch + 1,
            "frozen": int(frozen),
            "lr_new": new,
            "lr_adopted": 0.0 if frozen else adopted,
            "train_loss": figures.get("train/loss"),
            "train_top1": figures.get("train/top1"),
            "val_loss": figures.get("val/loss"),
            "val_top1": figures.get("val/top1"),
            "val_top5": figures.get("val/top5"),
            "seconds": seconds,
            "samples_per_s": samples / seconds,
        }

    def _is_best(self, row: Row) -> bool:
        top1 = row["val_top1"]
        return top1 is not None and (self.best is None or top1 > (self.best["val_top1"] or 0))

    def _write_metrics(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.folder / METRICS, text.getvalue())


def describe(row: Row, epochs: int) -> str:
    """Put an epoch's figures into one line.

    Args:
        row: The figures.
        epochs: Epochs in all.

    Returns:
        Text without line end.
    """
    parts = [
        f"epoch {row['epoch']:>{len(str(epochs))}.0f}/{epochs}",
        f"loss {row['train_loss']:.4f}",
        f"top-1 {_percent(row['train_top1'])}",
    ]
    if row["val_top1"] is not None:
        parts += [
            f"val loss {row['val_loss']:.4f}",
            f"top-1 {_percent(row['val_top1'])}",
            f"top-5 {_percent(row['val_top5'])}",
        ]
    parts.append(f"{row['samples_per_s']:,.0f} samples/s")
    if row["frozen"]:
        parts.append("trunk frozen")
    return "  ".join(parts)


def make_record(start: Start, row: Row) -> Record:
    """Say what the weights of an epoch are.

    Args:
        start: What is trained.
        row: The epoch's figures; empty for weights that were adopted and not trained.

    Returns:
        What goes into their file.
    """
    return Record(
        recipe=start.recipe,
        store=start.store,
        epoch=int(row.get("epoch") or 0),
        metrics={name: value for name, value in row.items() if value is not None},
    )


def _percent(share: float | None) -> str:
    return f"{100 * (share or 0):5.1f} %"
