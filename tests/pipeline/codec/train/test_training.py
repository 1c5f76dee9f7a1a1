"""Training: input, schedule, settings, and resuming after a kill."""

import io
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from rich.console import Console

from latentset.datasets.errors import SourceError, TrainingError
from latentset.pipeline.codec.train import training
from latentset.pipeline.codec.train.bmshj2018 import ScaleHyperprior
from latentset.pipeline.codec.train.training import (
    Trainer,
    initialise_from,
    learning_rate_at,
    load_weights,
    train_codec,
)
from latentset.pipeline.codec.train.training_settings import TrainingSettings
from latentset.pipeline.tensorflow_setup import tf
from tests.makers.training_images import write_images

EAGER_WARNING = pytest.mark.filterwarnings("ignore:Even though the .tf.config:UserWarning")
"""That the input pipeline is compiled all the same, which is what we want."""


@pytest.fixture
def settings(tmp_path: Path) -> TrainingSettings:
    return settings_in(tmp_path)


def settings_in(folder: Path) -> TrainingSettings:
    return TrainingSettings(
        images=(write_images(folder / "images"),),
        output=folder / "small.metagraph",
        distortion="mse",
        lmbda=0.01,
        N=4,
        M=6,
        crop=32,
        batch=2,
        steps=40,
        learning_rate=1e-2,
        checkpoint_interval=2,
        log_interval=10,
    )


def train(settings: TrainingSettings) -> str:
    """Train and return what was printed."""
    text = io.StringIO()
    console = Console(file=text, width=200)
    assert train_codec(settings, console=console) == settings.output
    return text.getvalue()


def change(settings: TrainingSettings, **values: Any) -> TrainingSettings:
    return TrainingSettings.model_validate(settings.model_dump() | values)


def progress_lines(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith("step ")]


