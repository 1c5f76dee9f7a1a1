"""Training of a scale hyperprior on folders of images: settings, input, loop, resume."""

import json
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from latentset.datasets.errors import TrainingError
from latentset.datasets.sources.tree import list_images
from latentset.datasets.storage.atomic import write_atomically
from latentset.datasets.store.target_checks import check_output
from latentset.datasets.terminal import print_text
from latentset.pipeline.codec.msssim import ms_ssim
from latentset.pipeline.codec.train.bmshj2018 import ScaleHyperprior
from latentset.pipeline.codec.train.codec_export import export_metagraph
from latentset.pipeline.codec.train.crops import training_crops
from latentset.pipeline.codec.train.training_settings import TrainingSettings
from latentset.pipeline.tensorflow_setup import tf

SETTINGS_FILE = "settings.json"
MSSSIM_SMALLEST_CROP = 176
"""The smallest multiple of 16 that MS-SSIM takes (``msssim.SMALLEST_SIDE``)."""
CALIBRATION_CROPS = 512
"""Crops on which the range of h_s's activations is measured for its integer form."""
_NOT_IN_THE_RESULT = {"output", "checkpoints", "checkpoint_interval", "log_interval"}


def learning_rate_at(step: int, settings: TrainingSettings) -> float:
    """Return the learning rate of a step, from 0: constant, then half a cosine of its logarithm."""
    start = settings.decay_from * settings.steps
    progress = np.clip((step - start) / max(1.0, settings.steps - 1 - start), 0, 1)
    weight = 0.5 * (1 + np.cos(np.pi * progress))
    high, low = np.log(settings.learning_rate), np.log(settings.final_learning_rate)
    return float(np.exp(low + weight * (high - low)))


