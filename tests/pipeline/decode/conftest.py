"""Latents to decode."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.sources import Source
from latentset.pipeline.decode.job import decode
from latentset.pipeline.encode.job import EncodeResult


@pytest.fixture
def decode_it(standin: Any, scheduler: str) -> Callable[..., EncodeResult]:
    """Decode with the stand-in on the session's workers."""

    def run_it(store: Path, pixels: Path, **options: Any) -> EncodeResult:
        options = {"scheduler": scheduler, "engine": standin.ENGINE} | options
        return decode(store, pixels, **options)

    return run_it


@pytest.fixture
def latents(run: Callable[..., EncodeResult], mixed: Source, tmp_path: Path) -> Path:
    """Latents of 40 images of three sizes, one of which is no image."""
    (mixed.root / "a" / "004.png").write_bytes(b"text")
    return Path(str(run(mixed, tmp_path / "latents").store.location))