@pytest.fixture
def quick_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the number of channels instead of a metagraph: an export takes seconds."""

    def write(model: ScaleHyperprior, path: Path, images: Any) -> None:
        path.write_text(f"{model.N} {model.M}")

    monkeypatch.setattr(training, "export_metagraph", write)


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Run steps without compiling them, which is faster where there are only one or two."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class Finished(NamedTuple):
    """A run that has ended; tests copy what they change."""

    settings: TrainingSettings
    printed: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    settings = settings_in(tmp_path_factory.mktemp("finished"))
    (settings.images[0] / "empty.jpg").write_bytes(b"")
    return Finished(settings, train(settings))


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> TrainingSettings:
    """The finished run with a copy of its checkpoints."""
    settings = change(
        finished.settings, output=tmp_path / "small.metagraph", checkpoints=tmp_path / "copy"
    )
    shutil.copytree(finished.settings.checkpoint_folder, settings.checkpoint_folder)
    return settings


def test_loss_falls(finished: Finished) -> None:
    lines = progress_lines(finished.printed)
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == 4
    assert losses[-1] < 0.7 * losses[0]


def test_metagraph_and_checkpoint_are_whole_and_nothing_else_is_left(finished: Finished) -> None:
    settings = finished.settings
    metagraph = tf.compat.v1.MetaGraphDef()
    metagraph.ParseFromString(settings.output.read_bytes())
    assert sorted(metagraph.signature_def) == ["receiver", "sender"]
    assert newest_step(settings) == 40
    assert sorted(p.name for p in settings.output.parent.iterdir()) == [
        "images",
        "small.metagraph",
        "small.metagraph.checkpoints",
    ]
    assert not list(settings.output.parent.rglob("*.partial-*"))


def test_progress_lines_say_rate_quality_and_time_left(finished: Finished) -> None:
    lines = progress_lines(finished.printed)
    assert [line.split()[1] for line in lines] == ["10/40", "20/40", "30/40", "40/40"]
    for part in ("loss ", " bpp ", " mse ", "min left"):
        assert part in lines[0]


def test_broken_files_are_reported(finished: Finished) -> None:
    assert "1 files could not be decoded and were skipped" in finished.printed
    assert "empty.jpg: " in finished.printed


@pytest.mark.usefixtures("quick_export", "eagerly")
@EAGER_WARNING
def test_warmup_is_on_mse_and_then_ms_ssim(settings: TrainingSettings) -> None:
    changes = {"distortion": "ms-ssim", "lmbda": 10, "crop": 176, "batch": 1}
    steps = {"steps": 2, "mse_warmup_steps": 1, "log_interval": 1}
    first, second = progress_lines(train(change(settings, **changes, **steps)))
    assert float(first.split(" mse ")[1].split()[0]) > 1  # of pixels from 0 to 255
    assert " ms-ssim 0." in second


@pytest.mark.usefixtures("eagerly")
def test_resumes_after_kill_9(settings: TrainingSettings) -> None:
    long = change(settings, steps=100_000)
    program = (
        "import sys; from rich.console import Console;"
        "from latentset.pipeline.codec.train.training import train_codec;"
        "from latentset.pipeline.codec.train.training_settings import TrainingSettings;"
        "train_codec(TrainingSettings.model_validate_json(sys.argv[1]), console=Console())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, long.model_dump_json()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 300
        while newest_step(long) < 6:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not long.output.exists()

    killed_at = newest_step(long)
    trainer = Trainer(long)
    untrained = trainer.model.g_a.layers[0].kernel.numpy()
    assert trainer.restore()
    assert int(trainer.step) == killed_at
    assert not np.allclose(trainer.model.g_a.layers[0].kernel.numpy(), untrained)
    trainer.train_step(tf.zeros((2, 32, 32, 3)))  # the optimizer's slots are filled here
    assert int(trainer.optimizer.iterations) == killed_at + 1
    reader = tf.train.load_checkpoint(str(long.checkpoint_folder / f"ckpt-{killed_at}"))
    saved = [k for k in reader.get_variable_to_shape_map() if ".OPTIMIZER_SLOT/optimizer/v" in k]
    assert len(saved) == len(trainer.model.trainable_variables)
    bias = trainer.model.g_s.layers[-1].bias_parameter
    (key,) = [k for k in saved if "g_s/layer_with_weights-3/" in k and "bias" in k]
    # Adam's second moment decays by 0.999 a step: what was saved is still most of it.
    slot = trainer.optimizer.get_slot(bias, "v").numpy()
    assert (slot >= 0.998 * reader.get_tensor(key)).all()


def newest_step(settings: TrainingSettings) -> int:
    newest = tf.train.latest_checkpoint(str(settings.checkpoint_folder))
    return int(newest.rpartition("-")[2]) if newest else 0


@pytest.mark.usefixtures("quick_export", "eagerly")
@EAGER_WARNING
def test_same_command_resumes_from_the_newest_checkpoint(copied: TrainingSettings) -> None:
    state = copied.checkpoint_folder / "checkpoint"
    state.write_text(state.read_text().replace('path: "ckpt-40"', 'path: "ckpt-38"', 1))
    printed = train(copied)
    assert "resumed at step 38 of 40" in printed
    assert [line.split()[1] for line in progress_lines(printed)] == ["40/40"]


def test_finished_run_only_exports_again(finished: Finished, copied: TrainingSettings) -> None:
    assert progress_lines(train(copied)) == []
    assert copied.output.read_bytes() == finished.settings.output.read_bytes()


def test_changed_settings_are_refused_with_the_differences(copied: TrainingSettings) -> None:
    with pytest.raises(TrainingError, match="other settings") as error:
        train(change(copied, lmbda=0.5, M=8))
    lines = str(error.value).splitlines()
    assert lines[1:3] == ["  M: recorded 6, now 8", "  lmbda: recorded 0.01, now 0.5"]


@pytest.mark.usefixtures("quick_export")
def test_settings_that_do_not_matter_may_change(copied: TrainingSettings) -> None:
    assert "resumed" in train(change(copied, checkpoint_interval=3, log_interval=1))


@pytest.mark.usefixtures("quick_export", "eagerly")
@EAGER_WARNING
def test_init_from_takes_the_weights_and_nothing_else(copied: TrainingSettings) -> None:
    second = change(
        copied,
        init_from=copied.checkpoint_folder,
        checkpoints=copied.output.parent / "second",
        learning_rate=1e-12,
        final_learning_rate=1e-12,
        steps=1,
    )
    printed = train(second)
    assert "initialised from" in printed
    assert progress_lines(printed)[0].startswith("step 1/1 ")
    models = ScaleHyperprior(4, 6), ScaleHyperprior(4, 6)
    load_weights(models[0], copied.checkpoint_folder)
    load_weights(models[1], second.checkpoint_folder)
    for first, again in zip(*(m.trainable_variables for m in models), strict=True):
        np.testing.assert_allclose(first.numpy(), again.numpy(), atol=1e-9)


def test_more_channels_start_as_the_smaller_model(copied: TrainingSettings) -> None:
    """The new channels of y change neither the reconstruction nor the scales of the others."""
    small, large = ScaleHyperprior(4, 6), ScaleHyperprior(4, 9)
    load_weights(small, copied.checkpoint_folder)
    initialise_from(large, copied.checkpoint_folder)
    x = tf.random.stateless_uniform((1, 64, 64, 3), (1, 2))
    y_small, y_large = small.g_a(x), large.g_a(x)
    assert y_large.shape[-1] == 9
    assert float(tf.reduce_min(tf.math.reduce_std(y_large[..., 6:], (0, 1, 2)))) > 0
    z_small, z_large = small.h_a(tf.abs(y_small)), large.h_a(tf.abs(y_large))
    for ours, theirs in (
        (y_large[..., :6], y_small),
        (z_large, z_small),
        (large.h_s(z_large)[..., :6], small.h_s(z_small)),
        (large.g_s(y_large), small.g_s(y_small)),
    ):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("N", "M"), [(5, 6), (4, 5)])
def test_init_from_other_filter_counts_is_refused(copied: TrainingSettings, N: int, M: int) -> None:
    with pytest.raises(TrainingError, match=f"for N=4, M=6; .*, got N={N}, M={M}"):
        initialise_from(ScaleHyperprior(N, M), copied.checkpoint_folder)


def test_weights_that_do_not_fit_are_refused(copied: TrainingSettings) -> None:
    with pytest.raises(TrainingError, match="do not fit N=4, M=7"):
        load_weights(ScaleHyperprior(4, 7), copied.checkpoint_folder)


def test_init_from_a_folder_without_checkpoints_is_refused(settings: TrainingSettings) -> None:
    model = ScaleHyperprior(4, 6)
    for function in (load_weights, initialise_from):
        with pytest.raises(TrainingError, match="no checkpoint"):
            function(model, settings.images[0])


def test_small_crops_are_refused_for_ms_ssim(settings: TrainingSettings) -> None:
    with pytest.raises(TrainingError, match="at least 176 pixels, got 32"):
        train(change(settings, distortion="ms-ssim"))


def test_unknown_setting_is_refused(settings: TrainingSettings) -> None:
    with pytest.raises(ValueError, match="lambda"):
        change(settings, **{"lambda": 3})


def test_learning_rate_is_constant_and_then_falls(settings: TrainingSettings) -> None:
    s = change(settings, steps=101, learning_rate=1e-3, final_learning_rate=1e-5, decay_from=0.0)
    assert learning_rate_at(0, s) == pytest.approx(1e-3)
    assert learning_rate_at(50, s) == pytest.approx(1e-4)  # the geometric mean, half-way
    assert learning_rate_at(100, s) == pytest.approx(1e-5)
    s = change(s, decay_from=0.5)
    assert learning_rate_at(50, s) == pytest.approx(1e-3)
    assert learning_rate_at(100, s) == pytest.approx(1e-5)


def test_loss_that_is_no_number_ends_the_run(
    settings: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = tf.constant(float("nan"))
    monkeypatch.setattr(Trainer, "train_step", lambda *_: (nan, nan, nan))
    with pytest.raises(TrainingError, match="step 1: the loss is nan"):
        train(settings)


def test_a_mistyped_folder_leaves_nothing(settings: TrainingSettings, tmp_path: Path) -> None:
    wrong = settings.model_copy(update={"images": (tmp_path / "imagse",)})
    with pytest.raises(SourceError, match="imagse: expected a folder of images, found nothing"):
        train(wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty: no images"):
        train(settings.model_copy(update={"images": (tmp_path / "empty",)}))
    assert not settings.checkpoint_folder.exists()


def test_the_output_is_tried_before_training(settings: TrainingSettings) -> None:
    settings.output.mkdir()
    with pytest.raises(IsADirectoryError, match=r"small\.metagraph'"):
        train(settings)
    assert not settings.checkpoint_folder.exists()
