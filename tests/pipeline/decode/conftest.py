"""Latents to decode."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.sources import Source
from latentset.pipeline.decode.decode import decode
from latentset.pipeline.jobs.options import JobOptions
from latentset.pipeline.jobs.tasks import JobResult


@pytest.fixture
def decode_it(standin: Any, scheduler: str) -> Callable[..., JobResult]:
    """Decode with the stand-in on the session's workers."""

    def run_it(
        store: Path,
        pixels: Path,
        codec: str | None = None,
        originals: Path | None = None,
        **options: Any,
    ) -> JobResult:
        options = {"scheduler": scheduler, "engine": standin.ENGINE} | options
        return decode(store, pixels, JobOptions(**options), codec=codec, originals=originals)

    return run_it


@pytest.fixture
def latents(run: Callable[..., JobResult], mixed: Source, tmp_path: Path) -> Path:
    """Latents of 40 images of three sizes, one of which is no image."""
    (mixed.folder / "a" / "004.png").write_bytes(b"text")
    return Path(str(run(mixed, tmp_path / "latents").store.location))
