"""The job with a real codec: rates against bitstreams, and the same bytes however it is run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentset.datasets.sources import open_source
from latentset.datasets.sources.images import read_image
from latentset.datasets.sources.resize import ResizeRule
from latentset.pipeline.encode.encode import EncodeOptions, encode

CODEC = "demo-hyperprior-msssim-4"
WEIGHTS = Path(__file__).parents[3] / "pipeline" / "codec" / "weights" / f"{CODEC}.metagraph"

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"{CODEC} is not shipped")


def test_the_rate_is_that_of_the_real_strings_on_kodak(
    real_images: Path, scheduler: str, tmp_path: Path
) -> None:
    from latentset.pipeline.codec.load.codec import load_codec

    shutil.copytree(real_images / "kodak", tmp_path / "source" / "kodak")
    source = open_source(tmp_path / "source")
    store = encode(source, tmp_path / "store", CODEC, EncodeOptions(scheduler=scheduler)).store
    codec = load_codec(CODEC)
    rows = store.samples.to_pylist()
    assert len(rows) == 24
    counted = measured = 0.0
    for row in rows:
        image = read_image(source.root / row["path"])
        channels = [c.ravel().tolist() for c in codec.sender(image)]
        measured += sum(8 * len(s) for c in channels for s in c if isinstance(s, bytes))
        counted += row["rate_bpp"] * image.shape[0] * image.shape[1]
    assert measured > 24 * 8 * 1000  # real bitstreams, not nothing
    assert counted == pytest.approx(measured, rel=0.02)


def test_batch_and_processes_change_no_byte(
    real_images: Path,
    scheduler: str,
    content: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "source" / "kodak"
    folder.mkdir(parents=True)
    rule = ResizeRule.parse("short:128")
    for k, path in enumerate(sorted((real_images / "kodak").rglob("*.png"))[:8]):
        pixels = rule.apply(read_image(path))
        Image.fromarray(pixels[: 64 if k % 2 else 128]).save(folder / path.name)
    source = open_source(tmp_path / "source")
    encode(source, tmp_path / "threads", CODEC, EncodeOptions(scheduler=scheduler, batch=1))
    store = encode(source, tmp_path / "processes", CODEC, EncodeOptions(workers=2, batch=32)).store
    assert content(tmp_path / "processes") == content(tmp_path / "threads")
    assert np.asarray(store.array("y_hat")[:]).any()
