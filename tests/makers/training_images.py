"""Images to train a codec on."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(folder: Path, count: int = 4, size: tuple[int, int] = (48, 64)) -> Path:
    """Smooth random images, as JPEG."""
    generator = np.random.default_rng(5)
    folder.mkdir(parents=True)
    for i in range(count):
        coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        image.save(folder / f"image_{i}.jpg")
    return folder
