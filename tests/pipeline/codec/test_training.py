"""Training: input, schedule, settings, and resuming after a kill."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from latentset.datasets.errors import TrainingError
from latentset.pipeline.codec.bmshj2018 import ScaleHyperprior
from latentset.pipeline.codec.crops import SkipCount, training_crops
from latentset.pipeline.codec.training import (
    Trainer,
    TrainingSettings,
    learning_rate_at,
    load_weights,
    train_codec,
)
from latentset.pipeline.tensorflow_setup import tf


def write_photographs(folder: Path, count: int = 4, size: tuple[int, int] = (48, 64)) -> Path:
    """Smooth random images, as JPEG."""
    generator = np.random.default_rng(5)
    folder.mkdir(parents=True)
    for i in range(count):
        coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        image.save(folder / f"photograph_{i}.jpg")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> TrainingSettings:
    return TrainingSettings(
        photographs=(write_photographs(tmp_path / "photographs"),),
        output=tmp_path / "small.metagraph",
        distortion="mse",
        lmbda=0.01,
        N=4,
        M=6,
        crop=32,
        batch=2,
        steps=6,
        learning_rate=1e-3,
        checkpoint_interval=2,
        log_interval=2,
    )


@contextlib.contextmanager
def recorded() -> Iterator[tuple[Console, io.StringIO]]:
    text = io.StringIO()
    yield Console(file=text, width=200), text


def train(settings: TrainingSettings) -> str:
    """Train and return what was printed."""
    with recorded() as (console, text):
        assert train_codec(settings, console=console) == settings.output
    return text.getvalue()


def change(settings: TrainingSettings, **values: Any) -> TrainingSettings:
    return TrainingSettings.model_validate(settings.model_dump() | values)


def test_loss_falls_and_both_files_appear(settings: TrainingSettings) -> None:
    printed = train(change(settings, steps=40, learning_rate=1e-2, log_interval=10))
    losses = [float(line.split("loss ")[1].split()[0]) for line in _progress_lines(printed)]
    assert len(losses) == 4
    assert losses[-1] < 0.7 * losses[0]
    assert settings.output.stat().st_size > 10_000
    assert tf.train.latest_checkpoint(str(settings.checkpoint_folder)).endswith("ckpt-40")
    leftovers = [p for p in settings.output.parent.rglob("*") if p.suffix == ".tmp"]
    assert leftovers == []


def _progress_lines(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith("step ")]


def test_progress_lines_say_rate_quality_and_time_left(settings: TrainingSettings) -> None:
    lines = _progress_lines(train(settings))
    assert [line.split()[1] for line in lines] == ["2/6", "4/6", "6/6"]
    for part in ("loss ", " bpp ", " mse ", "min left"):
        assert part in lines[0]


def test_warmup_is_on_mse_and_then_ms_ssim(settings: TrainingSettings) -> None:
    printed = train(
        change(
            settings, distortion="ms-ssim", lmbda=10, crop=176, batch=1, steps=4,
            mse_warmup_steps=2,
        )
    )  # fmt: skip
    first, second = _progress_lines(printed)
    assert " mse " in first
    assert " ms-ssim 0." in second


def test_resumes_after_kill_9(settings: TrainingSettings) -> None:
    long = change(settings, steps=100_000)
    program = (
        "import sys; from rich.console import Console;"
        "from latentset.pipeline.codec.training import TrainingSettings, train_codec;"
        "train_codec(TrainingSettings.model_validate_json(sys.argv[1]), console=Console())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, long.model_dump_json()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while _newest_step(long) < 6:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not long.output.exists()

    killed_at = _newest_step(long)
    trainer = Trainer(long)
    assert trainer.restore()
    assert int(trainer.step) == killed_at
    batch = tf.zeros((2, 32, 32, 3))
    trainer.train_step(batch)  # the optimizer's slots are created, and then filled, here
    assert int(trainer.optimizer.iterations) == killed_at + 1
    momenta = [trainer.optimizer.get_slot(v, "v") for v in trainer.model.trainable_variables]
    assert sum(float(tf.reduce_sum(m)) for m in momenta) > 0
    assert np.isfinite(trainer.model.g_a(batch).numpy()).all()


def _newest_step(settings: TrainingSettings) -> int:
    newest = tf.train.latest_checkpoint(str(settings.checkpoint_folder))
    return int(newest.rpartition("-")[2]) if newest else 0


def test_same_command_goes_on_from_the_newest_checkpoint(settings: TrainingSettings) -> None:
    train(settings)
    shutil.copytree(settings.checkpoint_folder, settings.output.parent / "copy")
    state = settings.checkpoint_folder / "checkpoint"
    state.write_text(state.read_text().replace('path: "ckpt-6"', 'path: "ckpt-4"', 1))
    printed = train(settings)
    assert "resumed at step 4 of 6" in printed
    assert [line.split()[1] for line in _progress_lines(printed)] == ["6/6"]


def test_finished_run_only_exports_again(settings: TrainingSettings) -> None:
    train(settings)
    first = settings.output.read_bytes()
    settings.output.unlink()
    printed = train(settings)
    assert _progress_lines(printed) == []
    assert settings.output.read_bytes() == first


def test_changed_settings_are_refused_with_the_differences(settings: TrainingSettings) -> None:
    train(settings)
    with pytest.raises(TrainingError, match="other settings") as error, recorded() as (console, _):
        train_codec(change(settings, lmbda=0.5, M=8), console=console)
    lines = str(error.value).splitlines()
    assert lines[1:3] == ["  M: recorded 6, now 8", "  lmbda: recorded 0.01, now 0.5"]


def test_settings_that_do_not_matter_may_change(settings: TrainingSettings) -> None:
    train(settings)
    train(change(settings, checkpoint_interval=3, log_interval=1))


def test_init_from_takes_the_weights_and_nothing_else(settings: TrainingSettings) -> None:
    train(settings)
    source = settings.checkpoint_folder
    model = ScaleHyperprior(4, 6)
    load_weights(model, source)
    second = change(settings, init_from=source, checkpoints=source.with_name("second"), seed=9)
    trainer = Trainer(second)
    kernel, taken = (m.g_a.layers[0].kernel.numpy() for m in (trainer.model, model))
    assert not np.allclose(kernel, taken)
    trainer.take_weights(source)
    for ours, theirs in zip(
        trainer.model.trainable_variables, model.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert int(trainer.step) == 0


def test_init_from_other_filter_counts_is_refused(settings: TrainingSettings) -> None:
    train(settings)
    with pytest.raises(TrainingError, match="do not fit N=4, M=7"):
        load_weights(ScaleHyperprior(4, 7), settings.checkpoint_folder)
    with pytest.raises(TrainingError, match="no checkpoint"):
        load_weights(ScaleHyperprior(4, 7), settings.output.parent / "photographs")


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


def crops_of(folders: list[Path], seed: int = 1, skipped: SkipCount | None = None) -> Any:
    skipped = SkipCount() if skipped is None else skipped
    return training_crops(folders, crop=32, batch=2, seed=seed, skipped=skipped)


def test_crops_are_cut_and_flipped_photographs(tmp_path: Path) -> None:
    folder = tmp_path / "class" / "sub"
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:40, :50].astype(np.uint8)
    Image.fromarray(np.stack([rows, columns, rows], -1)).save(folder / "position.png")
    corners, flips = set(), set()
    for batch in crops_of([tmp_path]).take(20):
        assert batch.shape == (2, 32, 32, 3)
        for crop in batch.numpy().astype(int):
            top, left = crop[0, 0, 0], min(crop[0, 0, 1], crop[0, -1, 1])
            flipped = bool(crop[0, 0, 1] > crop[0, -1, 1])
            expected = np.stack([rows, columns, rows], -1)[top : top + 32, left : left + 32]
            np.testing.assert_array_equal(crop, expected[:, ::-1] if flipped else expected)
            corners.add((int(top), int(left)))
            flips.add(flipped)
    assert len(corners) > 20
    assert flips == {False, True}


def test_crops_are_a_function_of_the_seed(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs")
    first, again, other = (
        next(iter(crops_of([folder], seed))).numpy() for seed in (1, 1, 2)
    )  # fmt: skip
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_small_photographs_are_enlarged(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "small", size=(9, 20))
    batch = next(iter(crops_of([folder])))
    assert batch.shape == (2, 32, 32, 3)


def test_folders_are_drawn_from_equally_often(tmp_path: Path) -> None:
    for name, level, count in (("many", 0, 9), ("one", 255, 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (40, 40), (level,) * 3).save(tmp_path / name / f"{i}.png")
    batches = np.stack(list(crops_of([tmp_path / "many", tmp_path / "one"]).take(10)))
    assert batches.mean() == pytest.approx(127.5)


def test_broken_files_are_counted_and_left_out(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs", count=2)
    whole = (folder / "photograph_0.jpg").read_bytes()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no photograph")
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not looked at")
    skipped = SkipCount()
    for _ in crops_of([folder], skipped=skipped).take(8):
        pass
    assert sorted(Path(p).name for p in skipped.files) == ["cut.jpg", "empty.jpg", "text.png"]


def test_broken_files_are_reported(settings: TrainingSettings) -> None:
    (settings.photographs[0] / "empty.jpg").write_bytes(b"")
    printed = train(settings)
    assert "1 files could not be decoded and were skipped" in printed
    assert "empty.jpg: " in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such folder"), ({}, "no photographs"), ({"a.jpg": b"x"}, "none of its 1 photog")],
    ids=["missing", "empty", "broken"],
)
def test_folder_without_photographs_is_refused(
    tmp_path: Path, content: dict[str, bytes] | None, message: str
) -> None:
    folder = tmp_path / "photographs"
    if content is not None:
        folder.mkdir()
        for name, data in content.items():
            (folder / name).write_bytes(data)
    with pytest.raises(TrainingError, match=message):
        crops_of([folder])


def test_loss_that_is_no_number_ends_the_run(
    settings: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = tf.constant(float("nan"))
    monkeypatch.setattr(Trainer, "train_step", lambda *_: (nan, nan, nan))
    with pytest.raises(TrainingError, match="step 1: the loss is nan"):
        train(settings)


def test_temporary_names_hold_the_process(settings: TrainingSettings) -> None:
    """Two runs that write the same output never share a temporary file."""
    train(settings)
    assert not list(settings.output.parent.glob(f".*{os.getpid()}*"))
