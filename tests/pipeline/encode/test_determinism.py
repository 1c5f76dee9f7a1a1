"""The same bytes from a real codec, however many images and threads it has at once.

What needs no codec is in test_job.py (batch, workers), test_resume.py (interruptions, workers of
two threads) and test_kill.py.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentset.datasets.sources import open_source
from latentset.datasets.sources.images import read_image
from latentset.datasets.sources.resize import ResizeRule
from latentset.pipeline.encode.encode import EncodeOptions, encode
from latentset.pipeline.jobs.coder import TENSORFLOW, Coder

CODEC = "demo-hyperprior-msssim-1"
WEIGHTS = Path(__file__).parents[3] / "pipeline" / "codec" / "weights" / f"{CODEC}.metagraph"

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"{CODEC} is not shipped")


def load_with_two_threads(codec: str, /, *, self_check: bool) -> Coder:
    from latentset.pipeline.codec.load.codec import load_codec

    return load_codec(codec, threads=2, self_check=self_check)


def test_batch_and_threads_change_no_byte(
    real_images: Path, scheduler: str, content: Callable[[Path], dict[str, bytes]], tmp_path: Path
) -> None:
    folder = tmp_path / "source" / "kodak"
    folder.mkdir(parents=True)
    rule = ResizeRule.parse("short:160")
    for path in sorted((real_images / "kodak").rglob("*.png"))[:8]:
        pixels = rule.apply(read_image(path))
        for k in range(16):
            y, x = 24 * (k // 4), 24 * (k % 4)
            Image.fromarray(pixels[y : y + 64, x : x + 64]).save(
                folder / f"{path.stem}-{k:02d}.png"
            )
    source = open_source(tmp_path / "source")
    two = replace(TENSORFLOW, load=load_with_two_threads)
    stores: list[dict[str, bytes]] = []
    for batch, engine in ((1, TENSORFLOW), (8, TENSORFLOW), (8, two)):
        path = tmp_path / f"store-{len(stores)}"
        result = encode(
            source, path, CODEC, EncodeOptions(scheduler=scheduler, batch=batch, engine=engine)
        )
        stores.append(content(path))
    assert Counter(result.store.samples["shard"].to_pylist())[0] == 8  # so many a task can batch
    assert np.asarray(result.store.array("y_hat")[:]).any()
    assert stores[1] == stores[0]
    assert stores[2] == stores[0]


def test_what_tensorflow_has_no_memory_for_is_a_memory_error() -> None:
    from latentset.pipeline.codec.load.codec import load_codec
    from latentset.pipeline.tensorflow_setup import tf

    codec: Any = load_codec(CODEC)

    class Refused:
        def run(self, *arguments: Any) -> None:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    codec._analysis._session = Refused()
    with pytest.raises(MemoryError, match="TensorFlow: OOM when allocating tensor"):
        codec.encode(np.zeros((1, 64, 64, 3), np.uint8))
