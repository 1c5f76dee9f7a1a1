"""How far a run is: the figures of its epochs, and the sums of the epoch in progress."""

import math

from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt

from latentset.datasets.errors import TrainingError
from latentset.train.models.networks import Table

FAR = 10
"""Validation loss over training loss from which on the line of an epoch says so."""


class EpochFigures(Table):
    """A row of metrics.csv; accuracies are from 0 to 1, seconds and samples/s of training alone."""

    model_config = ConfigDict(allow_inf_nan=True)  # until ``check``

    epoch: int
    """From 1."""
    frozen: int
    lr_new: float
    lr_adopted: float
    train_loss: float
    train_top1: float
    val_loss: float | None
    val_top1: float | None
    val_top5: float | None
    seconds: float
    samples_per_s: float

    def check(self, folder: object) -> None:
        """Refuse a loss that is not finite."""
        losses = [self.train_loss, self.val_loss]
        for loss in losses:
            if loss is not None and not math.isfinite(loss):
                kept = "If that does not help, check the store"
                if self.epoch > 1:
                    kept = f"The weights of epoch {self.epoch - 1} are in {folder}"
                raise TrainingError(
                    f"epoch {self.epoch}: the loss is {loss}; expected a finite number. Lower "
                    f"schedule.learning_rate, and start in another folder (--out). {kept}"
                )

    def line(self, epochs: int) -> str:
        """The figures in one line."""
        top1 = _percent(self.train_top1)
        parts = [f"epoch {self.epoch:>{len(str(epochs))}}/{epochs}"]
        parts += [f"loss {self.train_loss:.4f}", f"top-1 {top1}"]
        if self.val_top1 is not None:
            parts += [f"val loss {self.val_loss:.4f}", f"top-1 {_percent(self.val_top1)}"]
            if self.val_top5 != 1:  # of up to five classes
                parts.append(f"top-5 {_percent(self.val_top5)}")
        parts.append(f"{self.samples_per_s:,.0f} samples/s")
        line = "  ".join([*parts, "trunk frozen"] if self.frozen else parts)
        if self.val_loss is not None and self.val_loss >= FAR * self.train_loss > 0:
            times = self.val_loss / self.train_loss
            line += (
                f"\n  the validation loss is {times:,.0f} times the training loss: "
                "docs/training.md, When the validation loss is far above"
            )
        return line


class Progress(BaseModel):
    """How far a run is."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants")

    rows: list[EpochFigures] = []
    best: EpochFigures | None = None
    """By top-1 on the validation split."""
    batches: NonNegativeInt = 0
    """Micro-batches done of the epoch in progress, always those of whole steps when saved."""
    sums: tuple[float, float] = (0.0, 0.0)
    """Of that epoch over all processes: loss of each sample, correct predictions."""
    seconds: FiniteFloat = 0.0
    frozen_epochs: NonNegativeInt
    """Epochs of the first phase: at first the schedule's; fewer where a plateau ends it."""
    lowest_loss: FiniteFloat | None = None
    """Of the validation split, in the first phase."""
    waited_epochs: NonNegativeInt = 0
    """Epochs since then."""

    def check(self, epochs: int, batches: int, accumulate: int) -> None:
        """Raise ValueError unless it can be that of a run of so many epochs and micro-batches."""
        expected = list(range(1, len(self.rows) + 1))
        if [row.epoch for row in self.rows] != expected or len(expected) > epochs:
            raise ValueError(f"expected figures of epochs 1 to at most {epochs}")
        if self.batches % accumulate or not self.batches < batches:
            raise ValueError(f"expected whole steps of {batches} batches, got {self.batches}")
        for row in [*self.rows, *([self.best] if self.best else [])]:
            if not all(math.isfinite(x) for x in row.model_dump(exclude_none=True).values()):
                raise ValueError(f"epoch {row.epoch} has figures that are not finite")

    @property
    def epoch(self) -> int:
        """The epoch in progress, from 0."""
        return len(self.rows)

    def finish_epoch(self, row: EpochFigures, plateau_epochs: int) -> bool:
        """Add an epoch's figures, and end the first phase at a plateau; return whether it is best.

        A plateau, as the paper calls it: the validation loss has not fallen for so many epochs.
        """
        if plateau_epochs and self.epoch + 1 < self.frozen_epochs and row.val_loss is not None:
            if self.lowest_loss is None or row.val_loss < self.lowest_loss:
                self.lowest_loss, self.waited_epochs = row.val_loss, 0
            else:
                self.waited_epochs += 1
            if self.waited_epochs == plateau_epochs:
                self.frozen_epochs = self.epoch + 1
        self.rows.append(row)
        self.batches, self.sums, self.seconds = 0, (0.0, 0.0), 0.0
        if row.val_top1 is None or (self.best and row.val_top1 <= (self.best.val_top1 or 0)):
            return False
        self.best = row
        return True


def _percent(accuracy: float | None) -> str:
    return f"{100 * (accuracy or 0):5.1f} %"
