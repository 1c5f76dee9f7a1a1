"""A decode job that was killed goes on where it stopped, and writes the same bytes."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from latentset.datasets.sources import Source
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers.commands import TIMEOUT_S, client, content_of, records_of, wait_for

Content = Callable[[Path], dict[str, bytes]]


def test_after_kill_9_the_same_command_finishes_the_same_store(
    decode_it: Callable[..., JobResult],
    latents: Path,
    mixed: Source,
    tmp_path: Path,
) -> None:
    pixels = tmp_path / "pixels.h5"  # made as Zarr, and converted in the end
    command = ["decode", str(latents), str(pixels), "--originals", str(mixed.root)]
    command += ["--workers", "2"]
    with client(*command, gate=True) as process:
        wait_for(lambda: len(records_of(pixels)) >= 3, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not pixels.is_file()
    before = {path: path.stat().st_mtime_ns for path in records_of(pixels)}
    with client(*command) as process:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    assert "were encoded by an earlier run" in errors
    assert "40: 39 with pixels, 1 failed" in output
    assert "decoded in this run" in output
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    undisturbed = tmp_path / "undisturbed.h5"
    decode_it(latents, undisturbed, originals=mixed.root)
    assert content_of(pixels) == content_of(undisturbed)


def test_two_jobs_on_one_store(
    decode_it: Callable[..., JobResult], latents: Path, tmp_path: Path
) -> None:
    pixels = tmp_path / "pixels"
    command = ["decode", str(latents), str(pixels), "--workers", "1"]
    with client(*command, gate=True) as first:
        wait_for(lambda: len(records_of(pixels)) >= 1, first)
        with client(*command) as second:
            _, errors = second.communicate(timeout=TIMEOUT_S)
        assert second.returncode == 1
        assert "another" in errors
        assert "is at work" in errors