class Trainer:
    """Model, optimizer and step counter of one run, and their checkpoints."""

    def __init__(self, settings: TrainingSettings) -> None:
        tf.keras.utils.set_random_seed(settings.seed)
        self.settings = settings
        self.model = ScaleHyperprior(settings.N, settings.M, settings.seed)
        # The legacy optimizer updates a variable in one fused op; the new one in about fifteen.
        self.optimizer = tf.keras.optimizers.legacy.Adam(settings.learning_rate)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        parts = {"model": self.model, "optimizer": self.optimizer, "step": self.step}
        self._checkpoint = tf.train.Checkpoint(**parts)
        folder = str(settings.checkpoint_folder)
        self._manager = tf.train.CheckpointManager(self._checkpoint, folder, max_to_keep=2)
        # Compiled once for each value of ``warmup``.
        self._update = tf.function(self._update_weights, autograph=False)

    def train_step(self, x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Train on one batch; return loss, bits per pixel, and MS-SSIM or mean squared error."""
        step = int(self.step.numpy())
        self.optimizer.learning_rate.assign(learning_rate_at(step, self.settings))
        return tuple(self._update(x, step < self.settings.mse_warmup_steps))

    def _update_weights(self, x: tf.Tensor, warmup: bool) -> tuple[tf.Tensor, ...]:
        settings, variables = self.settings, self.model.trainable_variables
        with tf.GradientTape() as tape:
            x_hat, bits = self.model(x)
            rate_bpp = tf.reduce_mean(bits) / settings.crop**2
            mse = tf.reduce_mean(tf.math.squared_difference(x, x_hat))
            if warmup or settings.distortion == "mse":
                quality = distortion = mse
            else:
                quality = tf.reduce_mean(ms_ssim(x, x_hat, least=1e-6))
                distortion = 1 - quality
            weight = settings.mse_warmup_lmbda if warmup else settings.lmbda
            loss = rate_bpp + weight * distortion
        gradients = tape.gradient(loss, variables)
        # A crop without any texture yields MS-SSIM gradients that are large, rarely.
        gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self.step.assign_add(1)
        return loss, rate_bpp, quality

    def save(self) -> None:
        """Write a checkpoint and keep the newest two."""
        self._manager.save(checkpoint_number=int(self.step.numpy()))

    def restore(self) -> bool:
        """Read the newest checkpoint of this run; False where there is none."""
        if latest := self._manager.latest_checkpoint:
            self._checkpoint.restore(latest).assert_existing_objects_matched()
        return latest is not None


def load_weights(model: ScaleHyperprior, folder: Path) -> None:
    """Load the weights of the newest checkpoint in a folder; TrainingError if they do not fit."""
    latest = tf.train.latest_checkpoint(str(folder))
    if latest is None:
        raise TrainingError(f"{folder}: no checkpoint of a training run in it")
    try:
        status = tf.train.Checkpoint(model=model).restore(latest)
        status.assert_existing_objects_matched().expect_partial()
    except (ValueError, AssertionError) as error:
        raise TrainingError(
            f"{latest}: its weights do not fit N={model.N}, M={model.M}: {error}"
        ) from error


def initialise_from(model: ScaleHyperprior, folder: Path) -> None:
    """Initialise a model from the newest checkpoint of another run, of its N and at most its M.

    Channels of y that the other model lacks keep their random filters in ``g_a`` and ``h_s``, and
    start with weight zero in ``g_s`` and ``h_a``, so that they disturb nothing.
    """
    recorded = folder / SETTINGS_FILE
    if not recorded.exists():
        raise TrainingError(f"{folder}: no checkpoint of a training run in it")
    filters = json.loads(recorded.read_text())
    N, M = int(filters["N"]), int(filters["M"])
    if model.N != N or model.M < M:
        raise TrainingError(
            f"{folder}: its weights are for N={N}, M={M}; they can start a model of the same N "
            f"and at least as large an M, got N={model.N}, M={model.M}"
        )
    other = ScaleHyperprior(N, M)
    load_weights(other, folder)
    for ours, theirs in zip(model.trainable_variables, other.trainable_variables, strict=True):
        value = ours.numpy()
        if value.ndim == 4 and value.shape[2] != theirs.shape[2]:
            value[:, :, theirs.shape[2] :] = 0  # inputs of a kernel (height, width, in, out)
        value[tuple(slice(size) for size in theirs.shape)] = theirs.numpy()
        ours.assign(value)


def claim_folder(settings: TrainingSettings) -> None:
    """Record the settings in the checkpoint folder; TrainingError if it has other ones."""
    wanted = settings.model_dump(mode="json", exclude=_NOT_IN_THE_RESULT)
    folder = settings.checkpoint_folder
    file = folder / SETTINGS_FILE
    if not file.exists():
        write_atomically(file, json.dumps(wanted, indent=2) + "\n")
        return
    recorded = json.loads(file.read_text())
    if "photographs" in recorded:  # its name up to 0.1.0
        recorded["images"] = recorded.pop("photographs")
    different = [k for k in sorted(recorded | wanted) if recorded.get(k) != wanted.get(k)]
    if different:
        lines = [f"  {k}: recorded {recorded.get(k)!r}, now {wanted.get(k)!r}" for k in different]
        raise TrainingError(
            "\n".join([f"{folder} belongs to a run with other settings:", *lines])
            + "\nGive the recorded settings to resume it, or another checkpoint folder."
        )


def train_codec(settings: TrainingSettings, *, console: Console) -> Path:
    """Train a scale hyperprior and export it; resume if the folder has a checkpoint.

    SourceError where there are no images; TrainingError where the checkpoints have other settings,
    where a crop is too small for MS-SSIM, or where the loss is not a number.
    """
    if settings.distortion == "ms-ssim" and settings.crop < MSSSIM_SMALLEST_CROP:
        raise TrainingError(
            f"MS-SSIM needs crops of at least {MSSSIM_SMALLEST_CROP} pixels, got {settings.crop}"
        )
    for folder in settings.images:  # before anything is written
        list_images(folder)
    check_output(settings.output)
    claim_folder(settings)
    trainer = Trainer(settings)
    if trainer.restore():
        print_text(console, f"resumed at step {int(trainer.step.numpy())} of {settings.steps}")
    elif settings.init_from is not None:
        initialise_from(trainer.model, settings.init_from)
        print_text(console, f"initialised from {settings.init_from}")
    skipped: dict[str, str] = {}
    if int(trainer.step.numpy()) < settings.steps:
        _run_steps(trainer, console, skipped)
    if skipped:
        print_text(console, f"{len(skipped)} files could not be decoded and were skipped:")
        for path, reason in sorted(skipped.items()):
            print_text(console, f"  {path}: {reason}")
    crops = islice(_crops(settings, settings.seed, {}), -(-CALIBRATION_CROPS // settings.batch))
    export_metagraph(trainer.model, settings.output, crops)
    print_text(console, f"wrote {settings.output} ({settings.output.stat().st_size:,} bytes)")
    return settings.output


def _crops(settings: TrainingSettings, seed: int, skipped: dict[str, str]) -> Iterator[Any]:
    sizes = {"crop": settings.crop, "batch": settings.batch}
    return iter(training_crops(settings.images, **sizes, seed=seed, skipped=skipped))


def _run_steps(trainer: Trainer, console: Console, skipped: dict[str, str]) -> None:
    """Train up to the last step, with a bar on a terminal and a line now and then elsewhere."""
    settings = trainer.settings
    first, started = int(trainer.step.numpy()), time.monotonic()
    batches = _crops(settings, settings.seed * 1_000_003 + first, skipped)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    readings: list[tuple[float, ...]] = []
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=settings.steps, completed=first)
        for step in range(first + 1, settings.steps + 1):
            readings.append(tuple(float(v) for v in trainer.train_step(next(batches))))
            if not np.isfinite(readings[-1][0]):
                raise TrainingError(
                    f"step {step}: the loss is {readings[-1][0]}; lower learning_rate, and "
                    "start again in another checkpoint folder"
                )
            if step % settings.log_interval == 0 or step == settings.steps:
                text = _describe_means(settings, step, readings, len(skipped))
                readings = []
                bar.update(task, completed=step, description=text)
                if not console.is_terminal:
                    elapsed = time.monotonic() - started
                    left = elapsed / (step - first) * (settings.steps - step)
                    console.print(
                        f"step {step}/{settings.steps}  {text}  "
                        f"{elapsed / 60:.1f} min elapsed, {left / 60:.1f} min left",
                        soft_wrap=True,
                        highlight=False,
                    )
            if step % settings.checkpoint_interval == 0 or step == settings.steps:
                trainer.save()


def _describe_means(
    settings: TrainingSettings, step: int, readings: Sequence[Sequence[float]], skipped: int
) -> str:
    loss, rate_bpp, quality = np.mean(readings, axis=0).tolist()
    warmup = step <= settings.mse_warmup_steps
    kind = "mse" if warmup or settings.distortion == "mse" else "ms-ssim"
    text = f"loss {loss:.4f}  {rate_bpp:.3f} bpp  {kind} {quality:.4f}"
    return f"{text}  {skipped} skipped" if skipped else text
