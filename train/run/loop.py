"""The training loop: batch -> forward -> loss -> step -> log; then validate, save, next epoch."""

import os
import signal
import threading
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn
from rich.progress import Progress as ProgressBar
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from latentset.datasets.errors import TrainingError
from latentset.train.data.batches import Batch, LatentReader
from latentset.train.run.checkpoint import save_state, save_weights
from latentset.train.run.classifier import Classifier, autocast, predict, score
from latentset.train.run.epochs import EpochFigures, Progress
from latentset.train.run.loss import classification_loss, mix, mixup_weight
from latentset.train.run.run_files import BEST, LAST, RESUME, TENSORBOARD
from latentset.train.run.run_folder import Start, write_metrics
from latentset.train.run.world import World

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_STEPS = 50
"""Steps between two losses in TensorBoard, or an epoch's where it has fewer."""


@dataclass
class Training:
    """All that training works with."""

    start: Start
    folder: Path
    console: Console
    world: World
    device: torch.device
    classifier: Classifier
    optimizer: torch.optim.SGD
    train_reader: LatentReader
    val_reader: LatentReader | None
    progress: Progress
    writer: "SummaryWriter | None" = None

    def __post_init__(self) -> None:
        self.stop = StopSignal(self.world)
        self.steps = len(self.train_reader) // self.start.recipe.schedule.accumulate
        hidden = not self.console.is_terminal or self.console.quiet
        columns = *ProgressBar.get_default_columns(), MofNCompleteColumn()
        self.bar = ProgressBar(*columns, console=self.console, disable=hidden)


def train(run: Training, epochs: int) -> None:
    """Train until ``epochs`` are done; Ctrl-C saves the state and raises KeyboardInterrupt."""
    if run.world.is_first:
        # TensorBoard imports TensorFlow where that is installed.
        from torch.utils.tensorboard import SummaryWriter

        if (events := run.folder / TENSORBOARD).is_symlink():
            raise TrainingError(f"{events} is a link, which is not followed: remove it")
        run.writer = SummaryWriter(events)
    model = None
    with run.stop, run.bar, closing(run.writer) if run.writer else nullcontext():
        while run.progress.epoch < epochs:
            model = start_phase(run, model)
            train_epoch(run, model)
            validated = validate(run)
            finish_epoch(run, validated)
        if run.stop.pressed:  # within the last epoch
            raise KeyboardInterrupt


def start_phase(run: Training, model: nn.Module | None) -> nn.Module:
    """Set learning rates and what is frozen; return what computes gradients over all processes.

    Source: the paper's two phases: section 4.2, equations 8 to 13; section 5.3.
    """
    network, epoch = run.classifier.network, run.progress.epoch
    frozen, before = epoch < run.progress.frozen_epochs, network.frozen
    if frozen:
        network.freeze_pretrained()
    else:
        network.unfreeze()
    for group, rate in zip(
        run.optimizer.param_groups, run.start.recipe.schedule.rates(epoch), strict=True
    ):
        group["lr"] = rate
    if model is not None and frozen == before:
        return model
    return DistributedDataParallel(network) if run.world.world_size > 1 else network


def train_epoch(run: Training, model: nn.Module) -> None:
    """Train the epoch in progress, from its start or from where it was interrupted."""
    recipe, progress, network = run.start.recipe, run.progress, run.classifier.network
    accumulate, steps = recipe.schedule.accumulate, run.steps
    network.train()
    sums = torch.tensor(progress.sums, dtype=torch.float64, device=run.device)
    if not run.world.is_first:
        sums.zero_()  # the first process has what was saved, of all
    started = time.perf_counter() - progress.seconds
    title = f"epoch {progress.epoch + 1}/{recipe.schedule.epochs}"
    task = run.bar.add_task(title, total=steps * accumulate, completed=progress.batches)

    def update_progress() -> None:
        loss, right = run.world.sum(sums).tolist()
        progress.sums, progress.seconds = (loss, right), time.perf_counter() - started

    with closing(run.train_reader.batches(progress.epoch, progress.batches)) as reading:
        for stored in reading:
            if run.stop.pressed and progress.batches % accumulate == 0:
                # Of several processes each may have stopped at another step.
                if progress.batches and run.world.world_size == 1:
                    update_progress()
                    save(run)
                raise KeyboardInterrupt
            ends_step = (progress.batches + 1) % accumulate == 0
            # A gradient stays in this process while a micro-batch of the same step follows.
            together = model if isinstance(model, DistributedDataParallel) else None
            with together.no_sync() if together and not ends_step else nullcontext():
                batch = stored.to(run.device)
                loss, logits = compute_loss(run.classifier, model, batch, progress.epoch)
                torch.autograd.backward(loss / accumulate)
            right = (logits.argmax(dim=1) == batch.labels).sum()
            sums += torch.stack([loss.detach().double() * len(logits), right.double()])
            progress.batches += 1
            run.bar.advance(task)
            if not ends_step:
                continue
            run.optimizer.step()
            run.optimizer.zero_grad()
            run.classifier.update_average()
            step = progress.batches // accumulate
            if run.writer and (progress.epoch * steps + step) % min(LOG_STEPS, steps) == 0:
                log(run.writer, {"step/loss": loss.item()}, progress.epoch * steps + step)
            if step % recipe.device.save_steps == 0 and step < steps:
                update_progress()
                save(run)
    update_progress()
    run.bar.remove_task(task)


