"""`--codec none`: the images themselves, as a store of pixels."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentset.datasets.errors import JobError, SettingsChangedError
from latentset.datasets.sources import Source
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store import Store
from latentset.datasets.store.verify import verify
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers.commands import TIMEOUT_S, client, records_of, wait_for

Run = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]
FindRow = Callable[[Store, str], dict[str, Any]]


def pixels_of(store: Store, name: str) -> Any:
    return store.read_sample(store.samples["id"].to_pylist().index(name))["pixels"]


def test_pixels_are_the_images(
    run: Run, mixed: Source, row: FindRow, standin: Any, tmp_path: Path
) -> None:
    (mixed.folder / "b" / "003.png").write_bytes(b"text")
    loaded = len(standin.loaded)
    store = run(mixed, tmp_path / "store", codec="none").store
    assert len(standin.loaded) == loaded
    header = store.header
    assert header.format_version == "1.1"
    assert header.codec is None
    assert header.pixels is not None
    assert header.pixels.kind == "original"
    assert (header.provenance.tensorflow, header.provenance.device) == ("", "CPU")
    for name in ("a/000.png", "b/001.png", "a/002.png"):
        expected = np.array(Image.open(mixed.folder / name).convert("RGB"))
        assert np.array_equal(pixels_of(store, name), expected)
        found = row(store, name)
        size = (mixed.folder / name).stat().st_size
        height, width = expected.shape[:2]
        assert found["source_bytes"] == size
        assert found["rate_bpp"] == pytest.approx(8 * size / height / width)
        assert found["z_first_row"] == -1
    assert row(store, "b/003.png")["status"] == "not_an_image"
    assert row(store, "b/003.png")["rate_bpp"] is None
    assert verify(tmp_path / "store", lambda what, done, total: None).outcome == "sound"


@pytest.mark.parametrize("name", ["store.zarr", "store.h5"])
def test_the_rate_is_that_of_the_file_also_after_resizing(
    name: str, run: Run, uniform: Source, row: FindRow, tmp_path: Path
) -> None:
    rule = ResizeRule.parse("exact:20x24")
    store = run(uniform, tmp_path / name, codec="none", resize=rule).store
    image = Image.open(uniform.folder / "a" / "000.png").convert("RGB")
    expected = np.array(image.resize((24, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(pixels_of(store, "a/000.png"), expected)
    assert store.header.layout.chunk_rows == 20 * 24
    size = (uniform.folder / "a" / "000.png").stat().st_size
    assert row(store, "a/000.png")["rate_bpp"] == pytest.approx(8 * size / 64 / 64)
    assert verify(tmp_path / name, lambda what, done, total: None).problems == []


def test_after_kill_9_the_same_command_finishes_the_same_store(
    run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    # The stand-in has no gate here: there is no codec. So the kill comes when a record is there.
    store = tmp_path / "store"
    command = ["encode", str(mixed.folder), str(store), "--codec", "none", "--workers", "1"]
    with client(*command) as process:
        wait_for(lambda: len(records_of(store)) >= 1, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with client(*command) as process:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    run(mixed, tmp_path / "undisturbed", codec="none")
    assert content(store) == content(tmp_path / "undisturbed")


def test_a_failed_image_can_be_tried_again(
    run: Run, mixed: Source, row: FindRow, tmp_path: Path
) -> None:
    path = mixed.folder / "b" / "003.png"
    whole = path.read_bytes()
    path.write_bytes(b"text")
    run(mixed, tmp_path / "store", codec="none")
    path.write_bytes(whole)
    result = run(mixed, tmp_path / "store", codec="none", retry_failed=True)
    assert result.retried is not None
    assert result.retried.repaired == 1
    assert row(result.store, "b/003.png")["status"] == "ok"
    expected = np.array(Image.open(path).convert("RGB"))
    assert np.array_equal(pixels_of(result.store, "b/003.png"), expected)
    assert verify(tmp_path / "store", lambda what, done, total: None).problems == []


def test_a_store_of_latents_is_not_gone_on_with(run: Run, uniform: Source, tmp_path: Path) -> None:
    run(uniform, tmp_path / "store")
    with pytest.raises(SettingsChangedError, match=r"pixels\.kind: None before, original now"):
        run(uniform, tmp_path / "store", codec="none")


def test_it_needs_a_command_of_its_own(
    run_all: Callable[..., list[JobResult]], uniform: Source, tmp_path: Path
) -> None:
    stores = {tmp_path / "a": "standin", tmp_path / "b": "none"}
    with pytest.raises(JobError, match=r"--codec none stores pixels.*a command of its own"):
        run_all(uniform, stores)
    assert not (tmp_path / "a").exists()


def test_sigma_hat_is_refused(run: Run, uniform: Source, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--codec none stores pixels only"):
        run(uniform, tmp_path / "store", codec="none", sigma_hat=True)
