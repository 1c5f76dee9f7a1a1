"""What tests of tar files pack, and how they read what was listed."""

import io
from typing import Any

import numpy as np
from PIL import Image

from latentset.datasets.sources import Source


def rows(source: Source) -> list[tuple[Any, ...]]:
    columns = (source.samples[name].to_pylist() for name in ("path", "label", "split"))
    return list(zip(*columns, strict=True))


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (160, 200, 3), np.uint8)
    Image.fromarray(values).save(out, format="PNG")
    return out.getvalue()