def compute_loss(
    classifier: Classifier, model: nn.Module, batch: Batch, epoch: int
) -> tuple[Tensor, Tensor]:
    """Loss, a scalar, and logits, float32 (B, classes); ``model`` may exchange gradients too."""
    recipe = classifier.recipe
    inputs: tuple[Tensor, ...] = classifier.input(batch)
    weight = 1.0
    if alpha := recipe.schedule.mixup:
        first = int(batch.samples[0])
        weight = mixup_weight(alpha, seed=recipe.seed, epoch=epoch, sample=first)
        inputs = tuple(mix(values, weight) for values in inputs)
    with autocast(recipe.device, batch.labels.device):
        logits = model(*inputs).float()
    loss = classification_loss(
        logits,
        batch.labels,
        label_smoothing=recipe.schedule.label_smoothing,
        weight=weight,
        teacher=batch.teacher,
        distill=recipe.distill,
    )
    return loss, logits


def validate(run: Training) -> tuple[float, float, float] | None:
    """Loss, top-1 and top-5 on the validation split; None where there is none."""
    if run.val_reader is None:
        return None
    run.world.copy_buffers(run.classifier)
    sums = torch.zeros(4, dtype=torch.float64, device=run.device)
    task = run.bar.add_task("validation", total=len(run.val_reader))
    for batch, logits in predict(run.classifier, run.val_reader, run.device):
        sums += score(logits, batch.labels)
        run.bar.advance(task)
    run.bar.remove_task(task)
    loss, top1, top5, samples = run.world.sum(sums).tolist()
    return loss / samples, top1 / samples, top5 / samples


def finish_epoch(run: Training, validated: tuple[float, float, float] | None) -> None:
    """Compute an epoch's figures, check, log and print them, and save weights and state."""
    recipe, progress = run.start.recipe, run.progress
    frozen = run.classifier.network.frozen
    new, pretrained = (group["lr"] for group in run.optimizer.param_groups)
    samples = run.steps * recipe.data.batch_size
    val_loss, val_top1, val_top5 = validated or (None, None, None)
    row = EpochFigures(
        epoch=progress.epoch + 1,
        frozen=int(frozen),
        lr_new=new,
        lr_adopted=0.0 if frozen else pretrained,
        train_loss=progress.sums[0] / samples,
        train_top1=progress.sums[1] / samples,
        val_loss=val_loss,
        val_top1=val_top1,
        val_top5=val_top5,
        seconds=progress.seconds,
        samples_per_s=samples / progress.seconds,
    )
    row.check(run.folder)
    is_best = progress.finish_epoch(row, recipe.schedule.plateau_epochs)
    if run.world.is_first:
        tensors, record = run.classifier.evaluated.state_dict(), run.start.record(row)
        if is_best:
            save_weights(run.folder / BEST, tensors, record)
        save_weights(run.folder / LAST, tensors, record)
        write_metrics(run.folder, progress.rows)
    save(run)
    if run.writer:
        figures = {
            name.replace("_", "/", 1): value
            for name, value in row.model_dump(exclude_none=True).items()
            if name.startswith(("lr", "train", "val"))
        }
        log(run.writer, figures, row.epoch * run.steps)
        run.writer.flush()
    run.console.print(row.line(recipe.schedule.epochs), highlight=False, soft_wrap=True)


def save(run: Training) -> None:
    """Save the state that the run resumes from, unless a shard that was trained from differs."""
    run.train_reader.finish_check()
    if run.world.is_first:
        save_state(run.folder / RESUME, run.classifier, run.optimizer, run.progress)


def log(writer: "SummaryWriter", figures: dict[str, float], step: int) -> None:
    """Write figures to TensorBoard, by their tags."""
    for tag, value in figures.items():
        writer.add_scalar(tag, value, step)


class StopSignal:
    """Ends training before its next step after Ctrl-C or SIGTERM; a second one ends it at once.

    An exception out of the handler could come where Python only reports it (as a generator is
    closed): the run would continue.
    """

    def __init__(self, world: World) -> None:
        self.pressed = False
        # torchrun ends the other processes by SIGTERM when one has failed.
        self._alone = world.world_size == 1
        self._before: dict[int, Any] = {}

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
        # Not by print: the signal may have come within one.
        os.write(2, b"stopping after this step; Ctrl-C again stops at once\n")

    def __enter__(self) -> "StopSignal":
        # Python lets the main thread alone handle signals; a signal that is ignored, as in a
        # shell's background jobs, or handled by the caller stays so.
        if threading.current_thread() is threading.main_thread():
            usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
            if self._alone:
                usual[signal.SIGTERM] = signal.SIG_DFL
            for number, handler in usual.items():
                if signal.getsignal(number) is handler:
                    self._before[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
